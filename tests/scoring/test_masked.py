"""Masked values are not scored as if they were measured."""

import numpy as np
import pytest

from encoding_nb.scoring import correlations

Y = np.random.default_rng(0).standard_normal((2, 30, 3))
MASKED = np.ma.array(Y, mask=np.arange(180).reshape(2, 30, 3) == 7)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: correlations.correlation(MASKED[0], Y[0]),
            r"Y must not have masked values, got 1 of 90 masked; leave",
        ),
        (lambda: correlations.correlation(Y[0], MASKED[0]), "Y_hat must not have masked values"),
        (lambda: correlations.r2(MASKED[0], Y[0]), r"fill in NaN with \.filled"),
        (lambda: correlations.noise_ceiling(MASKED), "repeats must not have masked values, got 1 of 180"),
        (lambda: correlations.noise_ceiling(Y.astype(str)), "repeats must be numbers, got dtype <U"),
        (lambda: correlations.noise_ceiling(Y[:, :1]), r"at least 2 rows, got shape \(2, 1, 3\)"),
    ],
)
def test_values_without_a_number_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mask_that_hides_nothing_and_values_filled_in():
    open_mask = np.ma.array(Y, mask=False)
    r = correlations.correlation(Y[0], Y[1])
    np.testing.assert_array_equal(correlations.correlation(open_mask[0], open_mask[1]), r)
    filled = correlations.correlation(MASKED[0].filled(np.nan), Y[1])
    assert np.isnan(filled).tolist() == [False, True, False] and filled[0] == r[0]
