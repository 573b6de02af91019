"""The shift test against brute force, what it is for, and what it refuses; the split check."""

import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from joblib import Memory
from scipy import stats
from scipy.signal import lfilter

from encoding_nb import Assembly, Cancelled, Settings, run, shift_test, split_check
from encoding_nb.design import Trimming, add_delays, standardize
from encoding_nb.features import time_features, word_rate
from encoding_nb.pipeline import estimate, plan_run
from encoding_nb.settings import SettingsError

NO_CACHE = Memory(None)
TRIM = Trimming(train_features_start=4, train_targets_start=4, test_features_start=4, test_targets_start=4)
NESTED = {"use_train_test_split": False, "trimming": TRIM}
RATE = Settings(modality="wordrate", alphas=(0.1, 10.0), n_inner_folds=3, n_permutations=1000, **NESTED)
SHIFT = replace(RATE, significance="shift", n_shifts=19)


def noise(n_rows, n_voxels, phi, seed):
    return lfilter([1], [1, -phi], np.random.default_rng(seed).normal(size=(n_rows + 100, n_voxels)), axis=0)[
        100:
    ]


def spoken(n_rows, seed, *, r=0.0, n_voxels=8, phi=0.3, extras=None):
    """A story whose first half of voxels follow word rate with correlation r, two TRs later; the others are noise."""
    rng = np.random.default_rng(seed)
    onsets = np.sort(rng.uniform(0, 2 * n_rows, 4 * n_rows))
    part = {"words": ["rain"] * len(onsets), "onsets": onsets, "offsets": onsets + 0.2}
    made = Assembly.from_arrays({"s": part | {"bold": np.zeros((n_rows, 1))}}, subject="s", tr=2.0).stories[
        "s"
    ]
    rate = standardize(word_rate(made.words, made.tr_times))
    bold = noise(n_rows, n_voxels, phi, seed + 1000)
    bold /= bold.std(axis=0)
    half = n_voxels // 2
    bold[:, :half] = np.sqrt(1 - r**2) * bold[:, :half] + r * np.roll(rate, 2, axis=0)
    return part | {"bold": bold, "extras": extras or {}}


def one_recording(n_rows=200, seed=0, **options):
    rois = options.pop("rois", None)
    return Assembly.from_arrays(
        {"s": spoken(n_rows, seed, **options)}, subject="one", tr=2.0, **({"rois": rois} if rois else {})
    )


def several(n_stories=4, n_rows=150, **options):
    stories = {f"s{i}": spoken(n_rows, i, **options) for i in range(n_stories)}  # the first is held out
    return Assembly.from_arrays(stories, subject="several", tr=2.0, test_stories=["s0"])


# ---------------------------------------------------------------------- against brute force


def brute_force(assembly, settings, bold):
    """Mean over outer folds of held-out r: ridge in closed form; BOLD is z-scored by each fold's training rows."""
    story, plan = assembly.stories["s"], plan_run(assembly, settings)
    X = standardize(add_delays(word_rate(story.words, story.tr_times), settings.fir_delays)[4:].astype(float))
    alphas, scores = settings.alphas, []

    def fit(A, B, alpha):
        return np.linalg.solve(A.T @ A + alpha * np.eye(A.shape[1]), A.T @ B)

    def r(a, b):
        return np.array([np.corrcoef(a[:, v], b[:, v])[0, 1] for v in range(a.shape[1])])

    for fold, inner in zip(plan.outer_folds, plan.inner_folds, strict=True):
        A = X - X[fold.train].mean(axis=0)
        B = (bold - bold[fold.train].mean(axis=0)) / bold[fold.train].std(axis=0)
        train, own = A[fold.train], B[fold.train]
        by_alpha = [
            np.mean(
                [r(own[i.test], train[i.test] @ fit(train[i.train], own[i.train], alpha)) for i in inner],
                axis=0,
            )
            for alpha in alphas
        ]
        best = np.argmax(by_alpha, axis=0)
        predicted = np.stack([A[fold.test] @ fit(train, own, alpha) for alpha in alphas])
        predicted = np.take_along_axis(predicted, best[None, None], axis=0)[0]
        scores.append(r(B[fold.test], predicted))
    return np.mean(scores, axis=0)


def test_a_nested_run_and_its_shifts_equal_brute_force():
    assembly = one_recording(r=0.5)
    bold = np.asarray(assembly.stories["s"].bold[4:], dtype=float)
    found = run(assembly, SHIFT, memory=NO_CACHE, progress=False)
    test = shift_test(assembly, SHIFT, memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(found.scores, brute_force(assembly, RATE, bold), atol=2e-5)
    assert len(test.amounts) == 19 and (test.amounts >= 20).all() and (test.amounts <= len(bold) - 20).all()
    nulls = np.stack([brute_force(assembly, RATE, np.roll(bold, k, axis=0)) for k in test.amounts.ravel()])
    np.testing.assert_allclose(test.nulls, nulls, atol=2e-5)
    np.testing.assert_allclose(test.observed, found.scores, atol=1e-6)
    np.testing.assert_allclose(found.null_mean, nulls.mean(axis=0), atol=2e-5)
    np.testing.assert_allclose(found.null_sd, nulls.std(axis=0, ddof=1), atol=2e-5)
    # p-values, from their definitions
    z = np.vstack([test.observed, test.nulls])
    counted = (1 + (test.nulls >= test.observed).sum(axis=0)) / 20
    np.testing.assert_allclose(test.pvalues, counted)
    t = (test.observed - test.null_mean) / (test.null_sd * np.sqrt(1 + 1 / 19))
    np.testing.assert_allclose(test.tail_pvalues, stats.t(18).sf(t))
    np.testing.assert_allclose(found.pvalues, test.tail_pvalues, rtol=1e-3)
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    np.testing.assert_allclose(test.corrected, [(z.max(axis=1) >= own - 1e-9).mean() for own in z[0]])
    assert test.least_p == 0.05 and found.test_name == "shift test"
    assert (found.significant == test.significant).all() and found.metrics["n_significant"] >= 3


def test_held_out_stories_are_shifted_as_well():
    assembly = several(r=0.6, n_voxels=4)
    settings = replace(RATE, use_train_test_split=True, significance="shift", n_shifts=19)
    test = shift_test(assembly, settings, memory=NO_CACHE, progress=False)
    plain = run(assembly, replace(settings, significance="parametric"), memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(test.observed, plain.scores, atol=1e-6)
    assert test.amounts.shape == (19, 4) and len(np.unique(test.amounts, axis=0)) == 19
    stories = {}
    for column, story in enumerate(plan_run(assembly, settings).stories):
        rolled = np.array(story.bold)
        rolled[4:] = np.roll(rolled[4:], test.amounts[3, column], axis=0)
        stories[story.name] = replace(story, bold=rolled)
    by_hand = replace(assembly, stories={name: stories[name] for name in assembly.stories})
    again = run(by_hand, replace(settings, significance="parametric"), memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(test.nulls[3], again.scores, atol=1e-6)
    assert (test.pvalues[:2] == 0.05).all() and (test.pvalues[2:] > 0.05).all()


def test_regions_are_means_over_their_voxels_and_masks_are_some_voxels():
    left, right = np.arange(8) < 4, np.arange(8) >= 5
    assembly = one_recording(r=0.4, rois={"left": left, "right": right})
    whole = shift_test(assembly, SHIFT, memory=NO_CACHE, progress=False)
    regions = shift_test(assembly, SHIFT, where="regions", memory=NO_CACHE, progress=False)
    assert regions.names == ("left", "right") and regions.voxels is None
    for i, mask in enumerate((left, right)):
        np.testing.assert_allclose(regions.observed[i], whole.observed[mask].mean(), atol=1e-6)
        np.testing.assert_allclose(regions.nulls[:, i], whole.nulls[:, mask].mean(axis=1), atol=1e-6)
    assert regions.significant.tolist() == [True, False]
    some = shift_test(assembly, SHIFT, where=right, memory=NO_CACHE, progress=False)
    assert some.names == ("voxel 5", "voxel 6", "voxel 7")
    np.testing.assert_allclose(some.nulls, whole.nulls[:, right], atol=1e-6)
    np.testing.assert_allclose(
        shift_test(assembly, SHIFT, where=[7, 5], memory=NO_CACHE, progress=False).observed, whole.observed[[5, 7]],
        atol=1e-6,
    )  # fmt: skip


def test_one_alpha_for_all_voxels_is_chosen_in_each_shift_by_itself():
    assembly = one_recording(r=0.5, n_voxels=4)
    settings = replace(SHIFT, single_alpha=True, alphas=(0.01, 1e4))
    test = shift_test(assembly, settings, memory=NO_CACHE, progress=False)
    story = assembly.stories["s"]
    rolled = np.array(story.bold)
    rolled[4:] = np.roll(rolled[4:], test.amounts[6, 0], axis=0)
    shifted = replace(assembly, stories={"s": replace(story, bold=rolled)})
    own = run(shifted, replace(settings, significance="permutation"), memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(test.nulls[6], own.scores, atol=1e-5)


# ---------------------------------------------------------------------- gains


def with_extras(n_rows=200, seed=5, r=0.6):
    """BOLD of some voxels follows an array that came with the data; another array is noise."""
    heard, other = noise(n_rows, 1, 0.3, 77), noise(n_rows, 3, 0.3, 78)
    story = spoken(n_rows, seed, extras={"sound": heard, "other": other})
    story["bold"][:, :4] += 1.2 * r * heard
    return Assembly.from_arrays({"s": story}, subject="extras", tr=2.0)


@pytest.mark.parametrize("shift", ["bold", "features"])
@pytest.mark.parametrize("statistic", ["r", "r2"])
def test_the_gain_of_a_space_is_found_where_it_is(shift, statistic):
    assembly = with_extras()
    joined = replace(SHIFT, joined_with=("extras",), extras=("sound",), delay_extras=False)
    options = {"shift": shift, "statistic": statistic, "memory": NO_CACHE, "progress": False}
    test = shift_test(assembly, joined, against=SHIFT, **options)
    assert (test.observed[:4] > 0.15).all() and (test.observed[:4] > test.nulls[:, :4].max(axis=0)).all()
    assert (test.pvalues[:4] == 0.05).all() and (test.corrected[:4] == 0.05).all()
    assert np.abs(test.observed[4:]).max() < 0.2
    alone = shift_test(assembly, joined, **options)
    np.testing.assert_allclose(
        test.observed, alone.observed - shift_test(assembly, SHIFT, **options).observed, atol=1e-5
    )
    assert "gain in" in repr(test) and "least p 0.050" in repr(test)


def test_shifted_features_leave_the_others_where_they_are():
    """With the shared space unshifted, what it explains stays in the null."""
    assembly = with_extras()
    joined = replace(SHIFT, joined_with=("extras",), extras=("sound",))
    only = replace(SHIFT, modality="extras", extras=("sound",), alphas=SHIFT.alphas)
    options = {"shift": "features", "memory": NO_CACHE, "progress": False}
    test = shift_test(assembly, joined, against=only, **options)  # word rate moves, which says nothing
    own = shift_test(assembly, joined, **options)  # both move
    assert np.abs(test.null_mean[:4]).max() < 0.1
    assert (own.observed[:4] - own.null_mean[:4] > 0.2).all()
    alone = shift_test(assembly, only, memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(own.observed - alone.observed, test.observed, atol=1e-5)


# ---------------------------------------------------------------------- false positives, power


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_noise_is_called_significant_in_5_percent(phi):
    """800 voxels; the binomial standard error of a share of 5 % is 0.8 %."""
    assembly = one_recording(260, n_voxels=800, phi=phi, seed=3)
    settings = replace(
        SHIFT, modality="position", joined_with=("wordrate",), n_shifts=39, alphas=(1.0, 100.0), trimming=TRIM
    )
    test = shift_test(assembly, settings, memory=NO_CACHE, progress=False)
    for p in (test.pvalues, test.tail_pvalues):
        assert abs(np.mean(p <= 0.05) - 0.05) < 3 * 0.008
    assert not test.significant.any() or np.mean(test.significant) < 0.005


def test_p_values_count_ties_and_both_tails_and_leave_out_voxels_without_a_score():
    from encoding_nb.pipeline import shifts

    nulls = np.array([[1.0, -3.0, np.nan], [2.0, 1.0, np.nan], [3.0, 2.0, np.nan]])
    observed = np.array([3.0, 0.5, np.nan])
    np.testing.assert_allclose(shifts.counted_pvalues(observed, nulls, "greater"), [0.5, 0.75, np.nan])
    centre = np.vstack([observed, nulls])[:, :2].mean(axis=0)
    away = np.abs(np.vstack([observed, nulls])[:, :2] - centre)
    expected = (away >= away[0] - 1e-12).mean(axis=0)
    np.testing.assert_allclose(shifts.counted_pvalues(observed, nulls, "two-sided")[:2], expected)
    assert np.isnan(shifts.corrected_pvalues(observed, nulls, "greater")[2])
    assert np.isnan(shifts.tail_pvalues(observed, nulls, "greater")[2])
    np.testing.assert_allclose(
        shifts.tail_pvalues(observed, nulls, "two-sided")[0],
        2 * stats.t(2).sf(abs(3 - 2) / (1 * np.sqrt(4 / 3))),
    )


# ---------------------------------------------------------------------- by how much


def test_shifts_of_one_story_are_spread_over_all_that_are_possible():
    test = shift_test(
        one_recording(), replace(SHIFT, n_shifts=40, least_shift=30.0), memory=NO_CACHE, progress=False
    )
    amounts = test.amounts.ravel()
    assert amounts[0] == 15 and amounts[-1] == 196 - 15 and len(set(amounts)) == 40
    steps = [b - a for a, b in pairwise(amounts)]
    assert max(steps) - min(steps) <= 1


def test_shifts_are_longer_than_the_autocorrelation():
    slow = one_recording(400, phi=0.97, n_voxels=50)
    bold = np.asarray(slow.stories["s"].bold[4:], dtype=float)
    z = standardize(bold)
    lags = [
        np.median([np.sum(z[k:, v] * z[: len(z) - k, v]) / len(z) for v in range(50)]) for k in range(150)
    ]
    similar = int(np.argmax(np.array(lags) < 0.1))
    test = shift_test(slow, SHIFT, memory=NO_CACHE, progress=False)
    assert similar > 25 and test.amounts.min() == similar + 4
    with pytest.raises(
        SettingsError, match=rf"above 0.1 for {2 * similar} s, got 20 s; set least_shift"
    ) as raised:
        shift_test(slow, replace(SHIFT, least_shift=20.0), memory=NO_CACHE, progress=False)
    assert raised.value.field == "least_shift"
    high_passed = shift_test(slow, replace(SHIFT, high_pass=60.0), memory=NO_CACHE, progress=False)
    assert high_passed.amounts.min() < similar


@pytest.mark.parametrize(
    ("change", "says", "where"),
    [
        ({"n_shifts": 160}, r"160 shifts, but story s \(196 rows, 392 s\) has 157, with shifts of 40 s", "n_shifts"),
        ({"least_shift": 200.0}, r"is too short for any, with shifts of 200 s or more; set fewer n_shifts", "n_shifts"),
    ],
)  # fmt: skip
def test_too_few_shifts_are_refused_before_any_work(change, says, where, monkeypatch):
    from encoding_nb import features

    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    for work in (run, shift_test):
        with pytest.raises(SettingsError, match=says) as raised:
            work(one_recording(), replace(SHIFT, **change), memory=NO_CACHE, progress=False)
        assert raised.value.field == where


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shift": "words"}, "shift must be one of bold, features"),
        ({"statistic": "R2"}, "statistic must be one of r, r2"),
        ({"where": "regions"}, 'expected regions in the data, got none'),
        ({"where": "areas"}, "where must be one of voxels, regions"),
        ({"where": [8]}, r"voxel numbers from 0 to 7; got int64"),
        ({"where": np.zeros(8, bool)}, "a mask of 8 voxels"),
        ({"n_shifts": 5}, "n_shifts must be a whole number of 19 or more, got 5"),
        ({"against": replace(SHIFT, high_pass=100.0)}, "only features and ridge differ, got another high_pass"),
        ({"against": replace(SHIFT, outer_gap=10.0)}, "only features and ridge differ, got another folds"),
        ({"against": SHIFT}, "expected other features or another ridge than settings, got equal settings"),
        (
            {"against": replace(SHIFT, alphas=(3.0,)), "shift": "features"},
            "a feature space of settings that against does not have",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_any_work(options, says, monkeypatch):
    from encoding_nb import features

    monkeypatch.setattr(features, "joined_features", lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match=says):
        shift_test(one_recording(), SHIFT, memory=NO_CACHE, progress=False, **options)


def test_a_shift_test_can_be_cancelled_and_tells_how_far_it_is():
    assembly, seen = one_recording(), []
    shift_test(
        assembly, SHIFT, against=replace(SHIFT, fir_delays=(2,)), memory=NO_CACHE, progress=seen.append
    )
    shares = [step.overall for step in seen]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)

    def stop(step):
        if step.stage == "ridge":
            raise Cancelled

    def stop_in_shifts(step):
        if "19 shifts" in step.detail:
            raise Cancelled

    with pytest.raises(Cancelled):
        shift_test(assembly, SHIFT, memory=NO_CACHE, progress=stop)
    with pytest.raises(Cancelled):
        run(assembly, SHIFT, memory=NO_CACHE, progress=stop_in_shifts)


def test_a_run_with_shifts_is_estimated_as_more_work():
    assembly = one_recording(n_voxels=400)
    plain, shifted = (estimate(assembly, s, memory=NO_CACHE) for s in (RATE, replace(SHIFT, n_shifts=99)))
    assert shifted.seconds["scores"] > 20 * plain.seconds["ridge"]
    assert shifted.bytes["scores"] > plain.bytes["scores"] + 3 * 8 * 99 * 400


# ---------------------------------------------------------------------- nested runs without a test


def test_a_nested_run_has_no_p_values_until_shifts_give_them():
    assembly = one_recording(r=0.5)
    found = run(assembly, RATE, memory=NO_CACHE, progress=False)
    assert found.pvalues is None and found.significant is None and not found.tested
    assert 'needs significance="shift"' in found.test_name and found.test_name in repr(found)
    assert "n_significant" not in found.metrics and "median_score" in found.metrics
    assert any("no p-values" in note and 'significance="shift"' in note for note in found.notes)
    assert any("80 s on both sides" in note and "mean over the folds" in note for note in found.notes)
    white = run(assembly, replace(RATE, significance="parametric"), memory=NO_CACHE, progress=False)
    assert white.tested and "assumes white noise" in white.test_name
    assert any("assume white noise" in note for note in white.notes)


def by_voxel(measured, predicted):
    return [np.corrcoef(measured[:, v], predicted[:, v])[0, 1] for v in range(measured.shape[1])]


def test_scores_of_nested_runs_are_means_over_folds_also_of_each_story():
    cases = [(one_recording(r=0.5), RATE), (several(r=0.5), replace(RATE, outer_folding_type="chunked")),
             (several(r=0.5), replace(RATE, alphas=(1e13,))), (several(r=0.5), RATE)]  # fmt: skip
    for assembly, settings in cases:
        found = run(assembly, settings, memory=NO_CACHE, progress=False)
        folds = np.concatenate([found.row_folds[name] for name in found.measured])
        measured, predicted = (np.concatenate(list(p.values())) for p in (found.measured, found.predictions))
        by_fold = [by_voxel(measured[folds == f], predicted[folds == f]) for f in np.unique(folds)]
        np.testing.assert_allclose(found.scores, np.mean(by_fold, axis=0), atol=1e-5)
        for name, scores in found.story_scores.items():
            own = found.row_folds[name]
            parts = [
                by_voxel(found.measured[name][own == f], found.predictions[name][own == f])
                for f in np.unique(own)
            ]
            np.testing.assert_allclose(scores, np.mean(parts, axis=0), atol=1e-6)
    assert all(len(np.unique(own)) == 1 for own in found.row_folds.values())  # whole stories


# ---------------------------------------------------------------------- drifts


def test_slow_bold_is_noted_with_what_to_do_and_a_high_pass_removes_it():
    drifting = spoken(200, 3)
    drifting["bold"] = drifting["bold"] + 3 * np.linspace(-1, 1, 200)[:, None]
    assembly = Assembly.from_arrays({"s": drifting}, subject="drift", tr=2.0)
    found = run(assembly, RATE, memory=NO_CACHE, progress=False)
    assert any("slower than 1/128 Hz" in note and "Set high_pass=128" in note for note in found.notes)
    filtered = run(assembly, replace(RATE, high_pass=128.0), memory=NO_CACHE, progress=False)
    assert not any("1/128" in note for note in filtered.notes)
    plain = run(one_recording(), RATE, memory=NO_CACHE, progress=False)
    assert not any("1/128" in note for note in plain.notes)


# ---------------------------------------------------------------------- the split check


def test_the_split_check_tells_leaking_folds_from_others():
    assembly = several(6, 150, phi=0.6, n_voxels=200)
    shuffled = replace(RATE, outer_folding_type="chunked", chunk_length=1)
    leaking = split_check(assembly, shuffled, progress=False)
    assert leaking.score > 0.5 and leaking.leaks and "they leak" in leaking.sentence
    assert "hold out whole stories" in leaking.sentence and "high_pass=128" in leaking.sentence
    whole = split_check(assembly, RATE, progress=False)
    assert abs(whole.score) <= 2 * whole.error and not whole.leaks and "do not leak" in whole.sentence
    held_out = split_check(assembly, replace(RATE, use_train_test_split=True), progress=False)
    assert not held_out.leaks and abs(held_out.score) < 0.05


def test_the_split_check_leaves_out_stories_that_no_fold_cuts():
    """Three stretches of four stories: the first story lies within one of them."""
    settings = replace(RATE, outer_folding_type="kfold", n_outer_folds=3, outer_gap=0.0)
    found = split_check(several(4, 100, phi=0.6), settings, progress=False)
    assert np.isfinite(found.score) and np.isfinite(found.error)


def test_folds_that_leak_are_found_however_many_stories_there_are():
    settings = replace(RATE, outer_folding_type="chunked", chunk_length=3)
    few, many = (
        split_check(several(n, 100, phi=0.8, n_voxels=100), settings, progress=False) for n in (1, 8)
    )
    assert few.leaks and many.leaks and many.score > 0.3


def test_the_split_check_is_a_run_of_the_space_time():
    assembly = several(4, 120, phi=0.6)
    settings = replace(RATE, alphas=None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = run(assembly, replace(settings, modality="time"), memory=NO_CACHE, progress=False)
    assert split_check(assembly, settings, progress=False).score == pytest.approx(
        found.scores.mean(), abs=1e-5
    )
    np.testing.assert_allclose(
        time_features(4, 6, sigma=1.0)[1], np.exp(-0.5 * (np.arange(6) - 1.0) ** 2), rtol=1e-6
    )


# ---------------------------------------------------------------------- what an attack found


def test_a_story_of_which_a_fold_trains_on_few_rows_is_z_scored_as_if_it_was_held_out():
    """Two rows of slow BOLD have a tiny deviation: z-scored by it, the others would be huge."""
    assembly = several(4, 110, phi=0.9)
    settings = replace(RATE, outer_folding_type="kfold")
    found = run(assembly, settings, memory=NO_CACHE, progress=False)
    deviations = [part.std(axis=0).max() for part in found.measured.values()]
    assert max(deviations) < 2.5
    plan = plan_run(assembly, settings)
    few = [np.sum(plan.groups[fold.train] == 1) for fold in plan.outer_folds]
    assert min(n for n in few if n) < 20


def test_one_alpha_is_that_of_all_voxels_also_where_some_are_tested():
    assembly = one_recording(r=0.6)
    settings = replace(SHIFT, single_alpha=True, alphas=(0.1, 1e3, 1e5))
    whole = shift_test(assembly, settings, memory=NO_CACHE, progress=False)
    some = shift_test(assembly, settings, where=[6, 7], memory=NO_CACHE, progress=False)
    np.testing.assert_allclose(some.nulls, whole.nulls[:, 6:], atol=1e-6)
    np.testing.assert_allclose(some.observed, whole.observed[6:], atol=1e-6)


def test_r2_of_voxels_is_corrected_by_the_maximum():
    test = shift_test(with_extras(), replace(SHIFT, modality="extras", extras=("sound",)), statistic="r2",
                      memory=NO_CACHE, progress=False)  # fmt: skip
    np.testing.assert_array_equal(test.significant, test.corrected <= 0.05)
    assert test.significant[:4].any()


def test_more_columns_than_fit_at_once_are_the_same(monkeypatch):
    from encoding_nb.pipeline import shifts

    assembly = one_recording(r=0.4)
    whole = shift_test(assembly, SHIFT, memory=NO_CACHE, progress=False)
    monkeypatch.setattr(shifts, "SHIFTED_COLUMNS", 60)  # three voxels
    np.testing.assert_allclose(
        shift_test(assembly, SHIFT, memory=NO_CACHE, progress=False).nulls, whole.nulls, atol=1e-6
    )


@pytest.mark.parametrize("shared", [0.0, 0.6])
def test_clean_folds_do_not_leak_however_much_voxels_share(shared):
    """Voxels with one signal are one sample: the error is not that of 100 voxels."""
    wrong = 0
    for seed in range(5):
        stories = {f"s{i}": spoken(120, 10 * seed + i, phi=0.8, n_voxels=60) for i in range(4)}
        for i, story in enumerate(stories.values()):
            story["bold"] = story["bold"] + shared * 2 * noise(120, 1, 0.8, 1000 * seed + i)
        assembly = Assembly.from_arrays(stories, subject="shared", tr=2.0, test_stories=["s3"])
        wrong += split_check(assembly, replace(RATE, use_train_test_split=True), progress=False).leaks
    assert wrong <= 1


def test_bold_that_cannot_be_fitted_is_refused_by_its_name():
    story = spoken(200, 1)
    story["bold"] = np.full((200, 3), np.nan)
    assembly = Assembly.from_arrays({"s": story}, subject="nan", tr=2.0)
    with pytest.raises(ValueError, match="s: 588 NaN or infinite values in 3 of 3 voxels"):
        run(assembly, SHIFT, memory=NO_CACHE, progress=False)


def test_a_region_without_voxels_is_refused_before_any_work():
    assembly = one_recording(rois={"left": np.arange(8) < 4, "none": np.zeros(8, bool)})
    with pytest.raises(ValueError, match="got none in none"):
        shift_test(assembly, SHIFT, where="regions", memory=NO_CACHE, progress=False)
