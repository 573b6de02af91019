"""Word rate, its null and the split check on made-up files of Alice's layout, against a calculation in plain numpy."""

import numpy as np
import pytest

from encoding_nb import Settings, load_assembly, run, shift_test, split_check
from encoding_nb.datasets import over_listeners
from encoding_nb.datasets.alice import REGIONS
from encoding_nb.design import TRIMMINGS

from ..made_lebel import textgrid

N_ROWS, N_LISTENERS, N_SHIFTS = 362, 6, 39
PLANTED = {"LPTL": 0.5, "LIPL": 0.3}  # correlation of the BOLD with the response to word rate


def nested(**settings):
    return Settings(use_train_test_split=False, trimming=TRIMMINGS["alice"], **settings)


def word_rate(**settings):
    return nested(modality="wordrate", alphas=(10.0,), **settings)


@pytest.fixture(scope="module")
def middles():
    """Seconds in the TextGrid's time of the middle of each word; the speed changes every 4 s."""
    rng, at, found = np.random.default_rng(5), 20.05, []
    speeds = rng.uniform(0.1, 0.5, 200)
    while at < 742:
        length = speeds[int(at / 4)] + 0.1 * rng.random()
        found.append((round(at, 4), round(at + length, 4)))
        at += length + 0.02
    return np.array(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, middles):
    """Six listeners and s33, whose file has only zeros; noise with an autocorrelation of 0.6, on a drift."""
    root = tmp_path_factory.mktemp("alice")
    root.joinpath("Alice.TextGrid").write_text(
        textgrid([("word", [(12.0, 20.05, "sp"), *((start, end, "rabbit") for start, end in middles)])])
    )
    root.joinpath("10mm").mkdir()
    rng, response = np.random.default_rng(6), delayed(counted(middles))[:, 1:3].sum(axis=1)
    response = (response - response.mean()) / response.std()
    for number in (*range(18, 18 + N_LISTENERS), 33):
        noise = rng.standard_normal((N_ROWS, 6))
        for row in range(1, N_ROWS):
            noise[row] = 0.6 * noise[row - 1] + 0.8 * noise[row]
        for region, r in PLANTED.items():
            column = REGIONS.index(region)
            noise[:, column] = r * response + np.sqrt(1 - r**2) * noise[:, column]
        values = 900 + 3 * noise + 0.01 * np.arange(N_ROWS)[:, None] * (number != 33)
        np.savetxt(root / "10mm" / f"s{number}-timecourses.txt", values if number != 33 else 0 * values)
    return root


@pytest.fixture(scope="module")
def everyone(folder):
    with pytest.warns(UserWarning, match="s33 left out, the time courses do not vary; 6 listeners remain"):
        return load_assembly(folder, subject="all")


# ---------------------------------------------------------------------- the same in plain numpy


def counted(middles):
    """(N_ROWS,) words in the two seconds around each row's time."""
    centres = 20 + 2.0 * np.arange(N_ROWS)
    at = middles.mean(axis=1)
    return np.array([((at >= centre - 1) & (at < centre + 1)).sum() for centre in centres], float)


def delayed(rate):
    """(N_ROWS, 4): the rate 1 to 4 rows ago; 0 before the beginning."""
    return np.column_stack([np.concatenate([np.zeros(delay), rate[:-delay]]) for delay in (1, 2, 3, 4)])


def z_scored(values, by):
    return (values - by.mean(axis=0)) / by.std(axis=0)


def brute_force(folder, middles, high_pass):
    """(1 + N_SHIFTS, 6): mean over listeners of the mean r over five folds, unshifted and shifted."""
    bold = []
    for number in range(18, 18 + N_LISTENERS):
        raw = np.loadtxt(folder / "10mm" / f"s{number}-timecourses.txt")
        powers = np.vander(np.linspace(-1, 1, N_ROWS), 5)  # spans Legendre polynomials up to order 4
        bold.append(raw - powers @ np.linalg.lstsq(powers, raw, rcond=None)[0])
    Y, X = np.hstack(bold)[4:], delayed(counted(middles))[4:]
    X = z_scored(X, X)
    n = len(Y)
    if high_pass is not None:
        times = np.arange(n) + 0.5
        waves = [np.cos(np.pi * k * times / n) for k in range(1, n) if 2 * n * 2.0 / k >= high_pass]
        waves = np.column_stack([np.ones(n), *waves])
        Y = Y - waves @ np.linalg.lstsq(waves, Y, rcond=None)[0]
    shifts = [0, *np.linspace(20, n - 20, N_SHIFTS).round().astype(int)]
    found = np.empty((len(shifts), Y.shape[1]))
    for number, shift in enumerate(shifts):
        moved, scores = np.roll(Y, shift, axis=0), []
        for held in np.array_split(np.arange(n), 5):
            train = np.array([row for row in range(n) if row < held[0] - 40 or row > held[-1] + 40])
            features, targets = X - X[train].mean(axis=0), z_scored(moved, moved[train])
            squares = features[train].T @ features[train] + 10 * np.eye(4)
            predicted = features[held] @ np.linalg.solve(squares, features[train].T @ targets[train])
            pairs = zip(predicted.T, targets[held].T, strict=True)
            scores.append([np.corrcoef(p, y)[0, 1] for p, y in pairs])
        found[number] = np.mean(scores, axis=0)
    return found.reshape(len(shifts), N_LISTENERS, 6).mean(axis=1)


# ---------------------------------------------------------------------- tests


@pytest.mark.parametrize("high_pass", [None, 128.0])
def test_word_rate_and_its_null_equal_plain_numpy(everyone, folder, middles, high_pass):
    settings = word_rate(high_pass=high_pass)
    expected = brute_force(folder, middles, high_pass)
    found = shift_test(everyone, settings, where="regions", n_shifts=N_SHIFTS, progress=False)
    assert found.names == REGIONS and found.nulls.shape == (N_SHIFTS, 6)
    np.testing.assert_allclose(found.observed, expected[0], atol=1e-5)
    np.testing.assert_allclose(found.nulls, expected[1:], atol=1e-5)
    np.testing.assert_allclose(found.null_mean, expected[1:].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.null_sd, expected[1:].std(axis=0, ddof=1), atol=1e-5)
    np.testing.assert_allclose(found.pvalues, (expected >= expected[0]).mean(axis=0))
    result = run(everyone, settings, progress=False)
    assert result.pvalues is None and result.significant is None
    over = over_listeners(result.scores, result.voxel_names)
    np.testing.assert_allclose([over[region].mean for region in REGIONS], expected[0], atol=1e-5)


def test_only_the_planted_regions_are_found_with_their_size(everyone):
    found = shift_test(everyone, word_rate(), where="regions", n_shifts=N_SHIFTS, progress=False)
    assert found.least_p == 1 / (1 + N_SHIFTS)
    for number, region in enumerate(REGIONS):
        assert abs(found.observed[number] - PLANTED.get(region, 0)) < 3 * found.null_sd[number]
        assert (found.corrected[number] == found.least_p) == (region in PLANTED)
    assert found.significant.tolist() == [region in PLANTED for region in REGIONS]
    assert np.all(np.abs(found.null_mean) < 0.03)


def test_a_model_of_time_alone_tells_folds_that_leak(everyone):
    shuffled = split_check(everyone, nested(outer_folding_type="chunked", chunk_length=1), progress=False)
    assert shuffled.score > 0.5 and shuffled.leaks and "they leak" in shuffled.sentence
    chunks = split_check(everyone, nested(outer_folding_type="chunked"), progress=False)
    assert 0.05 < chunks.score < 0.5 and chunks.leaks
    apart = split_check(everyone, nested(), progress=False)
    assert abs(apart.score) < 0.05 and not apart.leaks and "do not leak" in apart.sentence
