"""The time course of one voxel in one story: measured and predicted BOLD, and the words."""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle
from .._validation import check_result
from . import _style
from ._style import MEASURED, PREDICTED, TIME
from ._words import write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..assembly import Array, Assembly, Story
    from ..pipeline import Result


TRIMMED, UNSCORED = "trimmed", "not held out"


def plot_voxel(
    result: Result,
    voxel: int,
    *,
    story: str | None = None,
    start: float | None = None,
    stop: float | None = None,
    assembly: Assembly | None = None,
    size: tuple[float, float] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """The measured and the predicted time course of one voxel in one held-out story.

    Parameters
    ----------
    voxel : int
        Its number in the mask, from 0.
    story : str, optional
        By default the first held-out story.
    start, stop : float, seconds from the start of the sound, optional
        The stretch that is shown; by default the whole story.
    assembly : Assembly, optional
        Adds the words: in a stretch each is written at its time, in a whole story there is a tick for each.
        Parts of the story that trimming leaves out are hatched. Words without room, which happens only on a given
        `ax`, are counted below the axis.
    size : pair of float, inches, optional
        Width and height of a new figure, without the words, which make it higher.

    Raises
    ------
    ValueError
        The voxel or the story is not in the result, the stretch not in the story, or the story not in the
        assembly; the message lists what is available. A result without time courses, as from sweeps.
    TypeError
        `result` is not a Result, or `assembly` not an Assembly.
    """
    check_result(result, "plot_voxel")
    n_voxels = len(result.scores)
    if not isinstance(voxel, Integral) or not 0 <= voxel < n_voxels:
        raise ValueError(f"Expected the whole number of a voxel from 0 to {n_voxels - 1}, got {voxel!r}.")
    story = _known_course(result, story)
    _style.check_seconds(story, start=start, stop=stop)
    times = np.asarray(result.row_times[story])
    source = None if assembly is None else _story_of(assembly, story)
    ends = _stretch(story, times, source, start, stop)
    written = source is not None and (start is not None or stop is not None)
    own, ax = ax is None, _style.axes_or_new(ax, size or (6.4, 3.2))
    measured = _with_gaps(times, result.measured[story][:, voxel])
    predicted = _with_gaps(times, result.predictions[story][:, voxel])
    ax.plot(*measured, color=MEASURED, linewidth=1, marker=".", markersize=4, label="measured")
    ax.plot(*predicted, color=PREDICTED, linewidth=2, linestyle="--", label="predicted")
    if source is not None:
        _hatch_gaps(ax, result, source, times, ends)
    score, alpha = result.story_scores[story][voxel], np.median(result.best_alphas[..., voxel])
    whole = " over the whole story" if ends[0] > times[0] or ends[1] < times[-1] else ""
    which = f"{_style.voxel_words(result, voxel)}: r = {score:.2f}{whole}, alpha = {alpha:.3g}"
    entitle(ax, _style.heading(result, story), which, own=own)
    ax.set(xlim=ends, xlabel=TIME, ylabel="BOLD (z-score)")
    if source is not None and not written:
        low = np.full(len(source.words), 0.015)  # of the height of the axes
        ax.plot(source.words.times, low, "|", color="0.45", markersize=5, alpha=0.5, label="words",
                transform=ax.get_xaxis_transform())  # fmt: skip
    _style.legend(ax, own=own, ncols=5, inside=2)
    if written:
        write_words(ax, source.words, start=ends[0], stop=ends[1], grow=own)
    return _style.tidy(ax)


def _known_course(result: Result, story: str | None) -> str:
    """The story whose time course is shown; a ValueError if the result has no time course of it."""
    if story is not None:
        _style.known_story(result, story)
    if not len(result.predictions) or (story is not None and story not in result.predictions):
        raise ValueError(
            f"{result.subject}: this result has scores but no time courses, as from a sweep; run it again with "
            f"run(assembly, result.settings), or sweep with keep_predictions=True."
        )
    return next(iter(result.predictions)) if story is None else story


def _story_of(assembly: Assembly, story: str) -> Story:
    """The story with its words; an error if `assembly` is not an Assembly or has other stories."""
    if not hasattr(assembly, "stories"):
        raise TypeError(
            f"plot_voxel: expected assembly to be the Assembly that was run, got {assembly!r}; load_assembly(source) "
            f"makes one."
        )
    if story not in assembly.stories:
        raise ValueError(
            f"The assembly has no story {story!r}, it has {', '.join(assembly.stories)}; pass the assembly that was "
            f"run, or leave it out."
        )
    return assembly.stories[story]


def _stretch(
    story: str, times: Array, source: Story | None, start: float | None, stop: float | None
) -> tuple[float, float]:
    """The ends of the time axis; a ValueError if nothing of the story lies between them."""
    grid = times if source is None else np.append(source.tr_times, times)
    first, last = float(grid.min()), float(grid.max())
    left, right = (first if start is None else float(start)), (last if stop is None else float(stop))
    if not (left < right and left < last and right > first):
        raise ValueError(
            f"{story}: expected a stretch that starts before it stops, within {first:g} to {last:g} s, got start "
            f"{left:g} and stop {right:g}."
        )
    room = 0.01 * (last - first)
    return (left - room if start is None else left), (right + room if stop is None else right)


def _with_gaps(times: Array, values: Array) -> tuple[Array, Array]:
    """The course with a NaN wherever rows are missing, so that no line is drawn across."""
    gaps = _gaps(times)
    middle = (times[gaps] + times[gaps - 1]) / 2
    return np.insert(times.astype(float), gaps, middle), np.insert(np.asarray(values, float), gaps, np.nan)


def _gaps(times: Array) -> Array:
    """The rows before which rows are missing."""
    steps = np.diff(times)
    return np.flatnonzero(steps > 1.5 * np.median(steps)) + 1 if len(steps) else np.empty(0, int)


def _hatch_gaps(ax: Axes, result: Result, source: Story, times: Array, ends: tuple[float, float]) -> None:
    """Grey and hatches where the story has no rows: cut by trimming, or held out by no fold."""
    kept = result.settings.trimming.features(source.tr_times, test=result.settings.use_train_test_split)
    kept = kept if len(kept) else times
    parts = [
        (source.tr_times[0], kept[0], TRIMMED),
        (kept[-1], source.tr_times[-1], TRIMMED),
        (kept[0], times[0], UNSCORED),
        (times[-1], kept[-1], UNSCORED),
        *((times[row - 1], times[row], UNSCORED) for row in _gaps(times)),
    ]
    look: dict[str, Any] = {"facecolor": "0.93", "edgecolor": "0.7", "linewidth": 0, "zorder": 0}
    named: set[str] = set()
    for left, right, why in parts:
        left, right = max(left, ends[0]), min(right, ends[1])
        if right > left:
            label = None if why in named else why
            ax.axvspan(left, right, hatch="///" if why == TRIMMED else "...", label=label, **look)
            named.add(why)
