"""The order of the stages, settings, refusals: on a small assembly whose truth is known."""

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
from joblib import Memory

from encoding_nb import _machine, features, ridge, scoring
from encoding_nb._progress import Cancelled
from encoding_nb.assembly import Assembly, Story, Words
from encoding_nb.design import Trimming, matrix
from encoding_nb.features import JoinedFeatures, word_rate
from encoding_nb.pipeline import (
    STAGES,
    check,
    clock,
    design_matrices,
    matrices,
    plan_run,
    prepare,
    run,
    runs,
    to_code,
)
from encoding_nb.pipeline.clock import Clock
from encoding_nb.ridge import cv
from encoding_nb.scoring import correlations, permutation
from encoding_nb.settings import Settings, SettingsError

NO_CACHE = Memory(None)
RATE = Settings(modality="wordrate", alphas=(1.0, 10.0, 100.0), chunk_length=5)
TRIM = Trimming(train_features_start=10, train_features_end=-5, test_features_start=15, test_features_end=-5,
                test_targets_start=5)  # fmt: skip


def make_story(name, seed, *, repeats=0, n_trs=75):
    """Voxel 0 follows word rate two TRs later, voxel 1 is noise, voxel 2 is constant."""
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.uniform(0, 2 * n_trs - 30, 300))
    words = Words([f"w{i % 7}" for i in range(300)], onsets, onsets + 0.1)
    tr_times = 2.0 * np.arange(n_trs) - 10
    rate = word_rate(words, tr_times).ravel()
    evoked = np.concatenate([[0, 0], rate])[:n_trs][10:-5]
    bold = np.stack([evoked, rng.standard_normal(n_trs - 15), np.full(n_trs - 15, 3.7)], axis=1).astype(
        np.float32
    )
    heard = (
        np.stack([bold + 0.3 * rng.standard_normal(bold.shape) for _ in range(repeats)]) if repeats else None
    )
    return Story(name, words, tr_times, bold, heard)


@pytest.fixture(scope="module")
def assembly():
    stories = {name: make_story(name, seed) for seed, name in enumerate(("storya", "storyb", "storyc"))}
    stories["storyz"] = make_story("storyz", 9, repeats=4)
    return Assembly("S", 2.0, stories, test_stories=("storyz",))


@pytest.fixture(scope="module")
def result(assembly):
    with pytest.warns(UserWarning, match="1 of 3 columns have no variance"):
        return runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)


def test_finds_what_is_there_and_nothing_else(result):
    assert result.scores[0] > 0.95
    assert abs(result.scores[1]) < 0.5
    assert np.isnan(result.scores[2])
    assert result.significant.tolist() == [True, False, False]


def test_equals_the_stages_done_by_hand(assembly, result):
    def rows(name, test):
        story = assembly.stories[name]
        X = matrix.add_delays(word_rate(story.words, story.tr_times), (1, 2, 3, 4))
        return (
            matrix.standardize(TRIM.features(X, test=test)),
            matrix.standardize(TRIM.targets(story.bold, test=test), quiet=True),
        )

    train = [rows(name, False) for name in ("storya", "storyb", "storyc")]
    X, Y = (np.concatenate(part) for part in zip(*train, strict=True))
    X_test, Y_test = rows("storyz", True)
    folds = ridge.make_folds(
        len(X), folding_type="chunked", n_folds=5, chunk_length=5, groups=np.repeat([0, 1, 2], 60), seed=0
    )
    fitted = cv.ridge_cv(X, Y, X_test=X_test, Y_test=Y_test, alphas=RATE.alphas, folds=folds)
    np.testing.assert_allclose(result.scores, fitted.correlations, atol=1e-6)
    np.testing.assert_array_equal(result.best_alphas, fitted.best_alphas)
    np.testing.assert_allclose(result.scores[:2], [np.corrcoef(result.predictions["storyz"][:, v], Y_test[:, v])[0, 1]
                                                   for v in (0, 1)], atol=1e-6)  # fmt: skip


def test_result_shapes(assembly, result):
    n_rows = 75 - 15 - 5
    assert result.predictions["storyz"].shape == result.measured["storyz"].shape == (n_rows, 3)
    assert result.row_times["storyz"].shape == (n_rows,)
    assert result.row_times["storyz"][0] == 2.0 * 15 - 10
    assert result.noise_ceiling.shape == (3,) and result.noise_ceiling[0] > 0.8
    assert set(result.provenance["seconds"]) == set(STAGES)
    assert result.metrics["n_significant"] == 1
    assert "median r" in repr(result)


def test_noise_ceiling_uses_the_test_rows(assembly, result):
    repeats = assembly.stories["storyz"].repeats[:, 5:]
    np.testing.assert_allclose(result.noise_ceiling, correlations.noise_ceiling(repeats))
    assert list(result.story_noise_ceiling) == ["storyz"]
    np.testing.assert_array_equal(result.story_noise_ceiling["storyz"], result.noise_ceiling)


def test_the_chance_ceiling_is_that_of_the_repeats_and_rows(assembly, result):
    n_repeats, n_rows = assembly.stories["storyz"].repeats[:, 5:].shape[:2]
    measured = result.measured["storyz"]
    expected = correlations.ceiling_by_chance(
        n_repeats, n_rows, autocorrelation=correlations.autocorrelation(measured)
    )
    assert dict(result.story_chance_ceiling) == {"storyz": expected}
    assert result.chance_ceiling == max(0.25, expected)
    two = replace(result, story_chance_ceiling={"storyz": 0.3, "storyy": 0.5})
    assert two.chance_ceiling == pytest.approx(0.4)
    assert replace(result, story_chance_ceiling={}).chance_ceiling == 0.25
    assert replace(result, noise_ceiling=None).chance_ceiling is None


def test_each_story_heard_again_has_a_ceiling_of_its_own(assembly):
    stories = {**assembly.stories, "storyy": make_story("storyy", 11, repeats=3)}
    held_out = ("storya", "storyy", "storyz")
    more = replace(assembly, stories=stories, test_stories=held_out)
    with pytest.warns(UserWarning, match="no variance"):
        result = runs.run(more, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)
    own = {name: correlations.noise_ceiling(stories[name].repeats[:, 5:]) for name in held_out[1:]}
    assert set(result.story_noise_ceiling) == set(own)
    for name, ceiling in own.items():
        np.testing.assert_allclose(result.story_noise_ceiling[name], ceiling)
    np.testing.assert_allclose(result.noise_ceiling, np.mean(list(own.values()), axis=0))


def test_the_metrics_count_the_regions_of_the_data(assembly, result):
    rois = {"first": np.array([True, False, False]), "rest": np.array([False, True, True])}
    with pytest.warns(UserWarning, match="no variance"):
        found = runs.run(
            replace(assembly, rois=rois), replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False
        )
    by_region = {name: value for name, value in found.metrics.items() if name not in result.metrics}
    assert by_region == correlations.region_metrics(result.scores, result.significant, rois)
    assert by_region["first/mean_score"] == result.scores[0] and by_region["rest/n_voxels"] == 2


def test_what_was_said_on_the_way_stays_with_the_result(assembly, result):
    """Also in the second run, for which Python itself would show nothing any more."""
    said = (
        *(f"{name}, voxels: 1 of 3 columns have no variance and are set to 0." for name in assembly.stories),
        "The smallest alpha of the grid, 1, is the choice in 100% of 1 significant voxel: a smaller one may predict "
        "better, so extend alphas there.",
    )
    assert result.notes == said
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)
    assert again.notes == said


def test_a_run_that_is_stopped_ends_at_once(assembly):
    told = []

    def stop(step):
        told.append(step)
        raise Cancelled

    with pytest.raises(Cancelled):
        runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=stop)
    assert len(told) == 1


def test_nested_cross_validation_scores_every_story(assembly):
    settings = replace(RATE, trimming=TRIM, use_train_test_split=False, folding_type="group")
    with pytest.warns(UserWarning, match="no variance"):
        found = runs.run(
            assembly, replace(settings, n_outer_folds=4, n_inner_folds=3), memory=NO_CACHE, progress=False
        )
    assert list(found.story_scores) == ["storya", "storyb", "storyc", "storyz"]
    assert all(len(found.predictions[name]) == 60 for name in found.predictions)
    assert found.scores[0] > 0.95 and abs(found.scores[1]) < 0.4


@pytest.mark.parametrize("folding_type", ["timeseries", "kfold_trimmed"])
def test_rows_that_no_outer_fold_scores_are_left_out(assembly, folding_type):
    settings = replace(
        RATE, trimming=TRIM, use_train_test_split=False, outer_folding_type=folding_type, outer_gap=0.0
    )
    with pytest.warns(UserWarning, match="no variance"):
        found = runs.run(assembly, settings, memory=NO_CACHE, progress=False)
    assert 0 < sum(map(len, found.predictions.values())) < 4 * 60
    assert found.scores[0] > 0.95
    for name, predicted in found.predictions.items():
        assert np.isfinite(predicted[:, :2]).all()
        assert len(found.row_times[name]) == len(found.measured[name]) == len(predicted)


def test_a_noise_ceiling_follows_repeats_that_were_changed_in_place(assembly, result):
    story = make_story("storyz", 9, repeats=4)
    repeats = story.repeats.copy()
    story = replace(story, repeats=repeats)
    changed = replace(assembly, stories={**assembly.stories, "storyz": story})
    settings = replace(RATE, trimming=TRIM)
    with pytest.warns(UserWarning, match="no variance"):
        before = runs.run(changed, settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(before.noise_ceiling, result.noise_ceiling)
    repeats[:, :, 0] = np.random.default_rng(0).standard_normal(repeats.shape[:2])
    with pytest.warns(UserWarning, match="no variance"):
        after = runs.run(changed, settings, memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(after.noise_ceiling, correlations.noise_ceiling(story.repeats[:, 5:]))
    assert after.noise_ceiling[0] < before.noise_ceiling[0] - 0.3


@pytest.mark.filterwarnings("ignore:.*no variance")
def test_repeats_that_are_not_finite_are_counted_in_a_note(assembly):
    story = make_story("storyz", 9, repeats=4)
    repeats = story.repeats.copy()
    repeats[2, 30, 0] = np.nan
    repeats[1, :2, 1] = np.inf  # cut by trimming
    broken = replace(assembly, stories={**assembly.stories, "storyz": replace(story, repeats=repeats)})
    for _ in range(2):  # the second time the ceiling is known
        with pytest.warns(UserWarning, match="the repeats of 1 of 3 voxels have NaN"):
            found = runs.run(broken, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)
        (note,) = (note for note in found.notes if "repeats" in note)
        assert note.startswith("storyz: the repeats of 1 of 3 voxels have NaN or infinite values")
        assert np.isnan(found.noise_ceiling).tolist() == [True, False, False]


def test_the_noise_ceiling_is_computed_once_per_story(assembly, result, monkeypatch):
    monkeypatch.setattr(scoring, "noise_ceiling", lambda repeats: pytest.fail("computed again"))
    with pytest.warns(UserWarning, match="no variance"):
        again = runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(again.noise_ceiling, result.noise_ceiling)


def test_word_vectors_that_are_not_there_are_refused(assembly):
    settings = replace(RATE, trimming=TRIM, modality="embeddings", embedding="nowhere.txt")
    assert "nowhere.txt" in check(assembly, settings)["embedding"]


@pytest.mark.filterwarnings("ignore:.*no variance")
def test_the_scores_come_in_one_step_before_their_permutation_test(assembly):
    quick = runs.run(assembly, replace(RATE, trimming=TRIM, significance="parametric"), progress=False)
    told, without = [], []
    found = runs.run(assembly, replace(RATE, trimming=TRIM, significance="permutation"), progress=told.append)
    scored = [step for step in told if step.scores is not None]
    assert len(scored) == 1 and scored[0].stage == "scores"
    np.testing.assert_array_equal(scored[0].scores, found.scores)
    np.testing.assert_array_equal(scored[0].significant, quick.significant)
    runs.run(assembly, quick.settings, progress=without.append)
    assert without and not any(step.scores is not None for step in without)


def test_progress_never_runs_backwards(assembly):
    seen = []
    with pytest.warns(UserWarning, match="no variance"):
        runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=seen.append)
    overall = [step.overall for step in seen]
    assert all(step.rate is None or step.rate > 0 for step in seen)
    assert overall == sorted(overall) and overall[0] >= 0 and overall[-1] <= 1
    assert [s for s in STAGES if s in {step.stage for step in seen}] == list(STAGES)


def test_words_that_are_read_at_once_say_nothing_of_the_rate(assembly, monkeypatch):
    """Three stories of 300 words are cached, the fourth takes 10 s for each of its ten parts."""
    now = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])

    def slow(plan, story, progress=None):
        for part in range(1, 11):
            now[0] += 10 if story.name == "storyz" else 0
            progress(part, 10)
        return JoinedFeatures(np.zeros((75, 1)), {"wordrate": 1})

    seen = []
    plan = plan_run(assembly, replace(RATE, trimming=TRIM))
    monkeypatch.setattr(features, "is_cached", lambda words, spec, memory=None: words.name != "storyz")
    monkeypatch.setattr(matrices, "sample_story", slow)
    matrices.story_features(plan, clock.Clock(seen.append, {stage: 1.0 for stage in STAGES}))
    assert [step.rate for step in seen[:30]] == [None] * 30
    assert [step.seconds_left for step in seen[30:]] == pytest.approx([90, 80, 70, 60, 50, 40, 30, 20, 10, 0])
    assert [step.rate for step in seen[30:]] == pytest.approx([3.0] * 10)
    assert [step.done for step in seen[29:32]] == pytest.approx([900, 930, 960])


def test_settings_go_through_json():
    settings = Settings(layer_idx=2, trimming=TRIM, test_stories=("storyz",), alphas=(1, 2.5))
    again = Settings.from_json(settings.to_json())
    assert again == settings and hash(again) == hash(settings)


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError, match="lookbak"):
        Settings(lookbak=3)
    text = json.dumps(json.loads(Settings().to_json()) | {"lookbak": 3})
    with pytest.raises(ValueError, match=r"unknown names lookbak; the known names are .*lookback"):
        Settings.from_json(text)


@pytest.mark.parametrize(
    ("change", "field", "says"),
    [
        ({"modality": "smell"}, "modality", "got 'smell'"),
        ({"stories": ("nowhere",)}, "stories", "'nowhere' is not in this assembly; it has storya, storyb"),
        ({"stories": ("storyz",)}, "stories", "no training story besides the test stories"),
        ({"test_stories": ()}, "test_stories", "no test story"),
        ({"downsample_method": "magic"}, "downsample_method", "lanczos, .* got 'magic'"),
        ({"folding_type": "magic"}, "folding_type", "chunked, .* got 'magic'"),
        ({"alphas": (1.0, -1.0)}, "alphas", r"above 0, got \(1.0, -1.0\)"),
        ({"alphas": ()}, "alphas", "one or more finite numbers"),
        ({"fir_delays": (1, 1)}, "fir_delays", r"each once, got \(1, 1\)"),
        ({"fdr_q": 1.5}, "fdr_q", "between 0 and 1, got 1.5"),
        ({"trimming": Trimming()}, "trimming", "storya .*75 TRs gives 75, .*60 rows gives 60"),
        (
            {"trimming": Trimming(train_features_start=90, train_targets_start=90)},
            "trimming",
            "storya.*leaves no rows",
        ),
        ({"trimming": replace(TRIM, test_features_start=16)}, "trimming", r"storyz \(test story\)"),
        ({"n_inner_folds": 500}, "n_inner_folds", "500"),
    ],
)
def test_refused_before_any_work(assembly, change, field, says, monkeypatch):
    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    settings = replace(replace(RATE, trimming=TRIM), **change)
    with pytest.raises(SettingsError, match=says) as raised:
        runs.run(assembly, settings, memory=NO_CACHE, progress=False)
    assert raised.value.field == field
    assert set(check(assembly, settings)) == {field}


def with_bold(assembly, name, change):
    """The assembly with the BOLD of one story changed in a copy."""
    story = assembly.stories[name]
    bold = story.bold.copy()
    change(bold)
    return replace(assembly, stories={**assembly.stories, name: replace(story, bold=bold)})


def test_bold_that_is_not_finite_is_counted_and_named(assembly):
    def spoil(bold):
        bold[3, 1] = np.nan
        bold[7:9, 0] = np.inf

    broken = with_bold(assembly, "storyb", spoil)
    says = r"storyb: 3 NaN or infinite values in 2 of 3 voxels \(numbers 0, 1\)"
    with pytest.warns(UserWarning), pytest.raises(ValueError, match=says):
        runs.run(broken, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)


def test_a_voxel_that_is_constant_in_one_story_only_is_still_scored(assembly):
    def flatten(bold):
        bold[:, 1] = 2.0

    flat = with_bold(assembly, "storyb", flatten)
    with pytest.warns(UserWarning, match=r"storyb, voxels: 2 of 3 columns have no variance"):
        result = runs.run(flat, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)
    assert np.isfinite(result.scores[1]) and np.isnan(result.scores[2])


def test_joined_spaces_are_one_ridge_on_all_their_columns(assembly, tmp_path, monkeypatch):
    vectors = tmp_path / "vectors.txt"
    rng = np.random.default_rng(0)
    vectors.write_text(
        "".join(f"w{i} " + " ".join(f"{x:.4f}" for x in rng.normal(size=3)) + "\n" for i in range(7))
    )
    settings = replace(
        RATE, trimming=TRIM, modality="embeddings", embedding=str(vectors), joined_with=("wordrate",)
    )
    seen = []
    fit = cv.ridge_cv
    monkeypatch.setattr(ridge, "ridge_cv", lambda X, Y, **k: seen.append(X) or fit(X, Y, **k))
    with pytest.warns(UserWarning, match="no variance"):
        result = runs.run(assembly, settings, memory=NO_CACHE, progress=False)
    assert seen[0].shape == (180, 4 * (3 + 1))
    assert result.scores[0] > 0.9
    story = assembly.stories["storya"]
    rate = matrix.add_delays(word_rate(story.words, story.tr_times), settings.fir_delays)
    own = design_matrices(plan_run(assembly, settings)).columns["wordrate"]
    np.testing.assert_allclose(
        seen[0][:60, own], matrix.standardize(TRIM.features(rate, test=False)), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"joined_with": ("wordrate",)}, "other feature spaces than modality, got wordrate in both"),
        ({"joined_with": ("smell",)}, "got ('smell',)"),
    ],
)
def test_spaces_that_cannot_be_joined_are_refused(assembly, change, says):
    problems = check(assembly, replace(RATE, trimming=TRIM, **change))
    assert list(problems) == ["joined_with"] and says in problems["joined_with"]


def test_significance_by_permutation(assembly):
    settings = replace(
        RATE, trimming=TRIM, significance="permutation", n_permutations=99, block_trs=5, seed=4
    )
    with pytest.warns(UserWarning, match="no variance"):
        result = runs.run(assembly, settings, memory=NO_CACHE, progress=False)
    expected = permutation.permutation_pvalues(
        result.measured["storyz"],
        result.predictions["storyz"],
        block_trs=5,
        n_permutations=99,
        seed=4,
        tail="t",
    )
    np.testing.assert_array_equal(result.pvalues, expected)
    assert result.pvalues[0] < 0.01 and result.significant[0]
    assert result.pvalues[1] > 0.05 and np.isnan(result.pvalues[2])


def test_given_inner_folds_are_used_and_checked_before_any_work(assembly, monkeypatch):
    settings = replace(RATE, trimming=TRIM)
    thirds = np.array_split(np.arange(180), 3)
    given = [(np.setdiff1d(np.arange(180), part), part) for part in thirds]
    seen = []
    fit = cv.ridge_cv
    monkeypatch.setattr(ridge, "ridge_cv", lambda X, Y, **k: seen.append(k["folds"]) or fit(X, Y, **k))
    with pytest.warns(UserWarning, match="no variance"):
        runs.run(assembly, settings, memory=NO_CACHE, progress=False, inner_folds=given)
    assert [fold.test.tolist() for fold in seen[0]] == [part.tolist() for part in thirds]

    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match="180"):
        runs.run(
            assembly,
            settings,
            memory=NO_CACHE,
            progress=False,
            inner_folds=[(np.arange(9), np.array([400, 401]))],
        )
    nested = replace(settings, use_train_test_split=False)
    with pytest.raises(ValueError, match="use_train_test_split=False makes one per outer fold"):
        runs.run(assembly, nested, memory=NO_CACHE, progress=False, inner_folds=given)


def test_a_run_that_cannot_fit_is_refused_before_any_work(assembly, monkeypatch):
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(SettingsError, match=r"needs about \d\.\d GB of memory \(\w+\), but 0\.0 GB are free"):
        runs.run(assembly, replace(RATE, trimming=TRIM), memory=NO_CACHE, progress=False)


def test_strided_windows_are_called_approximate_wherever_they_show(result):
    strided = replace(RATE, modality="language_model", context_type="strided", stride=8)
    assert strided.approximate and not replace(strided, use_stored_contexts=True).approximate
    assert not replace(strided, modality="wordrate").approximate and not Settings().approximate
    assert "approximate" in repr(replace(result, settings=strided)) and "approximate" not in repr(result)
    assert "# strided windows: the features are approximate" in to_code(strided, "demo")
    assert "approximate" not in to_code(RATE, "demo")
    compile(to_code(strided, "demo"), "cell", "exec")


def test_code_of_a_run_makes_equal_settings():
    settings = replace(RATE, trimming=TRIM, layer_idx=2, test_stories=("storyz",))
    code = to_code(settings, "demo")
    names = {}
    exec(code.split("assembly =")[0] + code[code.index("settings =") : code.index("result =")], names)
    assert names["settings"] == settings
    assert "load_assembly('demo')" in code
    compile(to_code(Settings(), "demo"), "cell", "exec")
    code = to_code(Settings(), "data/ds003020", {"subject": "UTS03", "stories": ("a", "b")})
    assert "load_assembly('data/ds003020', subject='UTS03', stories=('a', 'b'))" in code


@pytest.mark.filterwarnings("ignore:.*no variance")
def test_code_of_data_in_memory_says_where_to_put_them(assembly, result):
    code = to_code(result.settings, None)
    assert "load_assembly" not in code and "# These data were made in memory" in code
    names = {"assembly": assembly}
    exec(code.replace("run(assembly, settings)", "run(assembly, settings, progress=False)"), names)
    np.testing.assert_array_equal(names["result"].scores, result.scores)
    with pytest.raises(TypeError, match="to_code needs a Settings object, got a mapping"):
        to_code({}, "demo")


@pytest.mark.filterwarnings("ignore:.*no variance")
def test_test_stories_that_are_not_held_out_are_noted(assembly):
    settings = replace(RATE, trimming=TRIM, use_train_test_split=False, test_stories=("storya",))
    with pytest.warns(UserWarning, match=r"test_stories \(storya\) are not used"):
        found = runs.run(assembly, settings, memory=NO_CACHE, progress=False)
    assert found.notes[0].startswith("test_stories (storya) are not used: with use_train_test_split=False")


def test_a_progress_that_is_no_function_is_refused(assembly):
    with pytest.raises(
        TypeError, match="progress: expected True, False or a function of one step, got 'bar'"
    ):
        runs.run(assembly, replace(RATE, trimming=TRIM), progress="bar")


def test_the_split_and_the_folds_are_made_once(assembly, monkeypatch):
    made, true = [], ridge.make_folds
    monkeypatch.setattr(ridge, "make_folds", lambda *a, **o: made.append(o["n_folds"]) or true(*a, **o))
    settings = replace(RATE, trimming=TRIM)
    nested = replace(settings, use_train_test_split=False, n_outer_folds=4, n_inner_folds=3)
    with pytest.warns(UserWarning, match="no variance"):
        runs.run(assembly, settings, memory=NO_CACHE, progress=False)
        assert made == [5]
        made.clear()
        runs.run(assembly, nested, memory=NO_CACHE, progress=False)
    assert made == [4, 3, 3, 3, 3]


def test_bold_in_an_assembly_is_read_only_and_the_users_own_array_is_not():
    bold, heard = np.zeros((60, 3)), np.zeros((2, 60, 3))
    made = replace(make_story("storya", 0), bold=bold, repeats=heard)
    for array in (made.bold, made.repeats):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    assert np.shares_memory(made.bold, bold) and np.shares_memory(made.repeats, heard)
    bold[0] = heard[0] = 1
    assert made.bold[0, 0] == made.repeats[0, 0, 0] == 1


def test_what_prepare_has_worked_out_is_not_worked_out_again(monkeypatch):
    heard = make_story("storyz", 3, repeats=4)
    stories = {name: make_story(name, seed) for seed, name in enumerate(("storya", "storyb", "storyc"))}
    data = Assembly("S", 2.0, stories | {"storyz": heard}, test_stories=("storyz",))
    settings = replace(RATE, trimming=replace(TRIM, test_features_start=17, test_targets_start=7))
    prepare(data, settings, memory=NO_CACHE)
    monkeypatch.setattr(matrices.scoring, "noise_ceiling", lambda repeats: pytest.fail("computed again"))
    assert run(data, settings, memory=NO_CACHE, progress=False).noise_ceiling[0] > 0.8
    broken = replace(settings, fdr_q=7.0)
    assert check(data, broken)
    prepare(data, broken, memory=NO_CACHE)


def test_a_noise_ceiling_is_of_the_rows_that_are_kept():
    story = make_story("storyz", 9, repeats=4)
    for kept in (slice(5, None), slice(20, 50), slice(5, None)):
        expected = correlations.noise_ceiling(story.repeats[:, kept])
        np.testing.assert_allclose(matrices.story_ceiling(story, kept, tr=2.0), expected)


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (
            [1.0, 1.0, 10.0, 100.0],
            "smallest alpha of the grid, 1, is the choice in 67% of 3 significant voxels",
        ),
        (
            [10.0, 100.0, 100.0, 1.0],
            "largest alpha of the grid, 100, is the choice in 67% of 3 significant voxels",
        ),
        ([1.0, 10.0, 100.0, 1.0], None),
    ],
)
def test_alphas_that_pile_up_at_an_end_are_noted(assembly, chosen, says):
    """Among the significant voxels, the first three; noise takes an end of any grid."""
    settings = replace(RATE, trimming=TRIM)
    plan = plan_run(assembly, settings, memory=NO_CACHE)
    rng = np.random.default_rng(0)
    rows = {name: np.arange(plan.n_kept[name]) for name in assembly.test_stories}
    measured = rng.standard_normal((sum(map(len, rows.values())), 4)).astype("f4")
    predicted = np.where(np.arange(4) < 3, measured, -measured)
    scores = correlations.correlation(measured, predicted)
    held_out = runs.HeldOut(np.array(chosen, "f4"), predicted, measured, rows, scores)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        clock = Clock(lambda step: None, dict.fromkeys(("features", "design", "ridge", "scores"), 1.0))
        with clock.stage("scores"):
            result = runs.score(plan, held_out, clock)
    assert result.significant.tolist() == [True, True, True, False]
    notes = [str(warning.message) for warning in caught if "alpha" in str(warning.message)]
    assert [says in note for note in notes] == [True] if says else notes == []


@pytest.mark.parametrize(
    ("change", "noted"),
    [
        (lambda heard: heard, None),
        (
            lambda heard: heard * [[[1.0]], [[50.0]], [[3.0]], [[0.1]]] + 700,
            None,
        ),  # other scales, the same data
        (lambda heard: heard[:, ::-1], "mean of the repeats correlates with the BOLD by only"),
        (lambda heard: np.roll(heard, 7, axis=2), "mean of the repeats correlates with the BOLD by only"),
        (
            lambda heard: np.concatenate([heard[:, :, :24], heard[:, :, :23:-1]], axis=2),
            r"below 0.5 in 40% of the voxels",
        ),
    ],
    ids=[
        "its own",
        "other scales",
        "another story",
        "voxels in another order",
        "some voxels in another order",
    ],
)
def test_repeats_that_do_not_belong_to_the_bold_are_noticed(change, noted):
    rng = np.random.default_rng(0)
    story = make_story("storyz", 9)
    heard = rng.standard_normal((60, 40)) + 0.8 * rng.standard_normal((4, 60, 40))
    story = replace(story, bold=heard.mean(axis=0), repeats=np.ascontiguousarray(change(heard)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        matrices.story_ceiling(story, slice(5, None), tr=2.0)
    assert [noted in str(warning.message) for warning in caught] == ([True] if noted else [])
