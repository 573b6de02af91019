"""Noise ceilings on the map: those that noise reaches by chance are not drawn as the others are."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from encoding_nb.panel.brain_tab import LEAST_CEILING, BrainTab, autocorrelation, ceiling_by_chance
from encoding_nb.panel.session import Session
from encoding_nb.scoring import noise_ceiling

from .test_brain_view import make_mapped


def smooth_noise(rng, shape, weight):
    """Series whose autocorrelation is weight ** lag."""
    noise = rng.standard_normal(shape)
    for row in range(1, shape[-2]):
        noise[..., row, :] = weight * noise[..., row - 1, :] + np.sqrt(1 - weight**2) * noise[..., row, :]
    return noise


def heard(repeats):
    """A result with the ceilings of these repeats (n_repeats, n_rows, n_voxels), and its data."""
    ceiling = noise_ceiling(repeats)
    result = replace(
        make_mapped(),
        noise_ceiling=ceiling,
        story_noise_ceiling={"one": ceiling},
        measured={"one": repeats.mean(axis=0)},
    )
    return result, SimpleNamespace(stories={"one": SimpleNamespace(repeats=repeats)})


@pytest.mark.parametrize("weight", [0.0, 0.6])
@pytest.mark.parametrize("n_repeats", [2, 5])
def test_noise_seldom_has_a_ceiling_above_chance(weight, n_repeats):
    rng = np.random.default_rng(0)
    repeats = smooth_noise(rng, (n_repeats, 240, 4000), weight)
    result, data = heard(repeats)
    least = ceiling_by_chance(result, data)
    above = np.mean(result.noise_ceiling >= least)
    assert 0.004 < above < 0.02, (least, above)
    assert np.mean(result.noise_ceiling >= 0.25) > 0.15, "which is why 0.25 does not suffice"


def test_a_signal_is_above_chance():
    rng = np.random.default_rng(0)
    repeats = smooth_noise(rng, (5, 240, 1000), 0.5) + smooth_noise(rng, (240, 1000), 0.5)
    result, data = heard(repeats)
    assert np.mean(result.noise_ceiling >= ceiling_by_chance(result, data)) > 0.99


def test_many_rows_leave_the_floor_of_normalised_scores():
    rng = np.random.default_rng(0)
    result, data = heard(rng.standard_normal((10, 5000, 20)))
    assert ceiling_by_chance(result, data) == LEAST_CEILING
    assert ceiling_by_chance(result, None) == ceiling_by_chance(make_mapped(), data) == LEAST_CEILING


def test_autocorrelation_is_that_of_the_series():
    rng = np.random.default_rng(0)
    found = autocorrelation(smooth_noise(rng, (4000, 30), 0.6))
    np.testing.assert_allclose(found[:4], 0.6 ** np.arange(1, 5), atol=0.03)
    assert not autocorrelation(np.ones((50, 3))).any() and len(autocorrelation(np.ones((9, 3)))) == 0


def test_the_map_says_what_a_ceiling_is_and_which_voxels_are_at_chance():
    full = make_mapped()
    rng = np.random.default_rng(0)
    n = len(full.scores)
    ceiling = np.where(np.arange(n) < n // 2, 0.1, 0.8)
    result = replace(full, noise_ceiling=ceiling, story_noise_ceiling={"one": ceiling})
    data = SimpleNamespace(stories={"one": SimpleNamespace(repeats=rng.standard_normal((3, 30, 2)))})
    session = Session(data)
    session.fitted_on = data
    tab = BrainTab(session, height=128)
    tab.look(True)
    tab.show(result)
    tab.values.value, tab.voxels.value = "noise ceiling", "hide"
    assert tab.drawn(30)
    assert "an estimate, single voxels can exceed it" in tab.view._scale["units"]
    np.testing.assert_array_equal(tab.view._significant, ceiling > 0.5)
    assert (
        tab.view._scale["note"].startswith("hidden: below 0.")
        and "not above chance" in tab.view._scale["note"]
    )
    tab.values.value = "score"
    assert tab.drawn(30) and tab.view._scale["note"] == "hidden: not significant"
