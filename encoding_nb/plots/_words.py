"""The words of a stretch of a story, written below a time course so that none covers another.

Each word is at its time, one lane below the word before, so that one reads down a stair and then down the next.
There are as many lanes as needed for no word to touch another.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..assembly import Array, Words


SIZE = 8.0  # of a word, points
_LANE, _GAP = 10.5, 4.0  # height of a lane, and room between two words of it, points
_MOST = 0.5  # share of given axes that words may cover


def word_lanes(
    widths: Sequence[float], centres: Sequence[float], room: float, *, most: int | None = None
) -> tuple[Array, Array]:
    """The lane of each word, from 0 at the top, and its centre.

    Parameters
    ----------
    widths, centres : sequences of float, points
        Of the words in order of time; centres count from the left end.
    room : float, points
        From the left to the right end; a word that would stick out is moved inwards.
    most : int, optional
        The most lanes for which there is room. If more are needed, each word is as high as possible instead of on a
        stair, so that few get no lane.

    Returns
    -------
    lanes : int array, (n_words,)
        From 0; -1 for a word without a lane.
    centres : array, (n_words,), points
    """
    wide = np.asarray(widths, float)
    moved = np.clip(centres, wide / 2, np.maximum(room - wide / 2, wide / 2))
    lefts, rights = moved - wide / 2, moved + wide / 2
    dense = _first_free(lefts, rights, n_lanes=0, stairs=False)
    stairs = _first_free(lefts, rights, n_lanes=int(dense.max(initial=0)) + 1, stairs=True)
    if most is None or stairs.max(initial=0) < most:
        return stairs, moved
    return np.where(dense < most, dense, -1), moved


def _first_free(lefts: Array, rights: Array, *, n_lanes: int, stairs: bool) -> Array:
    """The first free lane for each word: from the top, or, in stairs, from the lane below the last word."""
    ends = [-np.inf] * n_lanes
    lanes = np.zeros(len(lefts), int)
    last = -1
    for i, left in enumerate(lefts):
        tried = [(last + 1 + step) % len(ends) for step in range(len(ends))] if stairs else range(len(ends))
        last = next((lane for lane in tried if ends[lane] + _GAP <= left), len(ends))
        ends += [-np.inf] * (last == len(ends))
        ends[last] = rights[i]
        lanes[i] = last
    return lanes


@lru_cache(maxsize=4096)
def _width(text: str) -> float:
    """Width of a written word, points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return text_to_path.get_text_width_height_descent(text, FontProperties(size=SIZE), ismath=False)[0]


def write_words(ax: Axes, words: Words, *, start: float, stop: float, grow: bool) -> None:
    """Write the words heard from `start` to `stop`, the ends of the x axis, in lanes below the plot.

    Call it last, when the axes have their limits, labels and legend. The label of the x axis says how many words
    are left out.

    Parameters
    ----------
    ax : Axes
    words : Words
    start, stop : float, seconds
    grow : bool
        Whether the figure becomes higher by the lanes, so that all words are written. Else they take up to half
        of the axes, and the words of further lanes are left out.
    """
    in_stretch = np.flatnonzero((words.times >= start) & (words.times <= stop))
    heard = [i for i in in_stretch if words.text[i].strip()]
    if not heard:
        return
    figure: Any = ax.figure
    figure.draw_without_rendering()  # labels and legend take their room
    room, height = np.array(ax.get_window_extent().size) * 72 / figure.dpi  # points
    centres = (words.times[heard] - start) / (stop - start) * room
    most = None if grow else int(_MOST * height / _LANE)
    lanes, centres = word_lanes([_width(words.text[i]) for i in heard], centres, room, most=most)
    strip = (lanes.max() + 1.5) * _LANE
    if grow:
        width, inches = figure.get_size_inches()
        figure.set_size_inches(width, inches + strip / 72)
        height += strip
    share = strip / height
    low = ax.get_ylim()[0]
    place = ax.get_position().bounds
    for other in ax.get_shared_x_axes().get_siblings(ax):
        if other.get_position().bounds == place:  # the axes, and a twin with another y axis
            _make_room(other, share)
    ax.axhspan(ax.get_ylim()[0], low, facecolor="white", edgecolor="none", zorder=0.5)
    ax.axhline(low, color="0.7", linewidth=0.6)
    for i, lane, centre in zip(heard, lanes, centres, strict=True):
        if lane >= 0:
            ax.text(centre / room, share - (lane + 0.75) * _LANE / height, words.text[i], fontsize=SIZE, ha="center",
                    va="center_baseline", transform=ax.transAxes, parse_math=False, gid="word")  # fmt: skip
    if n_lost := int((lanes < 0).sum()):
        ax.set_xlabel(f"{ax.get_xlabel()}\n{n_lost} words are not written: show a shorter stretch")


def _make_room(ax: Axes, share: float) -> None:
    """Move the plot upwards, so that the lower `share` of the axes is empty and without ticks."""
    low, high = ax.get_ylim()
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    ax.set_ylim(low - (high - low) * share / (1 - share), high)
    ax.set_yticks(ticks)
    ax.yaxis.label.set_y((1 + share) / 2)
