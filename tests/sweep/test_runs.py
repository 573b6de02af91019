"""Sweeps: grids, equality with single runs, records, failures, workers, memory."""

import json
import os
import signal
import time
import tracemalloc
import warnings
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path

import joblib
import numpy as np
import pytest
from joblib import Memory

from encoding_nb import _machine, pipeline
from encoding_nb import assembly as the_assembly
from encoding_nb._machine import n_threads
from encoding_nb._progress import Cancelled
from encoding_nb.assembly import Assembly, Story, Words
from encoding_nb.design import Trimming
from encoding_nb.features import activations
from encoding_nb.pipeline import runs as the_runs
from encoding_nb.records import load, tables
from encoding_nb.settings import Settings, SettingsError
from encoding_nb.sweep import (
    SweepFailure,
    run_sweep,
    settings_grid,
    story_subsets,
    sweep_table,
)
from encoding_nb.sweep import runs as the_sweep

TEXT = "the old man walked down to the harbour and looked at the boats that had come in with the tide".split()
RATE = Settings(modality="wordrate", alphas=(1.0, 10.0), chunk_length=5, trimming=Trimming(), n_inner_folds=3)
MODEL = replace(RATE, modality="language_model", lookback=4)
NAMES = ("storya", "storyb", "storyc", "storyz")


class CountedRows:
    """BOLD that counts how often it is read."""

    def __init__(self, bold):
        self.bold, self.shape, self.reads = bold, bold.shape, 0

    def __getitem__(self, key):
        self.reads += 1
        return self.bold[key]


def make_assembly(subject="S", *, seed=0, n_voxels=12, n_trs=40, names=NAMES):
    stories = {}
    for place, name in enumerate(names):
        rng = np.random.default_rng([seed, place])
        words = [TEXT[(place * 5 + i) % len(TEXT)] for i in range(len(TEXT))]
        onsets = np.linspace(0.5, 2.0 * n_trs - 3, len(words))
        bold = rng.standard_normal((n_trs, n_voxels)).astype(np.float32)
        repeats = bold + 0.3 * rng.standard_normal((3, *bold.shape)) if name == "storyz" else None
        stories[name] = Story(
            name,
            Words(words, onsets, onsets + 0.3),
            2.0 * np.arange(n_trs),
            CountedRows(bold),
            repeats=repeats,
        )
    rois = {"left": np.arange(n_voxels) % 2 == 0}
    return Assembly(subject, 2.0, stories, test_stories=(names[-1],), rois=rois)


@pytest.fixture
def assembly():
    return make_assembly()


@pytest.fixture
def memory(tmp_path):
    return Memory(tmp_path / "cache", verbose=0)


@pytest.fixture
def extracted(monkeypatch):
    """Names the model's passes over a story as they happen."""
    seen, extract = [], activations.extract

    def counted(model, windows, *args, **options):
        seen.append(windows.digest)
        return extract(model, windows, *args, **options)

    monkeypatch.setattr(activations, "extract", counted)
    return seen


def assert_equal_to_single_runs(results, assembly, grid, memory):
    assert len(results) == len(grid)
    for result, settings in zip(results, grid, strict=True):
        single = the_runs.run(assembly, settings, memory=memory, progress=False)
        assert result.settings == settings
        for name in ("scores", "best_alphas", "pvalues", "noise_ceiling", "null_mean", "null_sd"):
            mine, theirs = getattr(result, name), getattr(single, name)
            assert (mine is None) == (theirs is None), name
            if theirs is not None:
                np.testing.assert_allclose(mine, theirs, atol=1e-6, err_msg=name)
        assert result.test_name == single.test_name
        assert result.metrics == pytest.approx(single.metrics, nan_ok=True)
        for story, scores in single.story_scores.items():
            np.testing.assert_allclose(result.story_scores[story], scores, atol=1e-6)
            np.testing.assert_array_equal(result.row_times[story], single.row_times[story])
        assert list(result.rois) == list(single.rois)


# ---------------------------------------------------------------------- grids


def test_a_grid_is_every_combination_once():
    grid = settings_grid(MODEL, layer_idx=range(3), lookback=[4, 8], alphas=[(1.0,), (1.0, 5.0)])
    expected = [
        replace(MODEL, layer_idx=i, lookback=n, alphas=a)
        for i, n, a in product(range(3), (4, 8), ((1.0,), (1.0, 5.0)))
    ]
    assert set(grid) == set(expected) and len(grid) == 12
    assert settings_grid(MODEL) == [MODEL]


def test_a_grid_varies_the_last_axis_first():
    grid = settings_grid(MODEL, lookback=[4, 8], layer_idx=[0, 2])
    assert [(s.lookback, s.layer_idx) for s in grid] == [(4, 0), (4, 2), (8, 0), (8, 2)]


def test_all_layers_of_a_model():
    assert [s.layer_idx for s in settings_grid(MODEL, layer_idx="all")] == list(range(7))


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({"layer": [1]}, "no setting is called 'layer'; there are modality, .*layer_idx"),
        ({"layer_idx": []}, "at least one value of layer_idx, got none"),
        ({"layer_idx": [1, 2, 1]}, "layer_idx holds 1 more than once"),
        ({"layer_idx": 3}, "expected layer_idx as a list of values, got 3"),
        ({"model_name": "gpt2"}, "expected model_name as a list of values, got 'gpt2'"),
        ({"alphas": [1.0, 10.0]}, "1.0 cannot be alphas; give a list of values"),
        ({"modality": ["wordrate"], "layer_idx": "all"}, "layer_idx has no effect on wordrate"),
        (
            {"modality": ["wordrate"], "weights": ["trained", "untrained"]},
            "weights has no effect on wordrate",
        ),
        ({"time_sigma": [1.0, 2.0]}, "time_sigma has no effect on language_model"),
        ({"n_shifts": [19, 99]}, "n_shifts has no effect .* and significance='permutation', .* kind of run"),
        ({"outer_gap": [0.0, 40.0]}, "outer_gap has no effect on language_model with test stories"),
        (
            {"use_train_test_split": [False], "n_permutations": [100, 1000]},
            "n_permutations has no effect .* with nested cross-validation",
        ),
        (
            {"modality": ["wordrate"], "layer_idx": [1, 2], "lookback": [4, 8]},
            "layer_idx, lookback has no effect",
        ),
        ({"modality": ["language_model", "wordrate"], "layer_idx": [1, 2]}, "make a grid for each modality"),
        ({"trimming": [{"start": 5}]}, "unknown names start; .*train_features_start"),
    ],
)
def test_axes_that_cannot_be(axes, says):
    with pytest.raises(ValueError, match=says):
        settings_grid(MODEL, **axes)


def test_one_layer_and_joined_spaces_are_no_idle_axes():
    assert len(settings_grid(RATE, layer_idx=[3], alphas=[(1.0,), (2.0,)])) == 2
    assert len(settings_grid(RATE, joined_with=[("language_model",)], layer_idx="all")) == 7


def test_a_base_that_is_no_settings_is_refused():
    with pytest.raises(
        TypeError, match=r"settings_grid.* Settings.* got a mapping; write Settings\(\*\*{}\)"
    ):
        settings_grid({}, layer_idx=[1])


def test_numpy_values_become_plain_ones():
    grid = settings_grid(MODEL, layer_idx=np.arange(2))
    assert Settings.from_json(grid[1].to_json()) == grid[1]


def test_growing_sets_of_stories(assembly):
    found = story_subsets(assembly, [1, 2, 3], n_draws=2, seed=1)
    assert all("storyz" in names for names in found)
    assert sorted({len(names) for names in found}) == [2, 3, 4]
    assert sum(len(names) == 4 for names in found) == 1, "all stories come out alike in both draws"
    assert set(found[0]) < set(found[1]) < set(found[2])
    with pytest.raises(ValueError, match="from 1 to 3, the training stories of S; got 4"):
        story_subsets(assembly, [4])
    with pytest.raises(ValueError, match=r"from 1 to 3, .* got 1.5"):
        story_subsets(assembly, [1.5])
    with pytest.raises(ValueError, match=r"story_subsets: expected counts in a list, got 2; try \[1, 2, 4\]"):
        story_subsets(assembly, 2)
    with pytest.raises(TypeError, match="story_subsets: expected an Assembly, got 'demo'"):
        story_subsets("demo", [1])


# ---------------------------------------------------------------------- shared work


def test_results_equal_single_runs_and_activations_are_computed_once(assembly, memory, extracted):
    grid = settings_grid(MODEL, layer_idx=[3, 0], lookback=[4, 8], alphas=[(1.0, 10.0), (100.0,)])
    results = run_sweep(assembly, grid, memory=memory, progress=False)
    assert len(extracted) == len(set(extracted)) == 2 * len(NAMES), "once per context and story"
    assert all(result.predictions == {} == result.measured for result in results)
    assert results[0].noise_ceiling is results[-1].noise_ceiling
    assert results[0].story_noise_ceiling is results[-1].story_noise_ceiling
    assert {result.provenance["data_digest"] for result in results} == {
        the_assembly.assembly_digest(assembly)
    }
    assert_equal_to_single_runs(results, assembly, grid, memory)
    assert len(extracted) == 2 * len(NAMES)
    run_sweep(assembly, grid[:2], memory=memory, progress=False)
    assert len(extracted) == 2 * len(NAMES), "nothing is extracted that is on disk"


def test_nested_cross_validation_and_growing_stories(assembly, memory):
    grid = settings_grid(RATE, use_train_test_split=[True, False], alphas=[(1.0,), (1.0, 10.0)])
    grid += settings_grid(RATE, stories=story_subsets(assembly, [1, 2]))
    results = run_sweep(assembly, grid, memory=memory, progress=False)
    assert_equal_to_single_runs(results, assembly, grid, memory)


def test_subjects_share_activations_and_are_told_apart(assembly, memory, extracted):
    other = make_assembly("T", seed=5)
    grid = settings_grid(MODEL, layer_idx=[1, 2])
    results = run_sweep({"S": assembly, "T": other}, grid, memory=memory, progress=False)
    assert len(extracted) == len(NAMES)
    assert [result.subject for result in results] == ["S", "S", "T", "T"]
    assert_equal_to_single_runs(results[:2], assembly, grid, memory)
    assert_equal_to_single_runs(results[2:], other, grid, memory)
    with pytest.raises(ValueError, match="one assembly per subject, got S, S"):
        run_sweep({"a": assembly, "b": assembly}, grid)


def test_contexts_that_make_the_same_windows_are_read_once(assembly, memory, extracted):
    run_sweep(assembly, settings_grid(MODEL, lookback=[100, 120]), memory=memory, progress=False)
    assert len(extracted) == len(NAMES)


def test_without_a_cache_activations_last_as_long_as_the_sweep(assembly, extracted):
    grid = settings_grid(MODEL, layer_idx=[1, 2, 3])
    results = run_sweep(assembly, grid, memory=Memory(None), progress=False)
    assert len(extracted) == len(NAMES) and len(results) == 3


def test_equal_settings_are_run_once(assembly, memory, monkeypatch):
    started, run = [], pipeline.run
    monkeypatch.setattr(pipeline, "run", lambda a, s, **k: started.append(s) or run(a, s, **k))
    other = replace(RATE, alphas=(5.0,))
    results = run_sweep(assembly, [RATE, other, RATE], memory=memory, progress=False)
    assert len(started) == 2
    assert [result.settings for result in results] == [RATE, other, RATE]


# ---------------------------------------------------------------------- progress, stop, resume


def test_progress_runs_forward_and_every_run_arrives(assembly, memory):
    grid = settings_grid(MODEL, layer_idx=[0, 1, 2])
    steps = []
    run_sweep(assembly, grid, memory=memory, progress=steps.append)
    overall = [step.overall for step in steps]
    assert overall == sorted(overall) and overall[0] >= 0 and overall[-1] == 1
    stages = [step.stage for step in steps]
    assert [s for s, t in pairwise([*stages, ""]) if s != t] == ["activations", "fits"]
    assert [step.number for step in steps if step.number is not None] == [0, 1, 2]
    assert all((step.result is None) == (step.number is None) for step in steps)


def test_cancelled_between_steps_and_taken_up_again(assembly, memory, tmp_path, monkeypatch):
    grid = settings_grid(RATE, alphas=[(float(a),) for a in range(1, 6)])
    arrived = []

    def two_runs(step):
        arrived.extend([] if step.number is None else [step.number])
        if len(arrived) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_sweep(assembly, grid, memory=memory, results_dir=tmp_path / "runs", progress=two_runs)
    assert len(tables.list_runs(tmp_path / "runs")) == 2
    started, run = [], pipeline.run
    monkeypatch.setattr(pipeline, "run", lambda a, s, **k: started.append(s) or run(a, s, **k))
    results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path / "runs", progress=False)
    assert len(started) == 3
    assert_equal_to_single_runs(results, assembly, grid, memory)
    assert len(tables.list_runs(tmp_path / "runs")) == 5


def test_what_is_recorded_of_other_data_or_broken_is_run_again(assembly, memory, tmp_path):
    folder = tmp_path / "runs"
    first = run_sweep(assembly, [RATE], memory=memory, results_dir=folder, progress=False)
    other = run_sweep(make_assembly(seed=3), [RATE], memory=memory, results_dir=folder, progress=False)
    assert len(tables.list_runs(folder)) == 2
    assert not np.allclose(first[0].scores, other[0].scores)
    (tmp_path / first[0].provenance["record"] / "metrics.json").write_text("{")
    again = run_sweep(assembly, [RATE], memory=memory, results_dir=folder, progress=False)
    assert len(tables.list_runs(folder)) == 3
    np.testing.assert_array_equal(again[0].scores, first[0].scores)


@pytest.mark.parametrize("same", [True, False], ids=["the same bins", "other bins"])
def test_a_run_of_before_is_found_where_its_settings_mean_the_same(assembly, memory, tmp_path, same):
    """Records of before name their grid of alphas, and count words as LITcoder does, where word rate is counted."""
    asked = replace(RATE, alphas=None, word_rate_bins="litcoder" if same else "centred")
    recorded = replace(asked, alphas=asked.alpha_grid, word_rate_bins="litcoder")
    first = run_sweep(assembly, [recorded], memory=memory, results_dir=tmp_path, progress=False)
    again = run_sweep(assembly, [asked], memory=memory, results_dir=tmp_path, progress=False)
    assert len(tables.list_runs(tmp_path)) == (1 if same else 2)
    assert np.array_equal(again[0].scores, first[0].scores, equal_nan=True) == same


SPACES = [
    {"modality": "language_model", "weights": "untrained"},
    {"modality": "language_model", "high_pass": 40.0},
    {"modality": "position"},
    {"modality": "time", "time_sigma": 1.0},
    {"modality": "extras", "extras": ("sound",), "delay_extras": True},
    {"modality": "position", "joined_with": ("time", "extras"), "extras": ("sound",)},
]


def test_controls_are_swept_recorded_and_found_again(assembly, memory, tmp_path, extracted):
    rng = np.random.default_rng(7)
    stories = {
        name: replace(story, extras={"sound": rng.standard_normal((40, 2))})
        for name, story in assembly.stories.items()
    }
    assembly = replace(assembly, stories=stories)
    grid = settings_grid(MODEL, weights=["trained", "untrained"], high_pass=[None, 40.0])
    grid += [replace(MODEL, **change) for change in SPACES[2:]]
    results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path, progress=False)
    assert len(extracted) == 2 * len(NAMES), "once for each kind of weights and story"
    assert_equal_to_single_runs(results, assembly, grid, memory)
    assert len({result.scores.tobytes() for result in results}) == len(grid)
    again = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path, progress=False)
    assert len(tables.list_runs(tmp_path)) == len(grid)
    for result, found in zip(results, again, strict=True):
        assert found.settings == result.settings
        np.testing.assert_array_equal(found.scores, result.scores)
    assert sweep_table(results)["modality"].tolist()[-4:] == ["position", "time", "extras", "position"]
    assert set(tables.list_runs(tmp_path)["weights"]) == {"trained", "untrained"}


@pytest.mark.parametrize(
    ("base", "same", "other"),
    [
        (RATE, {"time_sigma": 5.0, "weights": "untrained", "layer_idx": 2, "n_shifts": 30}, {"seed": 1}),
        (RATE, {"outer_gap": 4.0, "n_outer_folds": 2, "outer_folding_type": "kfold"}, {"high_pass": 40.0}),
        (replace(RATE, modality="time"), {"word_rate_bins": "litcoder"}, {"time_sigma": 5.0}),
        (replace(RATE, significance="parametric"), {"n_permutations": 50, "block_trs": 3}, {"fdr_q": 0.01}),
        (
            replace(RATE, use_train_test_split=False),
            {"n_permutations": 50, "test_stories": ("storya",)},
            {"outer_folding_type": "kfold", "outer_gap": 4.0},
        ),
    ],
)
def test_a_run_is_found_again_where_only_what_has_no_effect_differs(
    assembly, memory, tmp_path, base, same, other
):
    first = run_sweep(assembly, [base], memory=memory, results_dir=tmp_path, progress=False)
    asked = [replace(base, **same), base]
    again = run_sweep(assembly, asked, memory=memory, results_dir=tmp_path, progress=False)
    assert len(tables.list_runs(tmp_path)) == 1
    assert [result.settings for result in again] == asked
    for result in again:
        np.testing.assert_array_equal(result.scores, first[0].scores)
    run_sweep(assembly, [replace(base, **other)], memory=memory, results_dir=tmp_path, progress=False)
    assert len(tables.list_runs(tmp_path)) == 2


def test_nested_runs_without_and_with_a_shift_test(assembly, memory, tmp_path):
    grid = [replace(RATE, use_train_test_split=False), RATE]
    grid += [replace(grid[0], significance="shift", n_shifts=19, least_shift=10.0, fir_delays=(1,))]
    results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path, progress=False)
    assert_equal_to_single_runs(results, assembly, grid, memory)
    assert_equal_to_single_runs(
        run_sweep(assembly, grid, memory=memory, results_dir=tmp_path, progress=False), assembly, grid, memory
    )
    table = sweep_table(results)
    assert table["test"].tolist() == [results[0].test_name, "permutation test", "shift test"]
    assert table["n_significant"].isna().tolist() == [True, False, False]
    listed = tables.list_runs(tmp_path).set_index("path").loc[table["record"]]
    assert listed["test"].tolist() == table["test"].tolist()
    assert listed["n_significant"].isna().tolist() == [True, False, False]
    assert "n_significant" not in sweep_table(results[:1])


def test_nested_runs_recorded_before_are_run_again(assembly, memory, tmp_path, monkeypatch):
    """Their scores were correlations over all rows at once, and they have p-values that find too many voxels."""
    settings = replace(RATE, use_train_test_split=False, outer_folding_type="kfold", outer_gap=0.0)
    (first,) = run_sweep(assembly, [settings], memory=memory, results_dir=tmp_path, progress=False)
    file = Path(first.provenance["record"]) / load.DESCRIPTION
    described = json.loads(file.read_text())
    started, run = [], pipeline.run
    monkeypatch.setattr(pipeline, "run", lambda a, s, **k: started.append(s) or run(a, s, **k))
    for version, n_runs in ((described["SchemaVersion"], 0), (2, 1)):
        file.write_text(json.dumps({**described, "SchemaVersion": version}))
        run_sweep(assembly, [settings], memory=memory, results_dir=tmp_path, progress=False)
        assert len(started) == n_runs


def test_shifts_that_cannot_be_are_refused_before_any_work(assembly, memory, monkeypatch):
    monkeypatch.setattr(the_sweep, "_recorded", lambda *a: pytest.fail("work was begun"))
    shifted = replace(RATE, significance="shift")
    grid = [RATE, *settings_grid(shifted, least_shift=[10.0, 39.0], alphas=[(1.0,), (2.0,)])]
    grid += [replace(shifted, stories=("storya", "storyz"), least_shift=50.0)]
    with pytest.raises(SettingsError, match=r"Run 6 of 6 on S, n_shifts=99: .* is too short for any"):
        run_sweep(assembly, grid, memory=memory, progress=False)


def test_time_courses_are_read_from_the_record(assembly, memory, tmp_path):
    folder = tmp_path / "runs"
    run_sweep(assembly, [RATE], memory=memory, results_dir=folder, progress=False)
    for _ in range(2):  # the record without them does not do; the one that is made now does
        found = run_sweep(
            assembly, [RATE], memory=memory, results_dir=folder, keep_predictions=True, progress=False
        )
        assert len(tables.list_runs(folder)) == 2
    single = the_runs.run(assembly, RATE, memory=memory, progress=False)
    np.testing.assert_allclose(found[0].predictions["storyz"], single.predictions["storyz"], atol=1e-6)
    np.testing.assert_allclose(found[0].measured["storyz"], single.measured["storyz"], atol=1e-6)
    with pytest.raises(ValueError, match="keep_predictions=True needs a results_dir"):
        run_sweep(assembly, [RATE], memory=memory, keep_predictions=True)


def test_a_record_says_where_its_data_are_from(assembly, memory, tmp_path):
    named = replace(assembly, source="somewhere/data.h5")
    result = run_sweep(named, [RATE], memory=memory, results_dir=tmp_path, progress=False)[0]
    described = load.load_description(result.provenance["record"])
    assert described["DataDigest"] == the_assembly.assembly_digest(assembly)
    assert described["Extra"] == {"Source": "somewhere/data.h5", "TimeCourses": False}
    assert list(load.load_run(result.provenance["record"]).rois) == ["left"]


# ---------------------------------------------------------------------- failures and refusals


def test_a_failed_run_is_reported_and_the_others_go_on(assembly, memory):
    assembly.stories["storyb"].bold.bold[3, 2] = np.nan
    grid = settings_grid(RATE, stories=[NAMES, ("storya", "storyc", "storyz")], alphas=[(1.0,), (2.0,)])
    with pytest.warns(UserWarning, match="2 of 4 runs failed .*first, S: ValueError: storyb: 1 NaN"):
        results = run_sweep(assembly, grid, memory=memory, progress=False)
    failed = [isinstance(result, SweepFailure) for result in results]
    assert failed == ["storyb" in settings.stories for settings in grid]
    assert [result.settings for result in results] == grid
    assert all(np.isfinite(result.scores).all() for result in results if not isinstance(result, SweepFailure))


class Unreadable:
    """BOLD on a disk that fails."""

    def __init__(self, bold, error):
        self.shape, self.error = bold.shape, error

    def __getitem__(self, key):
        raise self.error


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("what", ["bold", "repeats"])
@pytest.mark.parametrize("error", [OSError("Input/output error"), KeyError("storyb"), MemoryError("no room")])
def test_data_that_cannot_be_read_fail_the_runs_that_need_them(
    assembly, memory, tmp_path, what, error, recorded
):
    name = "storyb" if what == "bold" else "storyz"
    story = assembly.stories[name]
    broken = replace(story, **{what: Unreadable(getattr(story, what), error)})
    assembly = replace(assembly, stories={**assembly.stories, name: broken})
    grid = settings_grid(
        RATE,
        stories=[NAMES, ("storya", "storyc", "storyz"), ("storya", "storyb", "storyc")],
        test_stories=[("storyz",), ("storyc",)],
    )
    grid = [s for s in grid if set(s.test_stories) < set(s.stories)]
    folder = tmp_path / "runs" if recorded else None
    with pytest.warns(UserWarning, match=rf"\d of {len(grid)} runs failed"):
        results = run_sweep(assembly, grid, memory=memory, results_dir=folder, progress=False)
    for result, settings in zip(results, grid, strict=True):
        needed = settings.stories if what == "bold" else settings.test_stories
        assert isinstance(result, SweepFailure) == (name in needed)
        if name in needed:
            assert result.error == f"{type(error).__name__}: {error}"
    if recorded:
        n_fitted = sum(not isinstance(result, SweepFailure) for result in results)
        assert len(tables.list_runs(folder)) == n_fitted


def test_a_story_that_no_model_reads_fails_its_runs_once(assembly, memory, monkeypatch):
    tried, extract = [], activations.extract

    def fails(model, windows, *args, **options):
        tried.append(windows)
        if len(tried) == 2:
            raise RuntimeError("out of memory")
        return extract(model, windows, *args, **options)

    monkeypatch.setattr(activations, "extract", fails)
    grid = [*settings_grid(MODEL, layer_idx=[1, 2]), RATE]
    with pytest.warns(UserWarning, match="2 of 3 runs failed"):
        results = run_sweep(assembly, grid, memory=memory, progress=False)
    assert len(tried) == len(NAMES), "a failed extraction is not tried again for every run"
    failed = "RuntimeError: out of memory (activations of storyb)"
    assert [getattr(r, "error", "") for r in results] == [failed] * 2 + [""]


@pytest.mark.parametrize(
    ("grid", "options", "says"),
    [
        ([], {}, "at least one Settings, got none"),
        ([MODEL, replace(MODEL, layer_idx=9)], {}, "Run 2 of 2 on S, layer_idx=9: Layer 9 is out of range"),
        (
            [replace(RATE, fdr_q=7.0), RATE, replace(MODEL, layer_idx=9)],
            {},
            r"Run 1 of 3 on S, fdr_q=7.0: .*\nRun 3 of 3 on S, layer_idx=9: Layer 9",
        ),
        (
            [replace(RATE, seed=i, fdr_q=7.0) for i in range(12)],
            {},
            r"\nRun 10 of 12 .*\n2 more runs have prob",
        ),
        ([replace(RATE, stories=("x",))], {}, "Run 1 of 1 on S, stories=.*'x' is not in this assembly"),
        ([RATE], {"n_jobs": 2}, r"2 runs at once need about .* GB are free; choose n_jobs=1"),
    ],
)
def test_refused_before_any_work(assembly, memory, grid, options, says, monkeypatch):
    monkeypatch.setattr(the_sweep, "_recorded", lambda *a: pytest.fail("work was begun"))
    if options:
        monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match=says) as raised:
        run_sweep(assembly, grid, memory=memory, progress=False, **options)
    assert isinstance(raised.value, SettingsError) == ("Run" in says)


@pytest.mark.parametrize("n_jobs", [0, 1.5, "2", True])
def test_a_number_of_jobs_that_cannot_be(assembly, memory, n_jobs):
    with pytest.raises((TypeError, ValueError), match=r"n_jobs == 0|n_jobs: expected a whole number, got"):
        run_sweep(assembly, [RATE], memory=memory, n_jobs=n_jobs, progress=False)


@pytest.mark.parametrize(
    ("given", "grid", "says"),
    [
        ("demo", [RATE], "expected an Assembly, got 'demo'"),
        (
            ["one"],
            [RATE],
            r"an Assembly or a mapping .* got a list; write {one.subject: one for one in assemblies}",
        ),
        ({"S": "demo"}, [RATE], "expected an Assembly, got 'demo'"),
        (None, RATE, r"expected Settings in a list, got a Settings; write \[settings\], or make a grid"),
        (None, {"modality": "wordrate"}, "expected Settings in a list, got a dict"),
        (None, [RATE, {}], "Settings.*, got a mapping"),
    ],
)
def test_what_is_no_assembly_and_no_grid(assembly, given, grid, says):
    with pytest.raises(TypeError, match=f"run_sweep.* {says}"):
        run_sweep(assembly if given is None else given, grid, progress=False)


def test_a_results_folder_that_cannot_be_is_refused_before_any_work(assembly, memory, tmp_path, monkeypatch):
    monkeypatch.setattr(the_sweep, "_recorded", lambda *a: pytest.fail("work was begun"))
    (tmp_path / "file").write_text("")
    with pytest.raises(
        load.RecordError, match=r"results_dir: expected a folder for records, but .*file cannot"
    ):
        run_sweep(assembly, [RATE], memory=memory, results_dir=tmp_path / "file", progress=False)


# ---------------------------------------------------------------------- workers


def test_an_engine_that_gives_results_all_at_once_is_refused_before_any_work(assembly, memory, monkeypatch):
    monkeypatch.setattr(the_sweep, "_recorded", lambda *a: pytest.fail("work was begun"))
    with (
        joblib.parallel_config("multiprocessing", n_jobs=2),
        pytest.raises(ValueError, match=r'MultiprocessingBackend .* choose "loky", "threading" or "dask"'),
    ):
        run_sweep(assembly, [RATE], memory=memory, progress=False)


ALPHAS = settings_grid(RATE, alphas=[(float(a),) for a in range(1, 7)])


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_other_engines_give_equal_results(assembly, memory, tmp_path, backend):
    with joblib.parallel_config(backend, n_jobs=2):
        results = run_sweep(assembly, ALPHAS, memory=memory, results_dir=tmp_path / "runs", progress=False)
    assert_equal_to_single_runs(results, assembly, ALPHAS, memory)
    assert len(tables.list_runs(tmp_path / "runs")) == 6


class CountThreads(CountedRows):
    """BOLD that notes the threads of BLAS in the worker that reads it."""

    def __init__(self, bold, file):
        super().__init__(bold)
        self.file = file

    def __getitem__(self, key):
        with open(self.file, "a") as file:
            file.write(f"{n_threads()}\n")
        return super().__getitem__(key)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_workers_take_no_more_cores_than_there_are(assembly, memory, tmp_path, backend):
    story = assembly.stories["storya"]
    counted = replace(story, bold=CountThreads(story.bold.bold, tmp_path / "threads"))
    assembly = replace(assembly, stories={**assembly.stories, "storya": counted})
    with joblib.parallel_config(backend, n_jobs=2):
        run_sweep(assembly, ALPHAS[:2], memory=memory, progress=False)
    found = [int(line) for line in (tmp_path / "threads").read_text().split()]
    assert found and max(found) <= max(1, joblib.cpu_count() // 2)


class Deadly(CountedRows):
    """BOLD that kills the process which reads it, but for the one that made it."""

    def __init__(self, bold):
        super().__init__(bold)
        self.home = os.getpid()

    def __getitem__(self, key):
        if os.getpid() != self.home and len(range(self.shape[0])[key]) > 1:  # not for the data's digest
            time.sleep(0.5)  # until the other worker has ended its run
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


def test_a_killed_worker_ends_the_sweep_and_the_next_one_goes_on(memory, tmp_path):
    assembly = make_assembly()
    story = assembly.stories["storyb"]
    deadly = replace(story, bold=Deadly(story.bold.bold))
    assembly = replace(assembly, stories={**assembly.stories, "storyb": deadly})
    few = ("storya", "storyc", "storyz")
    grid = [replace(RATE, stories=few), RATE, replace(RATE, alphas=(3.0,))]
    for folder, says in (
        (None, "give a results_dir"),
        (tmp_path / "runs", "call run_sweep again with it"),
    ):
        with pytest.raises(RuntimeError, match=rf"a worker was lost \(TerminatedWorkerError.*{says}"):
            run_sweep(assembly, grid, memory=memory, n_jobs=2, results_dir=folder, progress=False)
    assert len(tables.list_runs(folder)) == 1
    results = run_sweep(assembly, grid, memory=memory, n_jobs=1, results_dir=folder, progress=False)
    assert len(tables.list_runs(folder)) == 3
    assert_equal_to_single_runs(results, assembly, grid, memory)


def test_processes_map_bold_and_do_not_copy_it(memory, tmp_path):
    assembly = make_assembly(n_voxels=20_000)
    stories = {name: replace(story, bold=story.bold.bold) for name, story in assembly.stories.items()}
    assembly = replace(assembly, stories=stories)
    (found,) = joblib.Parallel(n_jobs=2)([joblib.delayed(kinds_of_bold)(the_sweep._Subject(assembly))])
    assert found == ["memmap"] * len(NAMES)


def kinds_of_bold(subject):
    kinds = []
    for story in subject.assembly.stories.values():
        array = story.bold
        while isinstance(array.base, np.ndarray):
            array = array.base
        kinds.append(type(array).__name__)
    return kinds


def test_cancelling_reaches_threads(assembly, memory, monkeypatch):
    ended, run = [], pipeline.run

    def slow(*args, progress, **options):
        def slowed(step):
            time.sleep(0.02)
            progress(step)

        result = run(*args, progress=slowed, **options)
        ended.append(result)
        return result

    def one_run(step):
        if step.number is not None:
            n_ended.append(len(ended))
            raise Cancelled

    n_ended = []
    monkeypatch.setattr(pipeline, "run", slow)
    with joblib.parallel_config("threading", n_jobs=2), pytest.raises(Cancelled):
        run_sweep(assembly, ALPHAS, memory=memory, progress=one_run)
    time.sleep(0.3)
    assert len(n_ended) == 1 and len(ended) <= n_ended[0] + 1 < 6


@contextmanager
def two_workers(folder):
    """A real Dask cluster on this machine as joblib's backend."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    options |= {"dashboard_address": None, "local_directory": str(folder / "dask"), "silence_logs": 50}
    with (
        warnings.catch_warnings(),
        distributed.LocalCluster(**options) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield cluster


def test_a_dask_cluster_gives_equal_results_though_a_worker_is_killed(assembly, memory, tmp_path):
    grid = settings_grid(MODEL, layer_idx=[0, 2], alphas=[(1.0,), (10.0,), (100.0,)])
    with two_workers(tmp_path) as cluster:
        killed = []

        def kill_once(step):
            if step.number is not None and not killed:
                killed.append(cluster.workers[0].pid)
                os.kill(killed[0], signal.SIGKILL)

        results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path / "runs", progress=kill_once)
    assert killed
    assert len(tables.list_runs(tmp_path / "runs")) >= 6
    assert_equal_to_single_runs(results, assembly, grid, memory)


def test_cancelled_while_it_reads_and_taken_up_again(assembly, memory, monkeypatch):
    read, extract = [], activations.extract

    def counted(model, windows, *args, **options):
        found = extract(model, windows, *args, **options)
        read.append(windows.digest)
        return found

    monkeypatch.setattr(activations, "extract", counted)
    grid = settings_grid(MODEL, layer_idx=[0, 2])

    def third_story(step):
        if step.stage == "activations" and step.done > 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        run_sweep(assembly, grid, memory=memory, progress=third_story)
    assert len(read) == 2, "two stories are done and the third was begun"
    run_sweep(assembly, grid, memory=memory, progress=False)
    assert len(read) == len(set(read)) == len(NAMES)


# ---------------------------------------------------------------------- memory


def peak_of(assembly, n_runs, memory, sweep):
    grid = settings_grid(RATE, alphas=[(float(a),) for a in range(1, n_runs + 1)])
    tracemalloc.start()
    try:
        sweep(assembly, grid, memory=memory, progress=False)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_length_of_a_sweep(memory):
    n_voxels = 4000
    assembly = make_assembly(n_voxels=n_voxels)
    peak_of(assembly, 1, memory, run_sweep)  # whatever is made once

    # A list of results grows by their scores: four arrays of 8 bytes and one of 1.
    short, long = (peak_of(assembly, n, memory, run_sweep) for n in (3, 12))
    assert long - short < 9 * 45 * n_voxels + 200_000


# ---------------------------------------------------------------------- the table


@pytest.mark.parametrize("wrong", [3, "x", ["x"], [None]])
def test_a_table_of_something_else_than_results(wrong):
    with pytest.raises(
        TypeError, match=r"sweep_table: expected results of run_sweep in a list, got (3|'x'|None)"
    ):
        sweep_table(wrong)


def test_the_table_holds_what_varies(assembly, memory, tmp_path):
    grid = settings_grid(RATE, stories=story_subsets(assembly, [1, 3]), alphas=[(1.0,), (2.0, 3.0)])
    results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path, progress=False)
    results[1] = SweepFailure(grid[1], "S", "ValueError: no")
    table = sweep_table(results)
    assert list(table.columns[:4]) == ["subject", "stories", "alphas", "n_stories"]
    assert table["n_stories"].tolist()[0] == 1 and table["n_stories"].tolist()[2:] == [3, 3]
    assert table["alphas"].tolist()[:2] == ["(1.0,)", "(2.0, 3.0)"]
    assert table["problem"].tolist() == ["", "ValueError: no", "", ""]
    np.testing.assert_allclose(table["median_score"][0], results[0].metrics["median_score"])
    assert np.isnan(table["median_score"][1])
    assert "problem" not in sweep_table(results[2:]) and "stories" not in sweep_table(results[2:])


def test_a_noise_ceiling_is_of_the_rows_that_a_run_keeps(assembly, memory):
    cut = Trimming(test_features_start=15, test_targets_start=15)
    grid = [RATE, replace(RATE, trimming=cut), replace(RATE, alphas=(5.0,))]
    results = run_sweep(assembly, grid, memory=memory, progress=False)
    assert_equal_to_single_runs(results, assembly, grid, memory)
    assert not np.allclose(results[0].noise_ceiling, results[1].noise_ceiling)
    assert results[0].noise_ceiling is results[2].noise_ceiling
