"""Pictures of the design: words and features in time, the rows that trimming keeps, weights by delay."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle
from .._validation import describe
from ..assembly import Story
from ..design import Trimming
from ._style import ALL, CHOSEN, PREDICTED, axes_or_new, beside, check_seconds, chosen_voxels, patch, tidy
from ._words import write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Array = np.ndarray


def plot_timeline(
    story: Story,
    sampled: Array | None = None,
    *,
    word_values: Array | None = None,
    feature: int = 0,
    label: str = "",
    start: float = 0.0,
    stop: float | None = None,
    ax: Axes | None = None,
) -> Figure:
    """From words to TRs: when each word is heard, and the feature as it is sampled once per TR.

    Parameters
    ----------
    story : Story
    sampled : array, (n_trs,) or (n_trs, n_features), optional
        Features on the story's TR grid; None counts the words of each TR.
    word_values : array, (n_words,) or (n_words, n_features), optional
        The same feature before downsampling, one value per word; drawn as dots on an axis of its own, since
        downsampling changes the unit.
    feature : int
        Which column.
    label : str
        What the feature is, with its unit.
    start, stop : seconds from the start of the sound
        The stretch that is shown, its words written below; a minute by default. Words for which there is no room,
        which happens on a given `ax` alone, are counted below the axis.

    Raises
    ------
    ValueError
        Lengths that do not match the story's words or TRs, a column that is not there, or a stretch without
        any TR.
    TypeError
        No Story.
    """
    _require_story(story, "plot_timeline")
    check_seconds(story.name, start=start, stop=stop)
    times, tr_times = story.words.times, story.tr_times
    stop = start + 60.0 if stop is None else stop
    if sampled is None:
        sampled, label = _words_per_tr(story), label or "words per TR"
    row = _column(sampled, len(tr_times), feature, f"{story.name}: sampled features", "TR")
    shown = (tr_times >= start) & (tr_times <= stop)
    if not shown.any():
        raise ValueError(
            f"{story.name}: no TR lies between {start:g} and {stop:g} s; its TRs run from {tr_times[0]:g} to "
            f"{tr_times[-1]:g} s."
        )
    label = label or f"feature {feature}"
    own, ax = ax is None, axes_or_new(ax, (6.4, 3.0))
    ax.vlines(tr_times[shown], 0, 1, transform=ax.get_xaxis_transform(), color="0.92", zorder=0)
    ax.plot(tr_times[shown], row[shown], "o-", color=PREDICTED, markersize=4, label=f"{label}, once per TR")
    heard = (times >= start) & (times <= stop)
    handles = list(ax.get_legend_handles_labels()[0])
    if word_values is not None:
        values = _column(word_values, len(times), feature, f"{story.name}: values of words", "word")
        other = ax.twinx()
        (dots,) = other.plot(
            times[heard], values[heard], ".", color="0.45", markersize=5, label=f"{label}, at each word"
        )
        other.set_ylabel("at each word", color="0.35")
        other.spines["top"].set_visible(False)
        handles.append(dots)
    ax.plot(times[heard], np.full(heard.sum(), 0.97), "|", color="0.3", markersize=6,
            transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(
        xlim=(start, stop),
        xlabel="time from the start of the story (s)",
        ylabel=fill(label, 28) if word_values is None else "once per TR",
    )
    trs = int(shown.sum())
    title = f"{story.name}: {int(heard.sum())} words on {trs} TRs, {start:g} to {stop:g} s"
    entitle(ax, title, own=own)
    ax.spines["top"].set_visible(False)
    if word_values is None:
        tidy(ax)
    elif own:
        ax.figure.legend(
            handles=handles, loc="outside lower center", ncols=2, fontsize="small", frameon=False
        )
    else:
        ax.legend(handles=handles, fontsize="small", ncols=2)
    lost = write_words(ax, story.words, start=start, stop=stop, grow=own)
    if lost:
        ax.set_xlabel(f"{ax.get_xlabel()}\n{lost} words are not written: show a shorter stretch")
    return ax.figure


def _words_per_tr(story: Story) -> Array:
    """(n_trs,): words whose middle lies from a TR's time up to the next one's, as `features.word_rate` counts."""
    spoken = np.array([bool(word.strip()) for word in story.words.text])
    tr = float(np.mean(np.diff(story.tr_times))) if story.n_trs > 1 else np.inf
    edges = np.append(story.tr_times, story.tr_times[-1] + tr)
    return np.histogram(story.words.times[spoken], edges)[0].astype(float)


def _column(values: Array, length: int, feature: int, what: str, per: str) -> Array:
    array = np.asarray(values)
    array = array[:, None] if array.ndim == 1 else array
    if array.ndim != 2 or len(array) != length:
        raise ValueError(f"{what}: expected {length} rows, one per {per}, got shape {np.shape(values)}.")
    if not isinstance(feature, Integral) or not 0 <= feature < array.shape[1]:
        raise ValueError(f"{what}: expected a feature from 0 to {array.shape[1] - 1}, got {feature!r}.")
    return array[:, feature]


def _require_story(story: Any, caller: str) -> None:
    if not isinstance(story, Story):
        name = repr(story) if isinstance(story, str) else "name"
        raise TypeError(f"{caller}: expected a Story, got {describe(story)}; pass assembly.stories[{name}].")


def plot_trimming(story: Story, trimming: Trimming, *, ax: Axes | None = None) -> Figure:
    """Which rows of one story trimming keeps: the words, and the rows of features and BOLD on one time axis.

    The story is shown as it would be used for training and as it would be used for testing. Blue rows are
    kept, hatched rows are cut. The first kept row of BOLD is drawn at the time of the first kept row of
    features, since these are fitted to each other; where their numbers differ, the picture says so.

    Parameters
    ----------
    story : Story
        Its BOLD is not read, only counted.
    trimming : Trimming

    Raises
    ------
    TypeError
        No Story, or no Trimming.
    """
    _require_story(story, "plot_trimming")
    if not isinstance(trimming, Trimming):
        raise TypeError(
            f"plot_trimming: expected a Trimming, got {trimming!r}; pass settings.trimming, or a preset as "
            f"design.TRIMMINGS['lebel']."
        )
    own, ax = ax is None, axes_or_new(ax, (6.4, 2.7))
    tr = float(np.median(np.diff(story.tr_times))) if story.n_trs > 1 else 1.0
    labels, warnings = [], []
    for i, use in enumerate(("training", "test")):
        features, targets = trimming.slices(test=use == "test")
        kept = [range(*features.indices(story.n_trs)), range(*targets.indices(story.n_rows))]
        first = story.tr_times[kept[0][0]] if kept[0] else story.tr_times[0]
        bold_times = first + tr * (np.arange(story.n_rows) - (kept[1][0] if kept[1] else 0))
        for k, (name, times, rows) in enumerate(
            (("features", story.tr_times, kept[0]), ("BOLD", bold_times, kept[1]))
        ):
            _draw_rows(ax, times, rows, 2.4 * i + k, tr)
            labels.append((2.4 * i + k, f"{use}, {name}: {len(rows)} of {len(times)}"))
        if len(kept[0]) != len(kept[1]) or not kept[0]:
            warnings.append(f"{use}: {len(kept[0])} rows of features, {len(kept[1])} of BOLD do not match")
    ax.plot(story.words.times, np.full(len(story.words), -0.95), "|", color="0.3", markersize=6, alpha=0.6)
    names = ["words", *(label for _, label in labels)]
    ax.set_yticks([-0.95, *(at for at, _ in labels)], names, fontsize="small")
    ax.set_ylim(3.95, -1.4)
    ax.set_xlabel("time from the start of the story (s)")
    entitle(ax, f"{story.name}: rows kept by trimming", *warnings, own=own)
    handles = [patch(CHOSEN, "kept"), patch("white", "cut", hatch="////", edgecolor="0.45")]
    beside(ax, handles=handles, fontsize="small", frameon=False)
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return tidy(ax)


def _draw_rows(ax: Axes, times: Array, kept: range, at: float, tr: float) -> None:
    """A strip of rows: one bar over the kept rows, hatched bars over those cut before and after."""
    if not len(times):
        return
    parts: list[tuple[int, int, dict[str, Any]]] = []
    cut = {"facecolor": "white", "hatch": "////", "edgecolor": "0.45", "linewidth": 0.6}
    if kept:
        parts.append((kept[0], kept[-1] + 1, {"facecolor": CHOSEN}))
        parts += [(0, kept[0], cut), (kept[-1] + 1, len(times), cut)]
    else:
        parts.append((0, len(times), cut))
    for first, last, look in parts:
        if last > first:
            ax.barh(at, (last - first) * tr, left=times[first] - tr / 2, height=0.8, **look)


def plot_delays(
    weights: Array,
    delays: Sequence[int],
    *,
    tr: float | None = None,
    voxels: Array | None = None,
    label: str = "",
    ax: Axes | None = None,
) -> Figure:
    """Weights by delay: the response to a feature that the model has estimated.

    With one feature, its weight at each delay, which is an estimate of the hemodynamic response. With more,
    the root mean square over the features, which shows at which delays the model finds anything, without sign.

    Parameters
    ----------
    weights : array, (n_features * n_delays, n_voxels), (n_delays, n_features, n_voxels) or (n_delays, n_voxels)
        As ridge returns them: all features of the first delay, then all of the second, ...
    delays : ints, TRs
    tr : seconds, optional
        Adds the delays in seconds.
    voxels : bool array, (n_voxels,), optional
        Which voxels; all by default.
    label : str
        What the feature is.

    Raises
    ------
    ValueError
        Rows that the number of delays does not divide, delays that are no list, or no voxel to show.
    """
    array = _by_delay(weights, delays)
    n_voxels = array.shape[2]
    every = np.ones(n_voxels, bool)
    chosen = chosen_voxels(every if voxels is None else voxels, n_voxels, "such as a result's `significant`")
    n_features = array.shape[1]
    one = n_features == 1
    shown = array[:, 0] if one else np.sqrt((array.astype(float) ** 2).mean(axis=1))
    order = np.argsort(delays)
    x, rows = np.asarray(delays)[order], shown[order][:, chosen]
    own, ax = ax is None, axes_or_new(ax, (6, 3.6))
    low, first, median, third, high = np.nanpercentile(rows, [5, 25, 50, 75, 95], axis=1)
    ax.fill_between(x, low, high, color=ALL, alpha=0.5, linewidth=0, label="middle 90 %")
    ax.fill_between(x, first, third, color=CHOSEN, alpha=0.4, linewidth=0, label="middle half")
    ax.plot(x, median, color=CHOSEN, linewidth=2, marker="o", label="median voxel")
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    what = "weight" if one else f"weights, root mean square of {n_features:,} features"
    count = "one voxel" if chosen.sum() == 1 else f"{int(chosen.sum()):,} voxels"
    ax.set(ylabel=what, xlabel="delay (TRs)" if tr is None else f"delay (TRs; 1 TR = {tr:g} s)")
    ax.set_xticks(x, [f"{d}" if tr is None else f"{d}\n{d * tr:g} s" for d in x])
    entitle(ax, f"{label + ': ' if label else ''}estimated response, {count}", own=own)
    beside(ax, fontsize="small", frameon=False)
    return tidy(ax)


def _by_delay(weights: Array, delays: Sequence[int]) -> Array:
    """(n_delays, n_features, n_voxels)."""
    if not isinstance(delays, Sequence | np.ndarray) or isinstance(delays, str):
        raise ValueError(
            f"Expected delays as a list of whole numbers of TRs, got {delays!r}; try [1, 2, 3, 4]."
        )
    array, n_delays = np.asarray(weights), len(delays)
    if array.ndim == 3 and len(array) == n_delays:
        return array
    if array.ndim == 2 and n_delays and len(array) and len(array) % n_delays == 0:
        return array.reshape(n_delays, -1, array.shape[1])
    raise ValueError(
        f"Expected weights as (n_features x {n_delays} delays, n_voxels) or ({n_delays}, n_features, n_voxels), got "
        f"shape {array.shape}; pass the delays that the design matrix was made with."
    )
