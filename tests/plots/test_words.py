from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoding_nb.plots._words import word_lanes


def collisions(widths, lanes, centres):
    """Pairs of words of one lane that touch."""
    found = 0
    for lane in set(lanes) - {-1}:
        own = sorted(np.flatnonzero(lanes == lane), key=lambda i: centres[i])
        found += sum(centres[b] - widths[b] / 2 < centres[a] + widths[a] / 2 for a, b in pairwise(own))
    return found


@given(
    st.lists(st.tuples(st.floats(1, 80), st.floats(0, 400)), min_size=1, max_size=60),
    st.none() | st.integers(0, 6),
)
def test_no_word_touches_another_and_none_sticks_out(words, most):
    widths, centres = np.array(sorted(words, key=lambda word: word[1])).T
    lanes, moved = word_lanes(widths, centres, 400.0, most=most)
    assert collisions(widths, lanes, moved) == 0
    assert (moved - widths / 2 >= -1e-9).all() and (moved + widths / 2 <= 400 + 1e-9).all()
    inside = (centres >= widths / 2) & (centres <= 400 - widths / 2)
    np.testing.assert_array_equal(moved[inside], centres[inside])
    assert lanes.min() >= (0 if most is None else -1) and lanes.max() < (most if most is not None else 61)


def test_words_are_read_down_a_stair_and_then_down_the_next():
    lanes, _ = word_lanes([30.0] * 12, np.arange(12) * 12.0 + 20, 400)
    assert lanes.tolist() == [0, 1, 2] * 4


def test_far_words_stand_in_one_lane():
    lanes, _ = word_lanes([30.0] * 5, np.arange(5) * 60.0 + 20, 400)
    assert lanes.tolist() == [0] * 5


def test_a_word_without_a_lane_is_marked():
    lanes, _ = word_lanes([30.0] * 6, [100.0, 101, 102, 103, 104, 200], 400, most=2)
    assert lanes.tolist() == [0, 1, -1, -1, -1, 0]
