"""Records: written whole or not at all, equal when loaded again, listed and compared."""

import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas import read_csv

from encoding_nb import Trimming, run
from encoding_nb.assembly import Assembly, LazyArray, Story, Surface, Words, assembly_digest
from encoding_nb.pipeline import Result, to_code
from encoding_nb.plots import results, voxel
from encoding_nb.records import (
    RecordError,
    check_results_dir,
    compare_runs,
    list_runs,
    load,
    load_run,
    save,
    save_run,
)
from encoding_nb.records.load import DESCRIPTION
from encoding_nb.scoring import region_metrics
from encoding_nb.settings import Settings

N = 12


def make_result(seed=0, *, n_voxels=N, nested=False, tested=True, **changed):
    """A result of random numbers, with what is awkward to store: NaN, slashes in names, no ceiling."""
    rng = np.random.default_rng(seed)
    stories = ("a/b", "ü")
    scores = rng.uniform(-0.2, 0.8, n_voxels)
    scores[1] = np.nan
    significant = np.nan_to_num(scores) > 0.2
    ceilings = {} if nested else {stories[1]: rng.uniform(0.3, 0.9, n_voxels)}

    def rows(count):
        return {name: rng.standard_normal((count, n_voxels)).astype(np.float32) for name in stories}

    return Result(
        settings=Settings(modality="wordrate", seed=seed, **changed),
        scores=scores,
        story_scores={name: rng.uniform(-1, 1, n_voxels) for name in stories},
        best_alphas=10.0 ** rng.integers(0, 4, (3, n_voxels) if nested else n_voxels),
        pvalues=rng.uniform(0, 1, n_voxels) if tested else None,
        significant=significant if tested else None,
        noise_ceiling=None if nested else ceilings[stories[1]],
        story_noise_ceiling=ceilings,
        predictions=rows(20),
        measured=rows(20),
        row_times={name: 2.0 * np.arange(20) for name in stories},
        metrics={"median_score": float(np.nanmedian(scores)), "max_score": float(np.nanmax(scores)),
                 **({"n_significant": int(significant.sum()), "median_significant_score": float("nan")}
                    if tested else {}),
                 **region_metrics(scores, significant if tested else None, {"V1": scores > 0.5})},
        provenance={"time": "2026-01-31T12:00:00+00:00", "versions": {"encoding_nb": "0.1.0", "numpy": "2"},
                    "machine": "here", "seconds": {"features": 1.5, "ridge": 2.0}},
        subject="S",
        rois={"V1": scores > 0.5},
        voxel_names=tuple(f"region {i}" for i in range(n_voxels)),
        simulated=True,
        notes=("a/b, voxels: 1 of 12 columns have no variance and become 0.",),
    )  # fmt: skip


def assert_equal_results(found, expected):
    assert found.settings == expected.settings
    for name in ("scores", "best_alphas", "pvalues", "noise_ceiling", "significant", "null_mean", "null_sd"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None)
        if theirs is not None:
            np.testing.assert_allclose(mine, theirs, atol=1e-7, rtol=0)
    assert found.story_chance_ceiling == pytest.approx(expected.story_chance_ceiling)
    by_story = ("story_scores", "story_noise_ceiling", "predictions", "measured", "row_times", "row_folds")
    for name in (*by_story, "rois"):
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert list(mine) == list(theirs)
        for story in theirs:
            assert mine[story].dtype == theirs[story].dtype
            np.testing.assert_allclose(mine[story], theirs[story], atol=1e-7, rtol=0)
    assert dict(found.metrics) == pytest.approx(dict(expected.metrics), nan_ok=True)
    assert found.provenance == expected.provenance
    for name in ("subject", "surface", "voxel_names", "simulated", "notes"):
        assert getattr(found, name) == getattr(expected, name)


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_saved_is_what_is_loaded(tmp_path, nested):
    result = make_result(nested=nested, fir_delays=(1, 2), use_train_test_split=not nested)
    path = save_run(result, tmp_path, figures=False)
    loaded = load_run(path)
    assert_equal_results(loaded, result)
    voxel.plot_voxel(loaded, 3)  # a loaded result serves wherever a fresh one does
    # and saved again, it is the same once more
    again = save_run(loaded, tmp_path / "copy", figures=False)
    assert again.name == path.name
    assert_equal_results(load_run(again), result)


CONTROLS = {
    "weights": "untrained",
    "high_pass": 128.0,
    "joined_with": ("time", "extras", "position"),
    "time_sigma": 1.5,
    "extras": ("motion", "sound power"),
    "delay_extras": True,
    "use_train_test_split": False,
    "outer_folding_type": "kfold",
    "outer_gap": 40.0,
}


@pytest.mark.parametrize("tested", [False, True])
def test_what_nested_runs_hold_is_saved_and_loaded(tmp_path, tested):
    """Row folds always; p-values and the scores of shifted BOLD only after a shift test."""
    changed = {**CONTROLS, "significance": "shift" if tested else "permutation", "n_shifts": 30}
    result = make_result(nested=True, tested=tested, **changed)
    rng = np.random.default_rng(3)
    result = replace(
        result,
        row_folds={story: np.repeat([0, 1], 10) for story in result.row_times},
        story_chance_ceiling={"ü": 0.31},
        null_mean=rng.uniform(-0.1, 0.1, N) if tested else None,
        null_sd=rng.uniform(0, 0.1, N) if tested else None,
    )
    path = save_run(result, tmp_path, table=True)
    loaded = load_run(path)
    assert_equal_results(loaded, result)
    assert loaded.tested == tested and loaded.test_name == result.test_name
    with np.load(path / "arrays.npz") as members:
        assert ("pvalues" in members) == ("null_sd" in members) == tested
    table = read_csv(path / "scores.csv")
    assert set(table["test"]) == {result.test_name}
    assert ("p" in table) == ("significant" in table) == ("null_sd" in table) == tested
    np.testing.assert_allclose(table["r"], result.scores)
    if tested:
        np.testing.assert_allclose(table["p"], result.pvalues)
    listed = list_runs(tmp_path).iloc[0]
    assert listed["status"] == "whole" and listed["test"] == result.test_name
    assert np.isnan(listed["n_significant"]) != tested
    assert listed["weights"] == "untrained"


def test_p_values_that_a_record_lists_must_be_there(tmp_path):
    """Lost ones must not read as a run that was not tested."""
    path = save_run(make_result(), tmp_path, figures=False)
    with np.load(path / "arrays.npz") as members:
        kept = {name: members[name] for name in members if name != "pvalues"}
    np.savez(path / "arrays.npz", **kept)
    rewrite(path, lambda d: d["Files"].update({"arrays.npz": (path / "arrays.npz").stat().st_size}))
    with pytest.raises(RecordError, match=r"damaged .*pvalues"):
        load_run(path)


@settings(max_examples=15, deadline=None)
@given(
    names=st.lists(st.text(), min_size=1, max_size=3, unique=True),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 3)),
)
def test_stories_and_regions_of_any_name(names, shape):
    base = make_result()
    arrays = {name: np.full(shape, number, np.float32) for number, name in enumerate(names)}
    result = replace(base, predictions=arrays, measured=arrays, rois={n: np.zeros(N, bool) for n in names})
    with tempfile.TemporaryDirectory() as folder:
        assert_equal_results(load_run(save_run(result, folder, figures=False)), result)


def test_the_surface_comes_back(tmp_path):
    result = replace(make_result(), surface=Surface("S1", "fullhead", "thick"))
    assert load_run(save_run(result, tmp_path, figures=False)).surface == result.surface


def test_a_record_from_before_ceilings_by_story_and_notes(tmp_path):
    result = make_result()
    path = save_run(replace(result, story_noise_ceiling={}, notes=()), tmp_path, figures=False)
    described = json.loads((path / "dataset_description.json").read_text())
    del described["Arrays"]["story_noise_ceiling"], described["Notes"]
    (path / "dataset_description.json").write_text(json.dumps(described))
    loaded = load_run(path)
    assert loaded.story_noise_ceiling == {} and loaded.notes == ()
    np.testing.assert_array_equal(loaded.noise_ceiling, result.noise_ceiling)
    results.plot_stories(loaded)


def metrics_of(path):
    return json.loads((path / "metrics.json").read_text())


def test_the_metrics_of_a_record_count_the_regions(tmp_path):
    from encoding_nb.brain import SHIPPED, roi_masks, roi_metrics, roi_table, voxel_count

    # data with masks of their own: a run has them in its metrics already
    own = metrics_of(save_run(make_result(), tmp_path / "own", figures=False))
    assert own["V1/n_significant"] == (make_result().significant & make_result().rois["V1"]).sum()
    # data without: the areas drawn for the subject
    n = voxel_count(SHIPPED)
    bare = replace(make_result(n_voxels=n), surface=SHIPPED, rois={}, voxel_names=None, metrics={"a": 1.0})
    assert set(roi_metrics(bare)) == {f"{area}/{name}" for area in roi_masks(SHIPPED) for name in
                                      ("mean_score", "median_score", "n_voxels", "n_significant")}  # fmt: skip
    drawn = metrics_of(save_run(bare, tmp_path / "drawn", figures=False))
    table = roi_table(bare)
    assert drawn["a"] == 1.0 and drawn["AC/mean_score"] == pytest.approx(table.loc["AC", "mean"])
    assert drawn["AC/n_voxels"] == table.loc["AC", "count"]
    # data that lie nowhere
    nowhere = metrics_of(save_run(replace(bare, surface=None), tmp_path / "nowhere", figures=False))
    assert nowhere == {"a": 1.0}


def test_areas_that_cannot_be_had_do_not_lose_the_run(tmp_path):
    lost = replace(make_result(), surface=Surface("nobody", "far", "thin"), rois={}, metrics={"a": 1.0})
    with pytest.warns(UserWarning, match=r"metrics are without regions \(.*subject 'nobody'"):
        path = save_run(lost, tmp_path, figures=False)
    assert metrics_of(path) == {"a": 1.0}


def test_a_record_is_a_folder_of_plain_files(tmp_path):
    path = save_run(make_result(), tmp_path, svg=True, table=True, run_name="first")
    assert re.fullmatch(r"2026-01-31T120000Z_[0-9a-f]{8}", path.name)
    assert {file.name for file in path.iterdir()} == {
        "settings.json", "metrics.json", "arrays.npz", "scores.csv", "dataset_description.json",
        "stories.png", "stories.svg", "alphas.png", "alphas.svg",
    }  # fmt: skip
    assert Settings.from_json((path / "settings.json").read_text()).modality == "wordrate"
    # strict JSON: the number that does not exist is null, not NaN
    strict = json.loads((path / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert strict["median_significant_score"] is None and isinstance(strict["n_significant"], int)
    with np.load(path / "arrays.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
    assert (path / "stories.png").read_bytes()[:4] == b"\x89PNG"
    assert "<svg" in (path / "alphas.svg").read_text()
    header, *rows = (path / "scores.csv").read_text().splitlines()
    assert header.split(",")[:5] == ["voxel", "name", "r", "p", "significant"] and len(rows) == N
    described = load.load_description(path)
    assert described["DatasetType"] == "derivative" and described["Seed"] == 0
    assert {"Name": "encoding_nb", "Version": "0.1.0"} in described["GeneratedBy"]
    assert described["SecondsByStage"] == {"features": 1.5, "ridge": 2.0}
    assert described["RunName"] == "first" and described["Machine"]["Platform"] == "here"


def test_the_same_run_is_saved_once_and_another_beside_it(tmp_path):
    result = make_result()
    first = save_run(result, tmp_path, figures=False)
    assert save_run(result, tmp_path, figures=False) == first
    other = save_run(make_result(1), tmp_path, figures=False)
    # a record that lost a file is not taken for the run, and is not written over
    (first / "metrics.json").unlink()
    third = save_run(result, tmp_path, figures=False)
    assert len({first, other, third}) == 3 and third.name == f"{first.name}_2"
    assert list(list_runs(tmp_path)["status"].str.startswith("whole")).count(True) == 2


def test_a_picture_that_fails_does_not_lose_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr("encoding_nb.plots.plot_alphas", lambda result: 1 / 0)
    with pytest.warns(UserWarning, match=r"alphas.png was not drawn \(division by zero\)"):
        path = save_run(make_result(), tmp_path)
    assert not (path / "alphas.png").exists() and (path / "stories.png").exists()
    assert list(list_runs(tmp_path)["status"]) == ["whole"]


def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(
        save, "_write_arrays", lambda file, arrays: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(OSError, match="disk full"):
        save_run(make_result(), tmp_path, figures=False)
    assert list(tmp_path.iterdir()) == []


def test_an_extra_that_json_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"extra: expected numbers.*set"):
        save_run(make_result(), tmp_path / "new", extra={"a": {1, 2}})
    assert not (tmp_path / "new").exists()


def test_arrays_of_objects_are_refused_instead_of_pickled(tmp_path):
    result = replace(make_result(), rois={"odd": np.array([{}] * N, dtype=object)})
    with pytest.raises(ValueError, match="expected arrays of numbers, got objects in rois_0"):
        save_run(result, tmp_path, figures=False)


def test_big_arrays_are_read_when_asked_for(tmp_path):
    path = save_run(make_result(), tmp_path, figures=False)
    loaded = load_run(path)
    assert "read from arrays.npz" in repr(loaded.predictions)
    (path / "arrays.npz").unlink()
    assert loaded.scores.shape == (N,) and len(loaded.predictions) == 2
    with pytest.raises(
        RecordError, match=r"the array of story 'ü' cannot be read .*arrays.npz is damaged or gone"
    ):
        loaded.predictions["ü"]


# --- lists ------------------------------------------------------------------------------------------------


def test_the_list_names_whole_and_broken_records_and_nothing_else(tmp_path):
    good = [save_run(make_result(seed), tmp_path, figures=False, run_name=f"r{seed}") for seed in range(5)]
    (good[0] / "arrays.npz").write_bytes(b"short")
    (good[1] / "settings.json").write_text('{"laier_idx": 3}')
    (good[2] / "dataset_description.json").write_text("{")
    described = json.loads((good[3] / "dataset_description.json").read_text())
    (good[3] / "dataset_description.json").write_text(json.dumps(described | {"SchemaVersion": 99}))
    (tmp_path / f".{good[0].name}.part").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "2026-01-31T120000Z_00000000").mkdir()
    (tmp_path / "2026-99-31T120000Z_00000000").mkdir()
    (tmp_path / "notes.txt").write_text("")
    table = list_runs(tmp_path).set_index("run")
    assert len(table) == 8
    draft = f".{good[0].name}.part"
    assert table.loc[draft, "status"].startswith("unfinished: being written now, or left by a run that was")
    assert table.loc[draft, "time"].isoformat() == "2026-01-31T12:00:00+00:00"
    assert table.loc[good[4].name, "status"] == "whole" and table.loc[good[4].name, "name"] == "r4"
    assert table.loc[good[4].name, "time"].isoformat() == "2026-01-31T12:00:00+00:00"
    why = {name: table.loc[path.name, "status"] for name, path in zip("abcd", good, strict=False)}
    assert "arrays.npz has 5 bytes" in why["a"] and "laier_idx" in why["b"]
    assert "cannot be read" in why["c"] and "record version 99" in why["d"] and "update" in why["d"]
    assert "holds no dataset_description.json" in table.loc["2026-01-31T120000Z_00000000", "status"]
    assert table["status"].str.startswith("broken: ").sum() == 6
    for path in good[:4]:
        with pytest.raises(RecordError, match=re.escape(str(path))):
            load_run(path)


def rewrite(path, change):
    """Change a record's description."""
    file = path / DESCRIPTION
    described = json.loads(file.read_text())
    change(described)
    file.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.pop("Files"), "holds no Files as a dict"),
        (lambda d: d["Files"].pop("arrays.npz"), "does not list arrays.npz"),
        (lambda d: d.update(Arrays=["scores"]), "holds no Arrays as a dict"),
        (lambda d: d["Arrays"].update(predictions=None), "does not list predictions"),
        (lambda d: d["Arrays"].pop("surface"), "does not list surface"),
        (
            lambda d: d["Arrays"]["predictions"].update({"ü": "predictions_0"}),
            "lists one array for two stories",
        ),
        (lambda d: d.pop("Provenance"), "holds no Provenance as a dict"),
        (lambda d: d.update(Provenance="none"), "holds no Provenance as a dict"),
        (lambda d: d.update(Subject=3), "holds no Subject as a str"),
        (lambda d: d["Arrays"]["row_times"].update(x="nowhere"), "damaged .*nowhere"),
        (lambda d: d["Arrays"].update(surface={"colour": 1}), "damaged .*colour"),
    ],
)
def test_descriptions_that_lack_something(tmp_path, change, says):
    path = save_run(make_result(), tmp_path, figures=False)
    rewrite(path, change)
    (status,) = list_runs(tmp_path)["status"]
    if "nowhere" not in says and "colour" not in says:  # these only reading the arrays can tell
        (path / "arrays.npz").unlink()
        assert status.startswith("broken: ") and re.search(says, status)
    with pytest.raises(RecordError, match=rf"{re.escape(str(path))}: .*{says}"):
        load_run(path)


def test_one_bit_anywhere_is_found(tmp_path):
    """A flipped bit leaves every size as it was; in arrays it is found when they are read, or by every_byte.

    The description, which lists the digests, has none of its own.
    """
    path = save_run(make_result(), tmp_path, figures=False, table=True)
    rng = np.random.default_rng(0)
    expected = load_run(path)
    for file in sorted(path.iterdir()):
        content = file.read_bytes()
        for at in rng.choice(len(content), 40, replace=False):
            flipped = bytearray(content)
            flipped[at] ^= 1 << int(rng.integers(8))
            file.write_bytes(flipped)
            (status,) = list_runs(tmp_path, every_byte=True)["status"]
            assert status.startswith("broken: ") or file.name == DESCRIPTION
            if file.suffix == ".json" and file.name != DESCRIPTION:
                assert list_runs(tmp_path)["status"][0].startswith("broken: ")
            try:
                loaded = load_run(path)
                for story in loaded.predictions:
                    np.testing.assert_array_equal(loaded.predictions[story], expected.predictions[story])
            except RecordError as error:
                assert str(path) in str(error)
        file.write_bytes(content)
    assert list_runs(tmp_path, every_byte=True)["status"][0] == "whole"


@pytest.mark.parametrize(
    "change",
    [lambda d: d.pop("Digests"), lambda d: d.update(DescriptionDigest="a digest that is no longer written")],
)
def test_records_of_older_versions_are_read(tmp_path, change):
    path = save_run(make_result(), tmp_path, figures=False)
    rewrite(path, change)
    assert list_runs(tmp_path, every_byte=True)["status"][0] == "whole"
    assert_equal_results(load_run(path), make_result())


def as_of_before(path, version):
    """Make a record one of before: it did not list its arrays by voxel, and its settings did not name what is new."""

    def change(described):
        described["SchemaVersion"] = version
        for lost in (described["Digests"], described["Files"]):
            lost.pop("settings.json")
        for name in ("voxels", "row_folds", "story_chance_ceiling"):
            described["Arrays"].pop(name)
        del described["Test"]

    rewrite(path, change)
    text = json.loads((path / "settings.json").read_text())
    lost = ("weights", "time_sigma", "extras", "delay_extras", "high_pass", "outer_folding_type", "outer_gap")
    for name in (*lost, "n_shifts", "least_shift", *(["word_rate_bins"] if version == 1 else [])):
        del text[name]
    (path / "settings.json").write_text(json.dumps(text))
    rewrite(path, lambda d: d["Files"].update({"settings.json": (path / "settings.json").stat().st_size}))


@pytest.mark.parametrize(
    ("changed", "meanings"),
    [
        (
            {},
            [
                "word rate counted words from each TR's time",
                "noise ceilings are of repeats that were not z-scored",
            ],
        ),
        ({"modality": "language_model"}, ["noise ceilings"]),
        (
            {"modality": "language_model", "downsample_method": "sinc"},
            ["'sinc' divided by", "noise ceilings"],
        ),
        ({"modality": "embeddings", "joined_with": ("wordrate",)}, ["word rate counted", "noise ceilings"]),
    ],
)
def test_a_record_whose_numbers_meant_something_else_says_so(tmp_path, changed, meanings):
    result = replace(make_result(), settings=replace(make_result().settings, **changed))
    path = save_run(result, tmp_path, figures=False)
    assert load_run(path).notes == result.notes
    as_of_before(path, 1)
    with pytest.warns(UserWarning, match="made with earlier meanings by encoding_nb 0.1.0: ") as caught:
        loaded = load_run(path)
    (said,) = [str(warning.message) for warning in caught]
    found = said.split("0.1.0: ")[1].split("; ")
    assert [part.startswith(start) for part, start in zip(found, meanings, strict=True)] == [True] * len(
        meanings
    )
    assert loaded.notes[:-1] == result.notes and loaded.notes[-1] in said
    # the settings are those with which the run is repeated as it was
    assert loaded.settings == replace(result.settings, word_rate_bins="litcoder")
    np.testing.assert_array_equal(loaded.scores, result.scores)


@pytest.mark.parametrize(
    ("version", "significance", "share"),
    [(1, "permutation", "11 to 29"), (2, "permutation", "11 to 29"), (2, "parametric", "10 to 57")],
)
def test_a_nested_record_of_before_says_that_its_scores_and_p_values_mean_something_else(
    tmp_path, version, significance, share
):
    changed = {"use_train_test_split": False, "folding_type": "kfold_trimmed", "modality": "language_model"}
    changed["significance"] = significance
    base = make_result(nested=True)
    result = replace(base, settings=replace(base.settings, **changed, n_outer_folds=3))
    path = save_run(result, tmp_path, figures=False)
    assert load_run(path).notes == result.notes
    as_of_before(path, version)
    with pytest.warns(UserWarning, match="over all held-out rows at once") as caught:
        loaded = load_run(path)
    (said,) = [str(warning.message) for warning in caught]
    assert re.search(rf"p-values find too many voxels \({share} % .*significance='shift'", said)
    assert loaded.notes[:-1] == result.notes and loaded.notes[-1] in said
    # what was saved is kept, and the settings name the folds that it was made with
    np.testing.assert_array_equal(loaded.pvalues, result.pvalues)
    np.testing.assert_array_equal(loaded.significant, result.significant)
    assert loaded.row_folds == {} and loaded.null_mean is None
    assert loaded.settings.outer_folds_of(2) == ("kfold_trimmed", 3, 0.0)
    assert "outer_folding_type='kfold_trimmed'" in to_code(loaded.settings, "demo")
    assert "finds too many voxels" in list_runs(tmp_path)["test"][0]


def test_a_record_of_before_with_test_stories_has_no_outer_folds(tmp_path):
    result = replace(make_result(), settings=Settings(modality="embeddings", word_rate_bins="litcoder"))
    path = save_run(result, tmp_path, figures=False)
    as_of_before(path, 2)
    assert load_run(path).settings == result.settings
    assert list_runs(tmp_path)["test"][0] == "permutation test"


def test_a_record_of_before_with_nothing_that_changed_is_silent(tmp_path):
    result = replace(make_result(nested=True), settings=Settings())
    path = save_run(result, tmp_path, figures=False)
    as_of_before(path, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_run(path).notes == result.notes


def test_no_folder_and_no_record(tmp_path):
    empty = list_runs(tmp_path / "nowhere")
    assert len(empty) == 0 and "median_score" in empty.columns
    with pytest.raises(RecordError, match="no such folder"):
        load_run(tmp_path / "nowhere")


def test_arrays_that_are_not_what_the_description_says(tmp_path):
    path = save_run(make_result(), tmp_path, figures=False)
    broken = bytearray((path / "arrays.npz").read_bytes())
    broken[200:260] = b"x" * 60
    (path / "arrays.npz").write_bytes(broken)
    with pytest.raises(RecordError, match="damaged"):
        load_run(path)


def test_comparison_shows_what_differs(tmp_path):
    first, second = make_result(0, fir_delays=(1, 2)), make_result(1, fir_delays=(1, 2, 3))
    paths = [save_run(result, tmp_path, figures=False) for result in (first, second)]
    table = compare_runs(paths)
    assert list(table.index) == [path.name for path in paths]
    assert set(table["settings"].columns) == {"fir_delays", "seed"}
    expected = second.metrics["median_score"] - first.metrics["median_score"]
    assert table["difference", "median_score"].iloc[1] == pytest.approx(expected)
    both = np.isfinite(first.scores) & np.isfinite(second.scores)
    expected = np.corrcoef(first.scores[both], second.scores[both])[0, 1]
    assert table["maps", "r_with_first"].tolist() == pytest.approx([1, expected])
    in_memory = compare_runs([first, paths[1]])
    assert in_memory["metrics"].to_numpy() == pytest.approx(table["metrics"].to_numpy(), nan_ok=True)
    named = [
        save_run(result, tmp_path, figures=False, run_name=n) for n, result in (("a", first), ("b", second))
    ]
    assert list(compare_runs(named).index) == ["a", "b"]
    assert not any("/" in name for name in table["metrics"].columns)
    assert "V1/median_score" in compare_runs(paths, regions=True)["difference"].columns
    nested = compare_runs([first, replace(first, settings=replace(first.settings, trimming={}))])
    assert "trimming.train_features_start" in nested["settings"].columns
    assert np.isnan(compare_runs([first, make_result(2, n_voxels=7)])["maps", "r_with_first"].iloc[1])
    with pytest.raises(ValueError, match="two or more"):
        compare_runs([first])


def test_runs_with_and_without_a_test_are_compared():
    tested, nested = make_result(), make_result(1, tested=False, use_train_test_split=False)
    for runs in ([tested, nested], [nested, tested]):
        table = compare_runs(runs)
        assert table["test", "name"].tolist() == [run.test_name for run in runs]
        empty = [run is nested for run in runs]
        assert table["metrics", "n_significant"].isna().tolist() == empty
        assert table["difference", "n_significant"].isna().all() == (runs[0] is nested)
        assert table["metrics", "max_score"].notna().all()


def test_the_runs_of_a_table_are_compared(tmp_path):
    for seed, layer in enumerate((2, 3)):
        save_run(make_result(seed, layer_idx=layer), tmp_path, figures=False)
    table = list_runs(tmp_path)
    expected = compare_runs(list(table["path"]))
    assert compare_runs(table).equals(expected) and expected["settings", "layer_idx"].tolist() == [2, 3]
    with pytest.raises(ValueError, match="two or more"):
        compare_runs(table[:1])
    with pytest.raises(ValueError, match="in a list, got a DataFrame"):
        compare_runs(table[["run", "name"]])


# --- runs that leave a record -----------------------------------------------------------------------------


def fitted_assembly():
    rng = np.random.default_rng(4)
    times = np.sort(rng.uniform(0, 80, 90))
    stories = {
        name: Story(name, Words(["w"] * 90, times, times), 2.0 * np.arange(40), rng.standard_normal((40, 3)))
        for name in "ab"
    }
    return Assembly("S", 2.0, stories, test_stories=("b",))


WORD_RATE = Settings(
    modality="wordrate", trimming=Trimming(), significance="parametric", folding_type="kfold", chunk_length=4
)


def test_the_record_of_a_run_holds_the_run_and_the_digest_of_its_data(tmp_path):
    assembly = fitted_assembly()
    result = run(assembly, WORD_RATE, progress=False)
    saved = save_run(result, tmp_path / "new", assembly=assembly)
    (path,) = list_runs(tmp_path / "new")["path"]
    assert path == str(saved)
    assert_equal_results(load_run(path), result)
    assert load.load_description(path)["DataDigest"] == assembly_digest(assembly)
    assert result.provenance["data_digest"] == assembly_digest(assembly)
    # and a record that is made without the assembly has the digest as well
    later = save_run(result, tmp_path / "later", figures=False)
    assert load.load_description(later)["DataDigest"] == assembly_digest(assembly)


def test_a_results_folder_that_cannot_be_is_refused_before_anything_is_written(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong, says in [
        (tmp_path / "file", "expected a folder for records, but .*file cannot be written .Not a directory"),
        (tmp_path / "file" / "results", "file cannot be written"),
        (3, "expected the path of a folder, got 3"),
        ("a\0b", "expected the path of a folder"),
        ("x" * 300, "expected the path of a folder, got 'xxx.*File name too long"),
        *([("/proc/x", "/proc cannot be written")] if Path("/proc/self").exists() else []),
    ]:
        with pytest.raises(RecordError, match=f"results_dir: .*{says}"):
            check_results_dir(wrong)
        with pytest.raises(RecordError, match=f"results_dir: .*{says}"):
            save_run(make_result(), wrong)
    assert check_results_dir(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_home_folder_is_written_out(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = save_run(make_result(), "~/results", figures=False)
    assert path.parent == tmp_path / "results" == check_results_dir("~/results")
    assert list_runs("~/results")["path"].tolist() == [str(path)]
    assert load_run(f"~/results/{path.name}").subject == "S"


@pytest.mark.parametrize(
    ("call", "kind", "says"),
    [
        (lambda: save_run(make_assembly()), TypeError, "save_run: expected a Result, got an Assembly; run"),
        (
            lambda: save_run(make_result(), assembly="demo"),
            TypeError,
            "save_run: expected an Assembly, got 'd",
        ),
        (
            lambda: load_run(make_result()),
            RecordError,
            "load_run: expected the path of a folder, got a Result",
        ),
        (lambda: load_run(None), RecordError, "load_run: expected the path of a folder, got None"),
        (lambda: load_run("x" * 300), RecordError, "load_run: expected .* got 'xxx.*too long"),
        (lambda: list_runs(None), RecordError, "list_runs: expected the path of a folder, got None"),
        (
            lambda: list_runs("~nobody-of-this-name/x"),
            RecordError,
            "list_runs: expected the path of a folder",
        ),
        (lambda: compare_runs(make_result()), ValueError, "two or more .* in a list, got a Result"),
        (lambda: compare_runs("folder"), ValueError, "in a list, got 'folder'"),
        (lambda: compare_runs([make_result(), 3]), ValueError, "in a list, got a Result, 3"),
        (lambda: compare_runs([]), ValueError, "in a list, got none"),
    ],
)
def test_what_is_no_run_and_no_folder_is_said(call, kind, says):
    with pytest.raises(kind, match=says):
        call()


def test_data_that_cannot_be_read_whole_leave_a_run_without_a_digest():
    def fail(key):
        raise OSError("disk is gone")

    assembly = fitted_assembly()
    assembly = replace(
        assembly,
        stories={
            **assembly.stories,
            "c": replace(assembly.stories["a"], name="c", bold=LazyArray((40, 3), float, fail)),
        },
    )
    with pytest.warns(UserWarning, match=r"no digest of its data: .*\(disk is gone\)"):
        result = run(assembly, replace(WORD_RATE, stories=("a",)), progress=False)
    assert result.provenance["data_digest"] is None and "disk is gone" in result.notes[0]


# --- data -------------------------------------------------------------------------------------------------


def make_assembly(*, bold=None, word="b"):
    words = Words(("a", word), [0.0, 1.0], [0.5, 1.5])
    bold = np.arange(60, dtype=np.float32).reshape(20, 3) if bold is None else bold
    return Assembly("S", 2.0, {"s": Story("s", words, 2.0 * np.arange(20), bold)})


def test_the_digest_follows_the_data(tmp_path):
    same = assembly_digest(make_assembly())
    assert re.fullmatch("[0-9a-f]{64}", same) and assembly_digest(make_assembly()) == same
    assert assembly_digest(make_assembly(word="c")) != same
    bold = np.arange(60, dtype=np.float32).reshape(20, 3)
    bold[10, 1] += 1e-3
    assert assembly_digest(make_assembly(bold=bold)) != same
    result = make_result(n_voxels=3)
    paths = [save_run(result, tmp_path, assembly=make_assembly(word=w), figures=False) for w in "bc"]
    assert load.load_description(paths[0])["DataDigest"] == same
    table = compare_runs(paths)
    assert table["data", "digest"].iloc[0] == same[:12] != table["data", "digest"].iloc[1]


def test_data_of_another_run_are_not_written_as_its_own(tmp_path):
    result = make_result(n_voxels=3)
    own = {**result.provenance, "data_digest": assembly_digest(make_assembly())}
    for wrong, says in [
        (replace(make_assembly(), subject="T"), "of S with 3 voxels, got T with 3 voxels"),
        (make_assembly(bold=np.zeros((20, 5))), "of S with 3 voxels, got S with 5 voxels"),
        (make_assembly(word="c"), r"got others \(their digests differ\); give the assembly that was fitted"),
    ]:
        with pytest.raises(ValueError, match=f"save_run: expected as assembly .*{says}"):
            save_run(replace(result, provenance=own), tmp_path / "new", assembly=wrong)
    assert not (tmp_path / "new").exists()
    save_run(replace(result, provenance=own), tmp_path, assembly=make_assembly(), figures=False)


def test_the_digest_reads_three_rows_of_a_story():
    read = []

    class Lazy(SimpleNamespace):
        shape = (20, 3)

        def __getitem__(self, key):
            read.append(key)
            return np.zeros((1, 3))

    assembly_digest(make_assembly(bold=Lazy()))
    assert read == [slice(0, 1), slice(10, 11), slice(19, 20)]


# --- killed -----------------------------------------------------------------------------------------------

# One process imports, then forks a child per attempt; the child kills itself at the n-th time that it asks
# the system for something, or is killed by its parent after a random time.
KILLED = """
import io, os, random, signal, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from encoding_nb.records import save
from tests.records.test_records import make_result

folder, results = Path(sys.argv[1]), [make_result(seed, n_voxels=3000) for seed in range(100)]

def child(number, deadly):
    calls = 0
    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)
        return call
    for name in ("rename", "mkdir", "rmdir", "unlink", "stat"):
        setattr(os, name, counted(getattr(os, name)))
    io.open = counted(io.open)
    save.save_run(results[number], folder, figures=False)
    os._exit(0)

def attempt(number, deadly=-1, seconds=None):
    pid = os.fork()
    if pid == 0:
        child(number, deadly)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1] == 0

started = time.monotonic()
assert attempt(0)
usual = time.monotonic() - started
number, done = 1, 1
while not attempt(number, deadly=number):
    number += 1
done += 1
deaths = number - 1
random.seed(0)
for _ in range(40):
    number += 1
    done += attempt(number, seconds=random.uniform(0, 1.5 * usual))
print(deaths, done, number + 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the test forks")
def test_a_run_killed_at_any_moment_leaves_no_half_record(tmp_path):
    code = KILLED.format(root=str(Path(__file__).parents[2]))
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    deaths, done, tried = map(int, ran.stdout.split())
    assert deaths > 10 and done < tried
    table = list_runs(tmp_path)
    unfinished = table["status"].str.startswith("unfinished: ")
    assert unfinished.any() and set(table["status"][~unfinished]) == {"whole"}
    table = table[~unfinished]
    # a child can be killed after its rename and before it reports, so there may be more records than reports
    assert done <= len(table) <= tried
    for path in table["path"]:
        loaded = load_run(path)
        assert_equal_results(loaded, make_result(loaded.settings.seed, n_voxels=3000))


def test_other_scores_of_the_same_settings_and_second_are_another_record(tmp_path):
    result = make_result()
    other = replace(result, scores=result.scores[::-1].copy())
    first, second = (save_run(each, tmp_path, figures=False) for each in (result, other))
    assert first != second
    np.testing.assert_array_equal(load_run(second).scores, other.scores)


@pytest.mark.parametrize(
    "change",
    [
        {"words": Words(("a", "b"), [0.0, 1.1], [0.5, 1.5])},
        {"words": Words(("a", "b"), [0.0, 1.0], [0.5, 1.6])},
        {"tr_times": 2.0 * np.arange(20) - 1},
        {"contexts": {"fullcontext": ("a", "a b")}},
        {"repeats": np.zeros((2, 20, 3), np.float32)},
    ],
)
def test_the_digest_follows_all_that_it_says_it_covers(change):
    data = make_assembly()
    changed = replace(data, stories={"s": replace(data.stories["s"], **change)})
    assert assembly_digest(changed) != assembly_digest(data)
