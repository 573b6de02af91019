"""The ends of a colour scale that are taken from the data."""

import numpy as np
import pytest

from encoding_nb.brain import value_limits


@pytest.mark.parametrize(
    ("vmin", "vmax"), [(0.9, None), (0.7, None), (None, -0.95), (None, 0.0), (None, None)]
)
@pytest.mark.parametrize("cmap", ["inferno", "RdBu_r"])
@pytest.mark.parametrize(
    "values", [[-0.1, 0.2, 0.7], [0.8, 0.8], [-0.9, -0.9], [1.0, 1.0, 0.99], [-1.0, -1.0]]
)
def test_ends_of_correlations_lie_within_1(values, cmap, vmin, vmax):
    low, high = value_limits(np.array(values), cmap=cmap, vmin=vmin, vmax=vmax)
    assert -1 <= low < high <= 1
    assert vmin in (None, low) and vmax in (None, high)


def test_ends_that_are_given_hold():
    values = np.array([-0.1, 0.2, 0.7])
    assert value_limits(values, cmap="inferno", vmin=0.0, vmax=3.0) == (0.0, 3.0)
    low, high = value_limits(values, cmap="inferno", vmin=1.5, vmax=None)
    assert low == 1.5 < high
    low, high = value_limits(values, cmap="inferno", vmin=None, vmax=-1.0)
    assert low < high == -1.0


def test_other_values_are_not_limited():
    assert value_limits(np.array([2.0, 6.0]), cmap="viridis", vmin=7.0, vmax=None) == (7.0, 8.0)
    assert value_limits(np.array([5.0, 5.0]), cmap="viridis", vmin=None, vmax=None)[1] == pytest.approx(5.0)
