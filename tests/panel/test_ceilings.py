"""Noise ceilings on the map: those that noise reaches by chance are not drawn as the others are."""

from dataclasses import replace

import numpy as np
import pytest

from encoding_nb.panel.brain_tab import BrainTab
from encoding_nb.panel.session import Session

from .test_brain_view import make_mapped


@pytest.fixture(scope="module")
def mapped():
    """Half of the voxels have a ceiling below that of chance, which is 0.4."""
    full = make_mapped()
    n = len(full.scores)
    ceiling = np.where(np.arange(n) < n // 2, 0.3, 0.8)
    return replace(
        full, noise_ceiling=ceiling, story_noise_ceiling={"one": ceiling}, story_chance_ceiling={"one": 0.4}
    )


@pytest.fixture
def tab(mapped):
    made = BrainTab(Session(None), height=128)
    made.look(True)
    made.show(mapped)
    return made


def test_the_map_says_what_a_ceiling_is_and_which_voxels_are_at_chance(tab, mapped):
    tab.values.value, tab.voxels.value = "noise ceiling", "hide"
    assert tab.drawn(30)
    assert "an estimate, single voxels can exceed it" in tab.view._scale["units"]
    np.testing.assert_array_equal(tab.view._significant, mapped.noise_ceiling > 0.5)
    assert tab.view._scale["note"] == "hidden: below 0.40, not above chance"
    tab.values.value = "score"
    assert tab.drawn(30) and tab.view._scale["note"] == "hidden: not significant (permutation test)"


def test_shares_of_a_ceiling_are_shown_where_it_is_above_chance(tab, mapped):
    tab.values.value = "share of the ceiling"
    assert tab.drawn(30)
    expected = np.where(mapped.noise_ceiling > 0.5, mapped.scores / 0.8, np.nan)
    np.testing.assert_allclose(tab.view._values, expected)
    assert "an estimate, single voxels can exceed it" in tab.view._scale["units"]
    np.testing.assert_array_equal(tab.view._significant, mapped.significant)


def test_scores_over_those_of_shifted_bold(tab, mapped):
    assert "score over shifted BOLD" not in tab.values.options
    null = np.full(len(mapped.scores), 0.08)
    tab.show(replace(mapped, null_mean=null, null_sd=null))
    tab.values.value = "score over shifted BOLD"
    assert tab.drawn(30)
    np.testing.assert_allclose(tab.view._values, mapped.scores - 0.08)
    assert tab.view._scale["units"] == "r less its mean with shifted BOLD"
