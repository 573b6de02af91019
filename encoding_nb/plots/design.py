"""Pictures of the design: words and features in time, the rows that trimming keeps, weights by delay."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle
from .._validation import describe
from ..assembly import Array, Story
from ..design import Trimming
from ..features import word_rate
from . import _style
from ._style import ALL, CHOSEN, PREDICTED, TIME
from ._words import write_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        The same feature before downsampling, one value per word; drawn as dots on a second axis, since
        downsampling changes the unit.
    feature : int
        The column to show.
    label : str
        The name of the feature, with its unit.
    start, stop : float, seconds from the start of the sound
        The stretch that is shown, its words written below; by default a minute. Words without room, which happens
        only on a given `ax`, are counted below the axis.

    Raises
    ------
    ValueError
        Lengths that do not match the story's words or TRs, a column that does not exist, or a stretch without
        any TR.
    TypeError
        `story` is not a Story.
    """
    _require_story(story, "plot_timeline")
    _style.check_seconds(story.name, start=start, stop=stop)
    times, tr_times = story.words.times, story.tr_times
    stop = start + 60.0 if stop is None else stop
    if sampled is None:
        sampled, label = word_rate(story.words, tr_times), label or "words per TR"
    row = _column(sampled, len(tr_times), feature, f"{story.name}: sampled features", "TR")
    shown = (tr_times >= start) & (tr_times <= stop)
    if not shown.any():
        raise ValueError(
            f"{story.name}: no TR lies between {start:g} and {stop:g} s; its TRs run from {tr_times[0]:g} to "
            f"{tr_times[-1]:g} s."
        )
    label = label or f"feature {feature}"
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 3.0))
    ax.vlines(tr_times[shown], 0, 1, transform=ax.get_xaxis_transform(), color="0.92", zorder=0)
    ax.plot(tr_times[shown], row[shown], "o-", color=PREDICTED, markersize=4, label=f"{label}, once per TR")
    heard = (times >= start) & (times <= stop)
    handles = list(ax.get_legend_handles_labels()[0])
    if word_values is not None:
        values = _column(word_values, len(times), feature, f"{story.name}: values of words", "word")
        other = ax.twinx()
        handles += other.plot(times[heard], values[heard], ".", color="0.45", markersize=5,
                              label=f"{label}, at each word")  # fmt: skip
        other.set_ylabel("at each word", color="0.35")
        other.spines["top"].set_visible(False)
    ax.plot(times[heard], np.full(heard.sum(), 0.97), "|", color="0.3", markersize=6,
            transform=ax.get_xaxis_transform())  # fmt: skip
    ax.set(xlim=(start, stop), xlabel=TIME)
    ax.set_ylabel(fill(label, 28) if word_values is None else "once per TR")
    title = f"{story.name}: {int(heard.sum())} words on {int(shown.sum())} TRs, {start:g} to {stop:g} s"
    entitle(ax, title, own=own)
    if word_values is not None:
        _style.legend(ax, handles, own=own, inside=2)
    write_words(ax, story.words, start=start, stop=stop, grow=own)
    return _style.tidy(ax)


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
    """The rows of one story that trimming keeps: the words, and the rows of features and BOLD on one time axis.

    The story is shown once as a training story and once as a test story. Blue rows are kept, hatched rows are
    cut. The first kept row of BOLD is drawn at the time of the first kept row of features, since these are fitted
    to each other; if their numbers differ, the title says so.

    Parameters
    ----------
    story : Story
        Only the number of its BOLD rows is used.
    trimming : Trimming

    Raises
    ------
    TypeError
        `story` is not a Story, or `trimming` not a Trimming.
    """
    _require_story(story, "plot_trimming")
    if not isinstance(trimming, Trimming):
        raise TypeError(
            f"plot_trimming: expected a Trimming, got {trimming!r}; pass settings.trimming, or TRIMMINGS['lebel']."
        )
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 2.7))
    tr = float(np.median(np.diff(story.tr_times))) if story.n_trs > 1 else 1.0
    labels, warnings = [], []
    for i, use in enumerate(("training", "test")):
        features, targets = trimming.slices(test=use == "test")
        kept = [range(*features.indices(story.n_trs)), range(*targets.indices(story.n_rows))]
        first = story.tr_times[kept[0][0]] if kept[0] else story.tr_times[0]
        bold_times = first + tr * (np.arange(story.n_rows) - (kept[1][0] if kept[1] else 0))
        parts = (("features", story.tr_times, kept[0]), ("BOLD", bold_times, kept[1]))
        for k, (name, times, rows) in enumerate(parts):
            _draw_rows(ax, times, rows, 2.4 * i + k, tr)
            labels.append((2.4 * i + k, f"{use}, {name}: {len(rows)} of {len(times)}"))
        if len(kept[0]) != len(kept[1]) or not kept[0]:
            warnings.append(f"{use}: {len(kept[0])} rows of features, {len(kept[1])} of BOLD do not match")
    ax.plot(story.words.times, np.full(len(story.words), -0.95), "|", color="0.3", markersize=6, alpha=0.6)
    places, names = zip((-0.95, "words"), *labels, strict=True)
    ax.set_yticks(places, names, fontsize="small")
    ax.set_ylim(3.95, -1.4)
    ax.set_xlabel(TIME)
    entitle(ax, f"{story.name}: rows kept by trimming", *warnings, own=own)
    handles = [_style.patch(CHOSEN, "kept"), _style.patch("white", "cut", hatch="////", edgecolor="0.45")]
    _style.beside(ax, handles=handles, fontsize="small", frameon=False)
    ax.spines[["left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    return _style.tidy(ax)


def _draw_rows(ax: Axes, times: Array, kept: range, at: float, tr: float) -> None:
    """A strip of rows: one bar over the kept rows, hatched bars over those cut before and after."""
    start, stop = (kept[0], kept[-1] + 1) if kept else (0, 0)
    cut: dict[str, Any] = {"facecolor": "white", "hatch": "////", "edgecolor": "0.45", "linewidth": 0.6}
    for first, last, look in ((start, stop, {"facecolor": CHOSEN}), (0, start, cut), (stop, len(times), cut)):
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
    """Weights by delay: the model's estimate of the response to a feature.

    With one feature, its weight at each delay, which is an estimate of the hemodynamic response. With more,
    the root mean square over the features, which shows at which delays the weights are large, without sign.

    Parameters
    ----------
    weights : array, (n_features * n_delays, n_voxels), (n_delays, n_features, n_voxels) or (n_delays, n_voxels)
        As ridge returns them: all features of the first delay, then all of the second, ...
    delays : sequence of int, TRs
    tr : float, seconds, optional
        Adds the delays in seconds.
    voxels : bool array, (n_voxels,), optional
        Which voxels; by default all.
    label : str
        The name of the feature.

    Raises
    ------
    ValueError
        The number of rows is not a multiple of the number of delays, delays are not a list, or no voxel to show.
    """
    array = _by_delay(weights, delays)
    _, n_features, n_voxels = array.shape
    voxels = np.ones(n_voxels, bool) if voxels is None else voxels
    chosen = _style.chosen_voxels(voxels, n_voxels, "such as result.significant")
    one = n_features == 1
    shown = array[:, 0] if one else np.sqrt((array.astype(float) ** 2).mean(axis=1))
    order = np.argsort(delays)
    x, rows = np.asarray(delays)[order], shown[order][:, chosen]
    own, ax = ax is None, _style.axes_or_new(ax, (6, 3.6))
    _style.bands(ax, x, rows, outer=ALL, alpha=0.5)
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    what = "weight" if one else f"weights, root mean square of {n_features:,} features"
    count = "one voxel" if chosen.sum() == 1 else f"{int(chosen.sum()):,} voxels"
    ax.set(ylabel=what, xlabel="delay (TRs)" if tr is None else f"delay (TRs; 1 TR = {tr:g} s)")
    ax.set_xticks(x, [f"{d}" if tr is None else f"{d}\n{d * tr:g} s" for d in x])
    entitle(ax, f"{label + ': ' if label else ''}estimated response, {count}", own=own)
    _style.beside(ax, fontsize="small", frameon=False)
    return _style.tidy(ax)


def _by_delay(weights: Array, delays: Sequence[int]) -> Array:
    """(n_delays, n_features, n_voxels)."""
    if not isinstance(delays, Sequence | np.ndarray) or isinstance(delays, str):
        raise ValueError(f"Expected delays as a list of TRs, got {delays!r}; try [1, 2, 3, 4].")
    array, n_delays = np.asarray(weights), len(delays)
    if array.ndim == 3 and len(array) == n_delays:
        return array
    if array.ndim == 2 and n_delays and len(array) and len(array) % n_delays == 0:
        return array.reshape(n_delays, -1, array.shape[1])
    raise ValueError(
        f"Expected weights as (n_features x {n_delays} delays, n_voxels) or ({n_delays}, n_features, n_voxels), got "
        f"shape {array.shape}; pass the delays that the design matrix was made with."
    )
