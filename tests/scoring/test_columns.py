"""Statistics of columns: one definition for design, ridge and scores, against scipy and numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from encoding_nb import _columns
from encoding_nb.design import standardize
from encoding_nb.ridge import make_folds, ridge_cv
from encoding_nb.ridge._arrays import NumpyArrays
from encoding_nb.ridge._fit import Tile, held_out_rows
from encoding_nb.scoring import correlation


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(level=st.floats(0.01, 1000), steps=st.integers(0, 24), n=st.integers(62, 200), seed=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_a_column_is_constant_for_all_or_for_none(dtype, level, steps, n, seed):
    """A voxel whose values lie some steps of rounding apart: in the design, the ridge and the scores."""
    rng, level = np.random.default_rng(seed), dtype(level)
    Y = level + np.spacing(level) * rng.integers(0, steps + 1, (n, 1)).astype(dtype)
    X, varied = rng.standard_normal((n, 3)), rng.standard_normal((n, 1)).astype(dtype)
    constant = _columns.constant_columns(Y)[0]
    if steps <= 4:
        assert constant
    assert (standardize(Y, quiet=True) == 0).all() == constant
    fitted = ridge_cv(X, Y, alphas=[1.0], folds=make_folds(n, n_folds=3), X_test=X)
    assert (len(fitted.constant_voxels) == 1) == constant
    assert np.isnan(correlation(Y, varied))[0] == np.isnan(correlation(varied, Y))[0] == constant
    assert np.isinf(_columns.moments(Y)[1])[0] == constant


def test_moments_and_correlations_equal_scipy_whatever_the_slabs(monkeypatch):
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((2, 50, 11)) * rng.uniform(0.1, 9, 11) + 100
    A[:, 4] = 7.0
    for values in (60, 1_000_000):
        monkeypatch.setattr(_columns, "SLAB_VALUES", values)
        means, deviations = _columns.moments(A)
        np.testing.assert_allclose(means, A.mean(0))
        np.testing.assert_allclose(deviations, np.where(np.arange(11) == 4, np.inf, A.std(0)))
        np.testing.assert_allclose((A - means) / deviations, standardize(A, quiet=True), atol=1e-12)
        r = [np.nan if i == 4 else stats.pearsonr(A[:, i], B[:, i]).statistic for i in range(11)]
        np.testing.assert_allclose(_columns.pearson(A, B), r)
        units = _columns.unit_columns(A), _columns.unit_columns(B)
        np.testing.assert_allclose(_columns.dot(*units), r)


def test_mean_of_defined_leaves_out_folds_without_a_score():
    r = np.array([[0.2, 0.9, np.nan], [0.4, np.nan, np.nan]])
    np.testing.assert_allclose(_columns.mean_of_defined(r), [0.3, 0.9, np.nan])


def test_the_ridges_mean_over_folds_is_mean_of_defined():
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((60, 5)), rng.standard_normal((60, 3))
    folds = make_folds(60, folding_type="kfold", n_folds=3)
    Y[folds[1].test, 1] = 0.25
    options = {"alphas": [1.0, 10.0], "return_all_scores": True, "dtype": np.float64}
    each = np.stack([ridge_cv(X, Y, folds=[fold], **options).all_cv_scores for fold in folds])
    assert np.isnan(each[1, :, 1]).all()
    together = ridge_cv(X, Y, folds=folds, **options).all_cv_scores
    np.testing.assert_allclose(together, _columns.mean_of_defined(each), atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_the_ridges_tiles_are_centred_as_columns_are(dtype, monkeypatch):
    """Their form is transposed, for products and for a GPU."""
    monkeypatch.setattr(NumpyArrays, "columns_at_once", 4)
    rng = np.random.default_rng(0)
    block = (100 * rng.standard_normal((40, 9)) + 300).astype(dtype)
    block[:, 2] = 3
    test = np.arange(5, 30)
    fit = type("Fit", (), {"xp": NumpyArrays(), "use_corr": True})
    found, raw, about_mean = held_out_rows(fit, Tile(block, block.dtype, block.astype(np.float64)), test)
    centred, means, squares = _columns.centred(block[test])
    np.testing.assert_allclose(found.T, centred, atol=1e-10)
    np.testing.assert_allclose(raw, squares + len(test) * means**2)
    np.testing.assert_allclose(about_mean, np.where(squares == 0, np.nan, squares))


def test_columns_that_are_not_finite_are_nan():
    A = np.random.default_rng(0).standard_normal((20, 3))
    A[4, 0], A[5, 1] = np.nan, np.inf
    assert np.isnan(_columns.centred(A)[2]).tolist() == [True, True, False]
    for found in (_columns.unit_columns(A), standardize(A)):
        assert np.isnan(found[:, :2]).all() and np.isfinite(found[:, 2]).all()
    np.testing.assert_array_equal(np.isnan(_columns.pearson(A, A)), [True, True, False])
