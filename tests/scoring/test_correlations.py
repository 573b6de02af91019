"""Scores and p-values against scipy, scikit-learn, simulation and LITcoder's stored runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import r2_score

from encoding_nb import _columns
from encoding_nb._progress import Cancelled
from encoding_nb.scoring import correlations, permutation

GOLDEN = Path(__file__).parents[1] / "golden"
RUNS = ["tt_default_rect", "tt_default_lanczos", "tt_default_lanczos_single_alpha", "tt_wordrate"]


def autocorrelated(rng, n_rows, n_voxels, phi):
    """AR(1) noise (n_rows, n_voxels) with variance 1 from its first row on."""
    noise = rng.standard_normal((n_rows, n_voxels))
    noise[1:] *= np.sqrt(1 - phi**2)
    for row in range(1, n_rows):
        noise[row] += phi * noise[row - 1]
    return noise


# --- scores ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_correlation_and_r2_equal_scipy_and_scikit_learn(dtype, monkeypatch):
    monkeypatch.setattr(_columns, "SLAB_VALUES", 200)
    rng = np.random.default_rng(0)
    Y = (rng.standard_normal((50, 11)) + 100).astype(dtype)
    P = (0.3 * Y + rng.standard_normal((50, 11))).astype(dtype)
    expected = [
        stats.pearsonr(a, b).statistic for a, b in zip(Y.T.astype(float), P.T.astype(float), strict=True)
    ]
    np.testing.assert_allclose(correlations.correlation(Y, P), expected, atol=1e-12)
    expected = r2_score(Y.astype(float), P.astype(float), multioutput="raw_values")
    np.testing.assert_allclose(correlations.r2(Y, P), expected, rtol=1e-10)


def test_voxels_without_variance_score_nan():
    rng = np.random.default_rng(0)
    Y, P = rng.standard_normal((2, 40, 5)).astype(np.float32)
    Y[:, 0] = 3.7
    P[:, 1] = -2.0
    Y[:, 2] = 3.7
    Y[::3, 2] = np.nextafter(np.float32(3.7), np.float32(4))
    Y[4, 3] = np.nan
    np.testing.assert_array_equal(np.isnan(correlations.correlation(Y, P)), [True, True, True, True, False])
    np.testing.assert_array_equal(np.isnan(correlations.r2(Y, P)), [True, False, True, True, False])
    p = permutation.permutation_pvalues(Y, P, n_permutations=19)
    np.testing.assert_array_equal(np.isnan(p), [True, True, True, True, False])


# --- p-values --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("n_rows", [4, 53, 300])
def test_correlation_pvalues_equal_scipy(alternative, n_rows):
    rng = np.random.default_rng(n_rows)
    x = rng.standard_normal(n_rows)
    Y = np.linspace(-2, 2, 9) * x[:, None] + rng.standard_normal((n_rows, 9))
    found = [stats.pearsonr(x, y, alternative=alternative) for y in Y.T]
    p = correlations.correlation_pvalues([f.statistic for f in found], n_rows, alternative=alternative)
    np.testing.assert_allclose(p, [f.pvalue for f in found], rtol=1e-8, atol=1e-300)


def test_correlation_pvalues_at_the_ends():
    p = correlations.correlation_pvalues([1.0, -1.0, 0.0, np.nan], 20)
    np.testing.assert_array_equal(p, [0.0, 0.0, 1.0, np.nan])


@pytest.mark.parametrize("run", RUNS)
def test_pvalues_fdr_and_metrics_equal_litcoder(run):
    stored = np.load(GOLDEN / f"run_{run}.npz")
    metrics = json.loads((GOLDEN / f"run_{run}_metrics.json").read_text())
    p = correlations.correlation_pvalues(stored["correlations"], 53)
    np.testing.assert_allclose(p, stored["p_values"], atol=1e-5)
    significant, corrected = correlations.fdr(stored["p_values"], q=0.05)
    np.testing.assert_allclose(corrected, stored["corrected_p_values"], atol=1e-12)
    np.testing.assert_array_equal(significant, stored["significant_mask"])
    summary = correlations.summarise(stored["correlations"], significant)
    numbers = {name: value for name, value in metrics.items() if not isinstance(value, list)}
    assert len(numbers) == 11
    for name, value in numbers.items():
        assert summary[name] == pytest.approx(value, rel=1e-12), name


def test_fdr_equals_scipy_and_ignores_nan():
    rng = np.random.default_rng(0)
    p = np.r_[rng.uniform(size=200), rng.uniform(size=40) / 1000, 0.0, 1.0]
    rng.shuffle(p)
    holes = np.insert(p, [5, 100], np.nan)
    significant, corrected = correlations.fdr(holes, q=0.1)
    expected = stats.false_discovery_control(p)
    np.testing.assert_allclose(corrected[~np.isnan(holes)], expected)
    np.testing.assert_array_equal(significant[~np.isnan(holes)], expected <= 0.1)
    assert np.isnan(corrected[np.isnan(holes)]).all() and not significant[np.isnan(holes)].any()
    assert correlations.fdr([np.nan])[1].shape == (1,)


# --- the permutation test --------------------------------------------------------------------------------


def filtered(rng, n_rows, n_voxels):
    """White activity through a haemodynamic response at a TR of 2 s, and a little white measurement noise."""
    t = np.arange(0, 32, 2.0)
    response = stats.gamma.pdf(t, 6) - stats.gamma.pdf(t, 16) / 6
    activity = rng.standard_normal((n_rows + len(t) - 1, n_voxels))
    slow = np.apply_along_axis(np.convolve, 0, activity, response / np.linalg.norm(response), mode="valid")
    return slow + 0.3 * rng.standard_normal(slow.shape)


def rates(noise, n_rows, alternative, n_groups=8, **options):
    """Shares of p-values at or below 0.05 and 0.01: shuffled, and of the formula.

    The shuffles of a group of voxels are drawn afresh, since voxels that share theirs err together: with 500
    of them, the rate at 0.05 moves by a fifth of itself (one standard error).
    """
    honest, naive = [], []
    for seed in range(n_groups):
        rng = np.random.default_rng(100 + seed)
        Y, P = noise(rng, n_rows, 1500), noise(rng, n_rows, 1500)
        shuffled = {"n_permutations": 500, "seed": seed, "alternative": alternative} | options
        honest.append(permutation.permutation_pvalues(Y, P, **shuffled))
        naive.append(
            correlations.correlation_pvalues(correlations.correlation(Y, P), n_rows, alternative=alternative)
        )
    return [[(np.concatenate(p) <= level).mean() for level in (0.05, 0.01)] for p in (honest, naive)]


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.8, 0.9])
def test_false_positives_on_autocorrelated_noise(phi, alternative):
    """Unrelated series: 5% of the p-values of an honest test lie below 0.05, whatever the autocorrelation."""
    (at_5, at_1), (naive, _) = rates(lambda *a: autocorrelated(*a, phi), 250, alternative)
    # One standard error of the rate at 5%, of the shuffles and of the voxels, is 0.4%.
    assert at_5 == pytest.approx(0.05, abs=0.009)
    assert 0.005 < at_1 < 0.017
    # The formula takes the rows for independent: autocorrelation widens r by sqrt((1 + phi^2) / (1 - phi^2)).
    tail = stats.norm.isf(0.025 if alternative == "two-sided" else 0.05)
    expected = stats.norm.sf(tail / np.sqrt((1 + phi**2) / (1 - phi**2)))
    assert naive == pytest.approx(expected * (2 if alternative == "two-sided" else 1), abs=0.02)
    assert naive > {0.0: 0.04, 0.5: 0.09, 0.8: 0.19, 0.9: 0.26}[phi]


@pytest.mark.parametrize("n_rows", [60, 291])
def test_false_positives_on_noise_like_bold(n_rows):
    (at_5, at_1), (naive, _) = rates(filtered, n_rows, "greater")
    assert at_5 == pytest.approx(0.05, abs=0.009)
    assert 0.005 < at_1 < 0.017
    assert naive > 0.13


def test_false_positives_over_three_stories():
    """Rows of stories one after another, each z-scored by itself."""

    def stories(rng, n_rows, n_voxels):
        parts = [filtered(rng, n_rows // 3, n_voxels) for _ in range(3)]
        return np.concatenate([(part - part.mean(0)) / part.std(0) for part in parts])

    (at_5, _), (naive, _) = rates(stories, 300, "greater")
    assert at_5 == pytest.approx(0.05, abs=0.009) and naive > 0.13


def test_blocks_must_be_long_against_the_autocorrelation():
    for phi, block, low, high in ((0.5, 15, 0.041, 0.063), (0.9, 10, 0.08, 0.12)):
        (at_5, _), _ = rates(lambda *a, phi=phi: autocorrelated(*a, phi), 250, "greater", block_trs=block)
        assert low < at_5 < high


@pytest.mark.parametrize("n_rows", [8, 43, 50])
def test_shuffled_phases_keep_every_frequency(n_rows):
    """The shuffled correlations are those of series with the prediction's spectrum, made one by one."""
    rng = np.random.default_rng(n_rows)
    Y, P = autocorrelated(rng, n_rows, 5, 0.6), autocorrelated(rng, n_rows, 5, 0.6)
    units = [(v - v.mean(0)) / np.linalg.norm(v - v.mean(0), axis=0) for v in (Y, P)]
    phases = permutation.Phases(n_rows, 6, 1)
    found = phases.correlations(*units)
    measured, predicted = (np.fft.rfft(v, axis=0)[1:] for v in units)
    for row, cosines in zip(found, phases.cosines, strict=True):
        turned = np.abs(predicted) * np.exp(1j * (np.angle(measured) + np.arccos(cosines)[:, None]))
        series = np.fft.irfft(np.vstack([np.zeros((1, 5)), turned]), n_rows, axis=0)
        np.testing.assert_allclose(np.abs(np.fft.rfft(series, axis=0)[1:]), np.abs(predicted), atol=1e-6)
        expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(Y.T, series.T, strict=True)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def test_shuffled_phases_find_signal():
    rng = np.random.default_rng(0)
    Y = autocorrelated(rng, 203, 6, 0.3)
    P = Y + autocorrelated(rng, 203, 6, 0.3)
    p = permutation.permutation_pvalues(Y, P, n_permutations=50, seed=3)
    assert (p == 1 / 51).all()
    np.testing.assert_array_equal(p, permutation.permutation_pvalues(Y, P, n_permutations=50, seed=3))
    assert (permutation.permutation_pvalues(Y, -P, n_permutations=50, alternative="less") == 1 / 51).all()
    strong = permutation.permutation_pvalues(Y, P, tail="t")
    assert (strong < 1e-6).all()


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, bool])
def test_numbers_of_any_type_are_scored(dtype):
    rng = np.random.default_rng(0)
    low, high = (0, 1) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    Y = np.interp(rng.standard_normal((40, 3)), [-2, 2], [low, high]).round().astype(dtype)
    P = rng.standard_normal((40, 3))
    expected = [stats.pearsonr(a, b).statistic for a, b in zip(Y.T.astype(float), P.T, strict=True)]
    np.testing.assert_allclose(correlations.correlation(Y, P), expected, atol=1e-12)
    assert np.isfinite(correlations.r2(Y, P)).all() and np.isfinite(correlations.noise_ceiling([Y, Y])).all()


def test_permutation_test_finds_signal_and_counts_exactly():
    rng = np.random.default_rng(0)
    Y = autocorrelated(rng, 203, 6, 0.3)
    P = Y + autocorrelated(rng, 203, 6, 0.3)
    p = permutation.permutation_pvalues(Y, P, block_trs=10, n_permutations=50, seed=3)
    assert (p == 1 / 51).all()
    np.testing.assert_array_equal(
        p, permutation.permutation_pvalues(Y, P, block_trs=10, n_permutations=50, seed=3)
    )
    # Against a plain loop over the same shuffles.
    Y = Y[:43]
    weak = autocorrelated(rng, 43, 6, 0.3)
    orders = [
        np.concatenate([np.split(np.arange(43), range(10, 43, 10))[block] for block in order])
        for order in permutation.Blocks(43, 10, 50, 3).orders
    ]
    assert all(sorted(order) == list(range(43)) for order in orders)
    shuffled = np.array([[np.corrcoef(Y[:, v], weak[order, v])[0, 1] for v in range(6)] for order in orders])
    observed = np.array([np.corrcoef(Y[:, v], weak[:, v])[0, 1] for v in range(6)])
    for alternative, reached in (
        ("greater", shuffled >= observed),
        ("less", shuffled <= observed),
        ("two-sided", np.abs(shuffled) >= np.abs(observed)),
    ):
        p = permutation.permutation_pvalues(
            Y, weak, block_trs=10, n_permutations=50, seed=3, alternative=alternative
        )
        np.testing.assert_allclose(p, (1 + reached.sum(0)) / 51)


def test_tail_is_nominal_on_autocorrelated_noise_and_tells_small_pvalues_apart():
    rng = np.random.default_rng(5)
    Y, P = (autocorrelated(rng, 300, 20_000, 0.5) for _ in range(2))
    options = {"block_trs": 15, "n_permutations": 300, "seed": 1}
    p = permutation.permutation_pvalues(Y, P, tail="t", **options)
    for level in (0.05, 0.01, 0.002):
        assert (p <= level).mean() == pytest.approx(level, rel=0.35)
    often = p >= 11 / 301
    np.testing.assert_array_equal(p[often], permutation.permutation_pvalues(Y, P, **options)[often])
    strong = permutation.permutation_pvalues(Y[:, :2], Y[:, :2] + P[:, :2] * [1, 2], tail="t", **options)
    assert strong[0] < strong[1] < 1e-6


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_few_permutations_find_no_more_in_noise_than_many(phi):
    """With a normal tail, 19 shuffles gave 6.7 and 6.1% of p at or below 0.05, and 1.7 and 1.3% below 0.01."""
    p = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        Y, P = autocorrelated(rng, 120, 500, phi), autocorrelated(rng, 120, 500, phi)
        p.append(permutation.permutation_pvalues(Y, P, n_permutations=19, seed=seed, tail="t"))
    shares = [(np.concatenate(p) <= level).mean() for level in (0.05, 0.01, 0.001)]
    assert 0.03 < shares[0] < 0.06 and 0.004 < shares[1] < 0.012 and shares[2] < 0.002, shares
    assert max(correlations.fdr(each)[0].sum() for each in p) <= 2


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_tail_is_that_of_one_more_observation(alternative):
    """Against scipy's t-test of one observation with the sample of the others, whose variances are equal."""
    rng = np.random.default_rng(0)
    Y, P = autocorrelated(rng, 100, 8, 0.4), autocorrelated(rng, 100, 8, 0.4)
    P[:, :3] += Y[:, :3]
    P[:, 3:5] -= Y[:, 3:5]
    options = {"n_permutations": 25, "seed": 1, "alternative": alternative}
    found = permutation.permutation_pvalues(Y, P, tail="t", **options)
    counted = permutation.permutation_pvalues(Y, P, **options)
    units = [_columns.unit_columns(values) for values in (Y, P)]
    shuffled = np.arctanh(permutation.Phases(100, 25, 1).correlations(*(u.astype("f4") for u in units)))
    observed = np.arctanh(correlations.correlation(Y, P))
    tests = [
        stats.ttest_ind([z], null, alternative=alternative).pvalue
        for z, null in zip(observed, shuffled.T.astype(float), strict=True)
    ]
    rare = counted < 11 / 26
    assert rare.sum() >= 2
    np.testing.assert_allclose(found[rare], np.array(tests)[rare], rtol=1e-4)
    np.testing.assert_array_equal(found[~rare], counted[~rare])


@pytest.mark.parametrize("options", [{}, {"block_trs": 5}])
def test_permutation_test_tells_its_steps_and_ends_at_what_progress_raises(options, monkeypatch):
    monkeypatch.setattr(_columns, "SLAB_VALUES", 30 * 4)
    rng = np.random.default_rng(0)
    Y, P = rng.standard_normal((2, 30, 10))
    options = {"n_permutations": 20} | options
    seen = []
    p = permutation.permutation_pvalues(Y, P, progress=lambda *step: seen.append(step), **options)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    np.testing.assert_array_equal(p, permutation.permutation_pvalues(Y, P, **options))

    def progress(done, total):
        if done == 2:
            raise stop

    for stop in (Cancelled(), ValueError("of the caller's own")):
        with pytest.raises(type(stop)) as raised:
            permutation.permutation_pvalues(Y, P, progress=progress, **options)
        assert raised.value is stop


@given(n_rows=st.integers(8, 60), block=st.integers(1, 15), seed=st.integers(0, 99))
def test_shuffled_correlations_are_those_of_shuffled_rows(n_rows, block, seed):
    assume(n_rows // block >= 2)
    rng = np.random.default_rng(seed)
    Y, P = (v - v.mean(0) for v in rng.standard_normal((2, n_rows, 3)))
    Y, P = (v / np.linalg.norm(v, axis=0) for v in (Y, P))
    shuffles = permutation.Blocks(n_rows, block, 7, seed)
    blocks = np.split(np.arange(n_rows), range(block, n_rows, block))
    orders = [np.concatenate([blocks[i] for i in order]) for order in shuffles.orders]
    expected = [(Y * P[order]).sum(0) for order in orders]
    np.testing.assert_allclose(shuffles.correlations(Y, P), expected, atol=1e-6)


# --- folds, ceilings, summaries --------------------------------------------------------------------------


def test_fisher_combination_equals_scipy():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=(5, 7))
    expected = [stats.combine_pvalues(column, method="fisher").pvalue for column in p.T]
    np.testing.assert_allclose(correlations.combine_pvalues(p), expected)
    p[2, 3], p[:, 4] = np.nan, np.nan
    combined = correlations.combine_pvalues(p)
    assert combined[3] == pytest.approx(stats.combine_pvalues(np.delete(p[:, 3], 2)).pvalue)
    assert np.isnan(combined[4])


def test_noise_ceiling_is_what_the_true_signal_reaches():
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((3000, 4)) * [2.0, 1.0, 0.5, 0.0]
    repeats = signal + rng.standard_normal((5, 3000, 4)) + rng.standard_normal((5, 1, 4))
    ceiling = correlations.noise_ceiling(repeats)
    reached = correlations.correlation(repeats.mean(0)[:, :3], signal[:, :3])
    np.testing.assert_allclose(ceiling[:3], reached, atol=0.03)
    np.testing.assert_allclose(
        ceiling[:3], np.sqrt(np.array([4, 1, 0.25]) / (np.array([4, 1, 0.25]) + 0.2)), atol=0.03
    )
    assert ceiling[3] < 0.2
    np.testing.assert_allclose(correlations.normalized_correlation(reached, ceiling[:3]), 1, atol=0.04)


@pytest.mark.parametrize("q", [0.01, 0.05])
@pytest.mark.parametrize("phi", [0.0, 0.6])
@pytest.mark.parametrize("n_repeats", [2, 5])
def test_noise_reaches_the_ceiling_by_chance_as_seldom_as_asked(n_repeats, phi, q):
    rng = np.random.default_rng(0)
    repeats = np.stack([autocorrelated(rng, 240, 6000, phi) for _ in range(n_repeats)])
    lags = correlations.autocorrelation(repeats.mean(axis=0))
    ceiling = correlations.noise_ceiling(repeats)
    least = correlations.ceiling_by_chance(n_repeats, 240, autocorrelation=lags, q=q)
    assert 0.5 * q < (ceiling >= least).mean() < 1.8 * q
    assert (ceiling >= correlations.LEAST_CEILING).mean() > 0.15, "the floor alone is not chance"
    if phi == 0.6:
        white = correlations.ceiling_by_chance(n_repeats, 240, q=q)
        assert (ceiling >= white).mean() > 2.5 * q, "autocorrelation counts"


def test_ceiling_by_chance_of_a_case_by_hand():
    # 3 repeats of 100 independent rows: 3 pairs, so their mean r has a standard deviation of 0.1 / sqrt(3)
    r = stats.norm.isf(0.01) * 0.1 / np.sqrt(3)
    expected = np.sqrt(3 * r / (1 + 2 * r))
    assert correlations.ceiling_by_chance(3, 100) == pytest.approx(expected)
    assert correlations.ceiling_by_chance(2, 4) > 1, "no ceiling of four rows is above chance"


def test_autocorrelation_is_that_of_the_series():
    rng = np.random.default_rng(0)
    lags = correlations.autocorrelation(autocorrelated(rng, 4000, 30, 0.6))
    np.testing.assert_allclose(lags[:4], 0.6 ** np.arange(1, 5), atol=0.03)
    assert len(lags) == 399
    assert not correlations.autocorrelation(np.ones((50, 3))).any()
    assert len(correlations.autocorrelation(np.ones((9, 3)))) == 0


def test_noise_ceiling_does_not_depend_on_the_repeats_scales():
    """Repeats of other scales and offsets are z-scored as BOLD is: the ceiling is what the true signal reaches."""
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((300, 400))
    repeats = signal + rng.standard_normal((3, 300, 400))
    scaled = np.array([1.0, 0.5, 3.0])[:, None, None] * repeats + np.array([0.0, 700.0, -3.0])[:, None, None]
    mean = ((repeats - repeats.mean(1, keepdims=True)) / repeats.std(1, keepdims=True)).mean(0)
    ceiling = correlations.noise_ceiling(scaled)
    np.testing.assert_allclose(ceiling, correlations.noise_ceiling(repeats), atol=1e-10)
    assert ceiling.mean() == pytest.approx(correlations.correlation(mean, signal).mean(), abs=0.01)
    n, total = 3, mean.var(axis=0)  # the formula of Schoppe et al., with z-scored repeats
    expected = np.sqrt(((n**2 * total - n) / (n * (n - 1))).clip(0) / total)
    np.testing.assert_allclose(ceiling, expected, atol=1e-10)


def test_a_repeat_without_variance_or_repeats_that_cancel_have_no_ceiling():
    story = np.random.default_rng(0).standard_normal((2, 50, 3)).astype("f4")
    story[1, :, 0], story[1, :, 1] = 700.0, -story[0, :, 1]
    assert np.isnan(correlations.noise_ceiling(story)).tolist() == [True, True, False]


def test_noise_ceiling_of_equal_repeats_is_one_and_of_flat_ones_nan():
    story = np.random.default_rng(0).standard_normal((20, 3))
    story[:, 2] = 4.0
    np.testing.assert_allclose(correlations.noise_ceiling(np.stack([story, story + 1])), [1, 1, np.nan])


def test_noise_ceiling_of_repeats_that_are_not_finite_is_nan():
    repeats = np.random.default_rng(0).standard_normal((3, 20, 3))
    repeats[1, 4, 0], repeats[2, 5, 2] = np.nan, np.inf
    assert np.isnan(correlations.noise_ceiling(repeats)).tolist() == [True, False, True]


def test_low_ceilings_give_no_normalised_score():
    found = correlations.normalized_correlation([0.2, 0.2, 0.2], [0.5, 0.2, np.nan])
    np.testing.assert_allclose(found, [0.4, np.nan, np.nan])


def test_summary_leaves_out_undefined_voxels():
    summary = correlations.summarise([0.1, np.nan, 0.5], [True, True, False])
    assert summary["mean_score"] == pytest.approx(0.3)
    assert (summary["n_voxels"], summary["n_undefined"], summary["n_significant"]) == (3, 1, 1)
    assert summary["percent_significant"] == pytest.approx(100 / 3)
    none = correlations.summarise([0.1, 0.2], [False, False])
    assert none["n_significant"] == 0 and np.isnan(none["median_significant_score"])
    assert "n_significant" not in correlations.summarise([0.1])


def test_region_metrics_are_the_summary_of_each_region_alone():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=40)
    scores[::7] = np.nan
    significant = np.nan_to_num(scores) > 0.5
    masks = {"A/C": rng.random(40) < 0.4, "all": np.ones(40, bool), "none": np.zeros(40, bool)}
    metrics = correlations.region_metrics(scores, significant, masks)
    assert len(metrics) == 12
    for region, mask in masks.items():
        alone = correlations.summarise(scores[mask], significant[mask])
        for name in ("mean_score", "median_score", "n_voxels", "n_significant"):
            np.testing.assert_equal(metrics[f"{region}/{name}"], alone[name])
    assert correlations.region_metrics(scores, significant, {}) == {}
    untested = correlations.region_metrics(scores, None, masks)
    assert len(untested) == 9
    np.testing.assert_equal(untested, {name: metrics[name] for name in untested})


Y5 = np.random.default_rng(0).standard_normal((30, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: correlations.ceiling_by_chance(1, 30),
            "n_repeats must be a whole number of 2 or more, got 1",
        ),
        (lambda: correlations.ceiling_by_chance(2, 1), "n_rows must be a whole number of 2 or more, got 1"),
        (lambda: correlations.ceiling_by_chance(2, 30, q=1), "q must be a share between 0 and 0.5, got 1"),
        (lambda: correlations.correlation(Y5, Y5[:, :2]), r"one shape, got \(30, 3\) and \(30, 2\)"),
        (lambda: correlations.correlation(Y5[:1], Y5[:1]), "need at least 2 rows, got 1"),
        (lambda: correlations.correlation(Y5, np.full((30, 3), "a")), "Y_hat must be numbers, got dtype <U1"),
        (lambda: correlations.correlation_pvalues([0.1], "50"), "at least 3 rows, got n_rows='50'"),
        (lambda: correlations.correlation_pvalues([0.1], 2), "at least 3 rows, got n_rows=2"),
        (lambda: correlations.correlation_pvalues([1.1], 20), "r must lie within -1 and 1"),
        (lambda: correlations.correlation_pvalues([0.1], 20, alternative="both"), "got 'both'"),
        (lambda: permutation.permutation_pvalues(Y5, Y5, alternative="both"), "got 'both'"),
        (lambda: permutation.permutation_pvalues(Y5, Y5, tail="exact"), "counted, t; got 'exact'"),
        (lambda: permutation.permutation_pvalues(Y5, Y5, block_trs=10), "make 3 blocks, need 4 or more"),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, block_trs=0),
            "block_trs must be a whole number of 1 or more, got 0",
        ),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, block_trs=2.5),
            "a whole number of 1 or more, got 2.5",
        ),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, n_permutations=10.5),
            "a whole number of 19 or more, got 10.5",
        ),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, n_permutations="10"),
            "a whole number of 19 or more, got '10'",
        ),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, seed="a"),
            "seed must be a whole number of 0 or more, got 'a'",
        ),
        (lambda: permutation.permutation_pvalues(Y5[:7], Y5[:7]), "needs 8 rows or more, got 7"),
        (
            lambda: permutation.permutation_pvalues(Y5, Y5, block_trs=5, n_permutations=18),
            "n_permutations must be a whole number of 19 or more, got 18",
        ),
        (lambda: correlations.fdr([0.1, 1.2]), "p-values must lie within 0 and 1"),
        (lambda: correlations.fdr(0.01), r"must be \(n_voxels,\), got shape \(\)"),
        (lambda: correlations.fdr([[0.01, 0.2]]), r"got shape \(1, 2\): try np.ravel"),
        (lambda: correlations.fdr([0.1], q=0), "q must lie within 0 and 1"),
        (lambda: correlations.noise_ceiling(Y5), r"got shape \(30, 3\)"),
        (lambda: correlations.noise_ceiling(Y5[None]), "2 or more repeats"),
        (lambda: correlations.summarise([0.1, 0.2], [True]), "shape of scores"),
        (
            lambda: correlations.summarise([0.1, 0.2], [0.001, 0.9]),
            r"must be flags.*got float64 such as \[0.001, 0.9\]",
        ),
        (lambda: correlations.summarise([0.1, 0.2], [1.0, 1.0]), r"pass a run's result.significant, or fdr"),
        (lambda: correlations.summarise([0.1, 0.2], [1, 2]), "must be flags, .* got int64"),
        (
            lambda: correlations.region_metrics([0.1, 0.2], [0.01, 0.9], {"AC": [1, 1]}),
            "significant must be flags",
        ),
        (
            lambda: correlations.region_metrics([0.1, 0.2], [1, 0], {"AC": [True]}),
            r"Region 'AC': .*got \(1,\)",
        ),
        (
            lambda: correlations.region_metrics([0.1, 0.2], [1], {"AC": [1, 1]}),
            r"\(2,\) and \(1,\), got \(2,\)",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
