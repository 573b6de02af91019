"""One voxel's time course in one story: what was measured, what was predicted, and what was heard meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle
from .._validation import require_result
from ._style import MEASURED, PREDICTED, axes_or_new, check_seconds, heading, known_story, tidy, voxel_words
from ._words import write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..assembly import Assembly, Story
    from ..pipeline import Result


Array = np.ndarray

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
        The first held-out story by default.
    start, stop : seconds from the start of the sound, optional
        The stretch that is shown; the whole story by default.
    assembly : Assembly, optional
        Adds the words: in a stretch each is written at its time, in a whole story there is a tick for each.
        Parts of the story that trimming leaves out are hatched. Words for which there is no room, which happens
        on a given `ax` alone, are counted below the axis.
    size : width and height in inches, optional
        Of a new figure, without the words, which make it higher.

    Raises
    ------
    ValueError
        The voxel or the story is not in the result, the stretch not in the story, or the story not in the
        assembly; what there is is said. A result without time courses, as sweeps make them.
    TypeError
        No Result, or an `assembly` that is none.
    """
    require_result(result, "plot_voxel")
    n_voxels = len(result.scores)
    if not isinstance(voxel, Integral) or not 0 <= voxel < n_voxels:
        raise ValueError(f"Expected the whole number of a voxel from 0 to {n_voxels - 1}, got {voxel!r}.")
    story = _known_course(result, story)
    check_seconds(story, start=start, stop=stop)
    times = np.asarray(result.row_times[story])
    heard = None if assembly is None else _heard(assembly, story)
    ends = _stretch(story, times, heard, start, stop)
    own = ax is None
    read = heard is not None and (start is not None or stop is not None)
    ax = axes_or_new(ax, size or (6.4, 3.2))
    measured, predicted = result.measured[story][:, voxel], result.predictions[story][:, voxel]
    ax.plot(
        *_with_gaps(times, measured), color=MEASURED, linewidth=1, marker=".", markersize=4, label="measured"
    )
    ax.plot(*_with_gaps(times, predicted), color=PREDICTED, linewidth=2, linestyle="--", label="predicted")
    if heard is not None:
        _hatch_what_is_missing(ax, result, heard, times, ends)
    score, alpha = result.story_scores[story][voxel], np.median(result.best_alphas[..., voxel])
    whole = " over the whole story" if ends[0] > times[0] or ends[1] < times[-1] else ""
    which = f"{voxel_words(result, voxel)}: r = {score:.2f}{whole}, alpha = {alpha:.3g}"
    entitle(ax, heading(result, story), which, own=own)
    ax.set(xlim=ends, xlabel="time from the start of the story (s)", ylabel="BOLD (z-score)")
    _add_legend(ax, heard is not None and not read, heard, own=own)
    if read:
        lost = write_words(ax, heard.words, start=ends[0], stop=ends[1], grow=own)
        if lost:
            ax.set_xlabel(f"{ax.get_xlabel()}\n{lost} words are not written: show a shorter stretch")
    return tidy(ax)


def _known_course(result: Result, story: str | None) -> str:
    """The story whose time course is shown, refused where the result holds none."""
    if story is not None:
        known_story(result, story)
    if not len(result.predictions) or (story is not None and story not in result.predictions):
        raise ValueError(
            f"{result.subject}: this result holds scores and no time courses, as those of a sweep do; run it again "
            f"with run(assembly, result.settings), or sweep with keep_predictions=True."
        )
    return next(iter(result.predictions)) if story is None else story


def _heard(assembly: Assembly, story: str) -> Story:
    """The story with its words, refused where the assembly is none or of other stories."""
    if not hasattr(assembly, "stories"):
        raise TypeError(
            f"plot_voxel: expected assembly to be the Assembly that was run, got {assembly!r}; load_assembly(source) "
            f"makes one."
        )
    if story not in assembly.stories:
        raise ValueError(
            f"The assembly has no story {story!r}, it has {', '.join(assembly.stories)}; pass the one that was run, or "
            f"leave it out."
        )
    return assembly.stories[story]


def _stretch(
    story: str, times: Array, heard: Story | None, start: float | None, stop: float | None
) -> tuple[float, float]:
    """The ends of the time axis, refused where nothing of the story lies between them."""
    grid = times if heard is None else np.append(heard.tr_times, times)
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
    gaps = [after for after, _, _ in _gaps(times)]
    middle = (times[gaps] + times[np.array(gaps, int) - 1]) / 2 if gaps else []
    return np.insert(times.astype(float), gaps, middle), np.insert(np.asarray(values, float), gaps, np.nan)


def _gaps(times: Array) -> Iterator[tuple[int, float, float]]:
    """Where rows are missing between rows: the number of the row after, and the times of both."""
    steps = np.diff(times)
    for row in np.flatnonzero(steps > 1.5 * np.median(steps)) if len(steps) else ():
        yield int(row) + 1, float(times[row]), float(times[row + 1])


def _hatch_what_is_missing(
    ax: Axes, result: Result, heard: Story, times: Array, ends: tuple[float, float]
) -> None:
    """Grey and hatches where the story goes on without rows: cut by trimming, or held out by no fold."""
    settings = result.settings
    kept = settings.trimming.features(heard.tr_times, test=settings.use_train_test_split)
    kept = kept if len(kept) else times
    parts = [
        (heard.tr_times[0], kept[0], TRIMMED),
        (kept[-1], heard.tr_times[-1], TRIMMED),
        (kept[0], times[0], UNSCORED),
        (times[-1], kept[-1], UNSCORED),
        *((left, right, UNSCORED) for _, left, right in _gaps(times)),
    ]
    named: set[str] = set()
    for left, right, why in parts:
        left, right = max(left, ends[0]), min(right, ends[1])
        if right > left:
            hatch = "///" if why == TRIMMED else "..."
            label = None if why in named else why
            ax.axvspan(
                left,
                right,
                facecolor="0.93",
                edgecolor="0.7",
                hatch=hatch,
                linewidth=0,
                zorder=0,
                label=label,
            )
            named.add(why)


def _add_legend(ax: Axes, ticks: bool, heard: Any, *, own: bool) -> None:
    if ticks:
        ax.plot(heard.words.times, np.full(len(heard.words), 0.015), "|", color="0.45", markersize=5, alpha=0.5,
                transform=ax.get_xaxis_transform(), label="words")  # fmt: skip
    if own:
        ax.figure.legend(loc="outside lower center", ncols=5, fontsize="small", frameon=False)
    else:
        ax.legend(fontsize="small", ncols=2)
