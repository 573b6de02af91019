"""Slow waves of BOLD: against scipy's discrete cosine transform, and in a run."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import dct, idct

from encoding_nb.design import high_pass, slow_share, slow_waves


def by_dct(X, tr, period):
    """Coefficients of periods of `period` seconds and longer set to 0, but for the mean's."""
    coefficients = dct(X, axis=0, norm="ortho")
    k = np.arange(len(X))
    coefficients[(k > 0) & (2 * len(X) * tr >= period * k * (1 - 1e-12))] = 0
    return idct(coefficients, axis=0, norm="ortho")


@given(
    n_rows=st.integers(2, 300),
    tr=st.floats(0.3, 4.0),
    period=st.floats(5.0, 500.0),
    seed=st.integers(0, 10),
)
def test_equals_a_cosine_transform_without_its_slow_coefficients(n_rows, tr, period, seed):
    X = np.random.default_rng(seed).normal(size=(n_rows, 3)) * 5 + 700
    found = high_pass(X, tr=tr, period=period)
    np.testing.assert_allclose(found, by_dct(X, tr, period), atol=1e-8)
    np.testing.assert_allclose(found.mean(axis=0), X.mean(axis=0), rtol=1e-9)
    waves = slow_waves(n_rows, tr, period)
    np.testing.assert_allclose(waves.T @ waves, np.eye(waves.shape[1]), atol=1e-9)
    slow = (X - X.mean(axis=0)).var(axis=0) - found.var(axis=0)
    np.testing.assert_allclose(slow_share(X, tr=tr, period=period), slow / X.var(axis=0), atol=1e-8)


def test_the_waves_are_those_of_spm():
    """A recording of 300 TRs of 2 s has nine waves of 128 s and longer: 1200 / 128 is 9.4."""
    assert slow_waves(300, 2.0, 128.0).shape == (300, 9)
    assert slow_waves(320, 2.0, 128.0).shape == (320, 10)  # the tenth has a period of 128 s exactly
    assert slow_waves(20, 2.0, 128.0).shape == (20, 0)


def test_what_is_slow_goes_and_what_is_fast_stays():
    t = 2.0 * np.arange(400)
    slow, fast = np.cos(np.pi * 5 * (np.arange(400) + 0.5) / 400), np.sin(2 * np.pi * t / 20)
    X = np.column_stack([slow, fast, slow + fast, np.full(400, 3.0)])
    found = high_pass(X, tr=2.0, period=128.0)
    np.testing.assert_allclose(found[:, 0], 0, atol=1e-12)
    assert np.corrcoef(found[:, 2], fast)[0, 1] > 0.99 and np.ptp(found[:, 3]) < 1e-12
    assert slow_share(X, tr=2.0, period=128.0)[0] == pytest.approx(1) and np.isnan(
        slow_share(X, tr=2.0, period=128.0)[3]
    )
    assert high_pass(X.astype("f4"), tr=2.0, period=128.0).dtype == np.float32


@pytest.mark.parametrize(
    ("options", "says"), [({"tr": 0.0}, "tr above 0, got 0.0"), ({"period": -1.0}, "period above 0")]
)
def test_times_must_be_above_0(options, says):
    with pytest.raises(ValueError, match=says):
        high_pass(np.zeros((10, 1)), **{"tr": 2.0, "period": 128.0} | options)
