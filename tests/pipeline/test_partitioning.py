"""Banded ridge and variance partitioning, on data whose shares are known."""

from dataclasses import replace

import numpy as np
import pytest
from joblib import Memory

from encoding_nb import Settings, Story, Words, scoring
from encoding_nb.assembly import Assembly
from encoding_nb.design import Trimming, downsampling
from encoding_nb.features import word_rate
from encoding_nb.pipeline import partitioning
from encoding_nb.ridge import cv, folds
from encoding_nb.scoring import correlations, permutation
from encoding_nb.settings import SettingsError

NO_CACHE = Memory(None)
ALPHAS = (1.0, 10.0, 100.0, 1000.0)
MEANING = np.array([1.0, -1.0, 0.5, -0.5, 0.2])


def made_bands(n_rows=300, n_voxels=12, seed=0):
    """Two bands of 3 and 40 columns; a third of the voxels follows each, a third both."""
    rng = np.random.default_rng(seed)
    bands = [rng.standard_normal((n_rows, width)) for width in (3, 40)]
    weights = [rng.standard_normal((width, n_voxels)) / np.sqrt(width) for width in (3, 40)]
    weights[0][:, 4:8] = 0
    weights[1][:, :4] = 0
    Y = sum(band @ w for band, w in zip(bands, weights, strict=True)) + rng.standard_normal(
        (n_rows, n_voxels)
    )
    return [b - b.mean(0) for b in bands], Y - Y.mean(0)


def fitted_parts(bands, Y, n_train=200, **options):
    inner = folds.make_folds(n_train, folding_type="kfold", n_folds=4)
    train, test = [b[:n_train] for b in bands], [b[n_train:] for b in bands]
    return partitioning.banded_predictions(train, Y[:n_train], test, alphas=ALPHAS, inner=inner, **options)


def test_parts_sum_to_the_prediction_and_follow_their_bands():
    bands, Y = made_bands()
    parts = fitted_parts(bands, Y)
    held = Y[200:] - Y[200:].mean(0)
    r2 = correlations.r2(held, sum(parts))
    shares = partitioning.product_measure(held, parts)
    np.testing.assert_allclose(sum(shares), r2, atol=1e-5)
    # the formula, in float64
    squares = (held**2).sum(0)
    for part, share in zip(parts, shares, strict=True):
        expected = (part * (2 * held - sum(parts))).sum(0) / squares
        np.testing.assert_allclose(share, expected, atol=1e-5)
    assert (shares[1][:4] < 0.1).all() and (shares[0][4:8] < 0.1).all()
    assert (shares[0][:4] > 0.2).all() and shares[1][4:8].min() > 0.1


def test_one_band_is_plain_ridge_selected_by_r2():
    bands, Y = made_bands()
    (part,) = fitted_parts(bands[1:], Y)
    plain = cv.ridge_cv(
        bands[1][:200], Y[:200], X_test=bands[1][200:], alphas=ALPHAS, use_corr=False,
        folds=folds.make_folds(200, folding_type="kfold", n_folds=4),
    )  # fmt: skip
    np.testing.assert_allclose(part, plain.predictions, atol=2e-4)


def test_weights_of_bands():
    weights = partitioning.band_weights(3, 12, seed=1)
    assert weights.shape == (12, 3) and (weights > 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-6)
    assert (weights[:3].argmax(1) == [0, 1, 2]).all() and weights[:3].max(1).min() > 0.99
    np.testing.assert_array_equal(weights, partitioning.band_weights(3, 12, seed=1))
    assert partitioning.band_weights(1, 12).tolist() == [[1.0]]


@pytest.fixture(scope="module")
def assembly(tmp_path_factory):
    """Voxel 0 follows word rate, voxel 1 the words' vectors, voxel 2 both, voxel 3 nothing."""
    rng = np.random.default_rng(4)
    vectors = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    table = rng.standard_normal((9, 5))
    vectors.write_text("".join(f"w{i} {' '.join(f'{x:.6f}' for x in row)}\n" for i, row in enumerate(table)))
    stories = {name: make_story(name, rng, table) for name in ("a", "b", "c", "z")}
    data = Assembly("S", 2.0, stories, test_stories=("z",))
    settings = Settings(
        modality="embeddings", embedding=str(vectors), joined_with=("wordrate",), trimming=Trimming(),
        fir_delays=(2,), alphas=ALPHAS, downsample_method="sum",
    )  # fmt: skip
    return data, settings


def make_story(name, rng, table, n_trs=140):
    onsets = np.sort(rng.uniform(0, 2 * n_trs, 400))
    kinds = rng.integers(0, 9, 400)
    words = Words([f"w{k}" for k in kinds], onsets, onsets)
    tr_times = 2.0 * np.arange(n_trs)
    rate = word_rate(words, tr_times).ravel()
    meaning = downsampling.downsample(table[kinds], words.times, tr_times, method="sum") @ MEANING
    # what the vectors sum to goes along with how many words there are: take that part out of the truth
    meaning -= rate * (rate @ meaning) / (rate @ rate)
    parts = [rate / rate.std(), meaning / meaning.std()]
    bold = np.stack([parts[0], parts[1], parts[0] + parts[1], np.zeros(n_trs)], axis=1)
    bold = np.roll(bold, 2, axis=0) + 0.5 * rng.standard_normal((n_trs, 4))
    return Story(name, words, tr_times, bold.astype(np.float32))


@pytest.fixture(scope="module")
def found(assembly):
    return partitioning.partition(*assembly, voxels=np.arange(4), memory=NO_CACHE)


def test_each_voxels_variance_goes_to_what_it_follows(found):
    rate, meaning = found.unique["wordrate"], found.unique["embeddings"]
    assert rate[0] > 0.3 and meaning[0] < 0.1
    assert meaning[1] > 0.3 and rate[1] < 0.1
    assert rate[2] > 0.1 and meaning[2] > 0.1
    assert found.joint[3] < 0.1
    assert found.significant[:3].all() and not found.significant[3]
    np.testing.assert_allclose(sum(found.split.values()), found.joint, atol=1e-5)
    np.testing.assert_allclose(found.unique["wordrate"], found.joint - found.alone["embeddings"])
    assert "4 voxels fitted" in repr(found)


def test_by_default_only_predicted_voxels_are_fitted(assembly):
    found = partitioning.partition(*assembly, memory=NO_CACHE)
    assert np.isfinite(found.joint[:3]).all() and np.isnan(found.joint[3])


def test_refusals(assembly):
    data, settings = assembly
    with pytest.raises(SettingsError, match='got "embeddings" alone'):
        partitioning.partition(data, replace(settings, joined_with=()), memory=NO_CACHE)
    with pytest.raises(SettingsError, match="use_train_test_split=True"):
        partitioning.partition(data, replace(settings, use_train_test_split=False), memory=NO_CACHE)
    with pytest.raises(ValueError, match=r"mask of 4 voxels, got shape \(3,\)"):
        partitioning.partition(data, settings, voxels=np.ones(3, bool), memory=NO_CACHE)
    with pytest.raises(ValueError, match="numbers from 0 to 3, got 2 to 7"):
        partitioning.partition(data, settings, voxels=[2, 7], memory=NO_CACHE)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"voxels": []}, "voxels: expected at least one voxel, got none; leave voxels out"),
        ({"voxels": np.zeros(4, bool)}, "voxels: expected at least one voxel, got none"),
        (
            {"voxels": [1.5]},
            r"mask of 4 voxels or whole numbers in a list, got an array of float64 of shape \(1,\)",
        ),
        ({"voxels": [[1, 2]]}, r"got an array of int64 of shape \(1, 2\)"),
        ({"voxels": ["a"]}, "voxels: expected a mask of 4 voxels"),
        ({"n_iter": 0}, "n_iter must be .* 1 or more, got 0"),
        ({"n_iter": 2.5}, "n_iter must be .* got 2.5"),
        ({"n_iter": "5"}, "n_iter must be .* got '5'"),
    ],
)
def test_refusals_before_any_work(assembly, options, says, monkeypatch):
    monkeypatch.setattr(partitioning, "design_matrices", lambda *a, **k: pytest.fail("work was begun"))
    with pytest.raises(ValueError, match=says):
        partitioning.partition(*assembly, memory=NO_CACHE, **options)


def test_voxels_that_nothing_predicts_are_not_shared_out(assembly, monkeypatch):
    monkeypatch.setattr(partitioning, "_predicted_voxels", lambda *a: np.array([], int))
    with pytest.raises(ValueError, match="no variance to partition"):
        partitioning.partition(*assembly, memory=NO_CACHE)


@pytest.mark.parametrize("significance", ["permutation", "parametric"])
def test_chance_is_what_the_settings_say(assembly, significance):
    """Unrelated slow series: the formula calls many of them predicted, the permutation test few."""
    rng = np.random.default_rng(3)
    slow = np.apply_along_axis(np.convolve, 2, rng.standard_normal((2, 400, 309)), np.ones(10), mode="valid")
    Y, Y_hat = slow.transpose(0, 2, 1)
    settings = replace(assembly[1], significance=significance, fdr_q=0.2, n_permutations=300, block_trs=30)
    found = partitioning._significant(Y, Y_hat, settings).mean()
    assert (found > 0.15) if significance == "parametric" else (found < 0.03)


def test_voxels_are_chosen_and_called_significant_by_the_settings_test(assembly, monkeypatch):
    data, settings = assembly
    asked = []
    made = permutation.permutation_pvalues
    monkeypatch.setattr(scoring, "permutation_pvalues", lambda *a, **o: asked.append(o) or made(*a, **o))
    options = {"n_permutations": 99, "block_trs": 7, "seed": 4}
    partitioning.partition(data, replace(settings, **options), memory=NO_CACHE)
    expected = options | {"alternative": "greater", "tail": "normal"}
    assert asked == [expected, expected]
    partitioning.partition(data, replace(settings, significance="parametric"), memory=NO_CACHE)
    assert len(asked) == 2


def test_the_settings_seed_draws_the_ratios_that_are_tried(assembly, monkeypatch):
    asked, made = [], partitioning.band_weights

    def drawn(n_bands, n_iter, *, seed):
        asked.append((n_bands, n_iter, seed))
        return made(n_bands, n_iter, seed=seed)

    monkeypatch.setattr(partitioning, "band_weights", drawn)
    data, settings = assembly
    partitioning.partition(data, replace(settings, seed=6), voxels=[0], n_iter=9, memory=NO_CACHE)
    assert asked == [(2, 9, 6), (1, 9, 6), (1, 9, 6)]
