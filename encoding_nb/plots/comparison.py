"""Comparisons: two runs voxel by voxel, the best layer, and variance split between feature spaces."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import brain
from .._figures import entitle
from .._validation import check_result, describe
from ..brain import value_limits
from . import _style
from ._style import CHOSEN, ESTIMATE, SCORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import PartitionResult, Result

Array = np.ndarray

JOINT, UNIQUE = "0.45", "#E69F00"
_MANY = 2000  # voxels from which on a density is drawn instead of dots


def plot_comparison(
    result_a: Result, result_b: Result, *, names: tuple[str, str] | None = None, ax: Axes | None = None
) -> Figure:
    """Two runs voxel by voxel: above the diagonal the second predicts better, below it the first.

    Many voxels are drawn as a density, few as dots. The title counts the voxels significant in at least one
    run (all voxels, if a run is not tested), and those of them in which the second is better.

    Parameters
    ----------
    names : pair of str, optional
        The names of the runs; by default the settings that differ.

    Raises
    ------
    ValueError
        Runs of different voxels.
    """
    a, b = _style.same_voxels(result_a, result_b, "plot_comparison")
    names = _names(result_a, result_b) if names is None else names
    own, ax = ax is None, _style.axes_or_new(ax, (5.6, 5.4))
    there = np.isfinite(a) & np.isfinite(b)
    both = np.concatenate([a[there], b[there]])
    low, high = (both.min(), both.max()) if len(both) else (0.0, 1.0)
    room = 0.04 * (high - low or 1.0)
    ends = (low - room, high + room)
    if there.sum() > _MANY:
        cells = ax.hexbin(a[there], b[there], gridsize=55, bins="log", mincnt=1, cmap="Blues", linewidths=0.1,
                          extent=(*ends, *ends))  # fmt: skip
        ax.figure.colorbar(cells, ax=ax, label="voxels (logarithmic)", shrink=0.8)
    else:
        ax.plot(a[there], b[there], ".", color=CHOSEN, markersize=4, alpha=0.5)
    ax.plot(ends, ends, color="black", linewidth=1, linestyle="--")
    found, test = _style.found_in_any([result_a, result_b])
    either = there if found is None else there & found
    ax.set(xlim=ends, ylim=ends, xlabel=f"{names[0]}: {SCORE}", ylabel=f"{names[1]}: {SCORE}")
    ax.set_aspect("equal")
    which = "" if found is None else "significant "
    counted = f"{names[1]} is better in {int((b > a)[either].sum()):,} of {int(either.sum()):,} {which}voxels"
    entitle(ax, f"{_style.whose(result_a)}, voxel by voxel", counted, _style.test_line(found, test), own=own)
    return _style.tidy(ax)


def _names(result_a: Result, result_b: Result) -> tuple[str, str]:
    """The settings in which two runs differ, as words; "first run" and "second run" if these are none or too long."""
    words = [_style.model_words(result) for result in (result_a, result_b)]
    only = [[word for word in mine if word not in others] for mine, others in (words, words[::-1])]
    if not (only[0] and only[1]):
        settings = [vars(result.settings) for result in (result_a, result_b)]
        differ = [name for name in settings[0] if settings[0][name] != settings[1].get(name)]
        only = [[f"{name} {one.get(name)}" for name in differ[:2]] for one in settings]
    if not (only[0] and only[1]) or max(len(", ".join(part)) for part in only) > 50:
        return "first run", "second run"
    return ", ".join(only[0]), ", ".join(only[1])


def plot_difference_map(
    result_a: Result,
    result_b: Result,
    *,
    names: tuple[str, str] | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Figure:
    """Where the first run predicts better (yellow) and where the second does (blue), on the flattened cortex.

    The colours go from dark to light around a middle grey, so that the two directions differ in a grey print, too.
    Voxels significant in neither run are faded, unless a run is not tested.

    Parameters
    ----------
    result_a, result_b : Result
    names : two labels; None takes the settings in which the runs differ
    ax : Axes, optional
    options : of `brain.flatmap`

    Raises
    ------
    ValueError
        Runs of different voxels, or without a surface.
    """
    a, b = _style.same_voxels(result_a, result_b, "plot_difference_map")
    names = _names(result_a, result_b) if names is None else names
    low, high = value_limits(a - b, cmap="RdBu_r", vmin=None, vmax=None)
    defaults = {
        "title": f"{_style.whose(result_a)}: {names[0]} minus {names[1]}",
        "units": f"difference of {SCORE}; yellow: {names[0]} is better",
        "cmap": "cividis",
        "vmin": low,
        "vmax": high,
    }
    if "significant" not in options:
        defaults |= _style.significance_options(*_style.found_in_any([result_a, result_b]))
    return brain.flatmap(a - b, _style.surface_of(result_a), ax=ax, **{**defaults, **options})


def plot_pair_map(
    result: Result,
    other: Result | None = None,
    *,
    names: tuple[str, str] | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Figure:
    """Two values in one map: the scores of a run with its noise ceiling, or with the scores of another run.

    Blue is high in the first only, orange in the second only, nearly white in both; `options` are those of
    `brain.flatmap_pair`. Voxels whose noise ceiling is not above chance are faded.

    Raises
    ------
    ValueError
        No noise ceiling (no held-out story has repeats), runs of different voxels, or no surface.
    """
    check_result(result, "plot_pair_map")
    if other is None:
        if result.noise_ceiling is None:
            raise ValueError(
                f"{result.subject}: no noise ceiling, because no held-out story has repeats; pass another run."
            )
        first, second = result.scores, result.noise_ceiling
        names = names or (f"score\n{SCORE}", "noise ceiling (r)")
        title = _style.heading(result, f"score by noise ceiling ({ESTIMATE})")
        if "significant" not in options:
            options |= _style.ceiling_options(second, brain.chance_ceiling(result))
    else:
        first, second = _style.same_voxels(result, other, "plot_pair_map")
        names = names or _names(result, other)
        title = f"{_style.whose(result)}: {names[0]} by {names[1]}"
        names = (fill(f"{names[0]} (r)", 22), fill(f"{names[1]} (r)", 22))
    options = {"title": title, "names": names, **options}
    return brain.flatmap_pair(first, second, _style.surface_of(result), ax=ax, **options)


def plot_best_layer(
    results: Sequence[Result], *, setting: str = "layer_idx", ax: Axes | None = None, **options: Any
) -> Figure:
    """The layer that predicts each voxel best, over voxels significant in at least one of the runs.

    If any of the runs is not tested, all voxels are shown, and the caption says so.

    Parameters
    ----------
    results : sequence of Result
        One per layer, in any order.
    setting : str
        The setting in which they differ, such as "lookback".
    options
        Those of `brain.flatmap_categories`.

    Raises
    ------
    ValueError
        Fewer than two results, two of the same layer, results of different voxels, or no surface.
    TypeError
        A single Result.
    """
    results, values = _style.results_by(setting, results, least=2)
    scores = np.array([result.scores for result in results], float)
    found, test = _style.found_in_any(results)
    counts = np.isfinite(scores).any(axis=0)
    counts = counts if found is None else counts & found
    which = "voxels" if found is None else "voxels significant in any run"
    labels = np.where(counts, np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=0), -1)
    what = "layer" if setting == "layer_idx" else setting
    defaults = {
        "title": _style.heading(results[0], f"best {what}", varying=setting),
        "units": f"highest-scoring {what}; {int(counts.sum()):,} {which}",
        "note": _style.test_line(found, test),
        "names": [str(value) for value in values],
    }
    return brain.flatmap_categories(labels, _style.surface_of(results[0]), ax=ax, **{**defaults, **options})


def plot_partition(
    partition: PartitionResult, *, voxels: Array | None = None, ax: Axes | None = None
) -> Figure:
    """How the explained variance is split between feature spaces: a bar and the spread over voxels for each.

    The dot is the mean over voxels; the thick line is the middle half of them, the thin one the middle 90
    percent. Each space has two lines: the upper is its share of the joint model (these shares sum to the joint
    R2), the lower is the variance that only this space explains: a lower bound, since what two spaces can both explain
    belongs to neither. Under the name is the gain in r, the mean correlation of the joint model minus that of a model
    without the space; it is above 0 also for a space that has nothing to do with the BOLD, so judge by unique R2.

    Parameters
    ----------
    partition : PartitionResult
    voxels : bool array, (n_voxels,), optional
        By default `partition.selected`, which were chosen without the held-out rows. With nested cross-validation each
        number is then that of an outer fold over the voxels that this fold selected, averaged over the folds.

    Raises
    ------
    ValueError
        No voxel to show.
    TypeError
        `partition` is not a PartitionResult.
    """
    if not hasattr(partition, "joint"):
        raise TypeError(
            f"plot_partition: expected a PartitionResult, got {describe(partition)}; use partition(assembly, settings)."
        )
    n_voxels = len(partition.joint)
    if voxels is None:
        chosen = np.broadcast_to(partition.selected, (len(partition.folds), n_voxels))
        folds = list(zip(partition.folds, chosen, strict=True))
        shown = [(fold, _style.chosen_voxels(mask, n_voxels)) for fold, mask in folds if mask.any()]
    else:
        shown = [(partition, _style.chosen_voxels(voxels, n_voxels))]
    rows = ["all together", *partition.names]
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 1.7 + 0.65 * len(rows)))
    _style.interval(ax, [fold.joint[mask] for fold, mask in shown], 0, color=JOINT)
    gains = []
    for row, name in enumerate(partition.names, start=1):
        _style.interval(ax, [fold.split[name][mask] for fold, mask in shown], row - 0.16, color=CHOSEN)
        _style.interval(ax, [fold.unique[name][mask] for fold, mask in shown], row + 0.16, color=UNIQUE)
        gains.append(np.mean([np.nanmean(fold.gain[name][mask]) for fold, mask in shown]))
    ax.axvline(0, color="0.3", linewidth=0.8)
    named = [
        f"{_style.space_name(row)}\ngain in r {gain:+.2f}" for row, gain in zip(rows[1:], gains, strict=True)
    ]
    ax.set_yticks(range(len(rows)), [rows[0], *named])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set(xlabel="explained variance (R²): mean, middle half, middle 90 % of the voxels")
    counts = sorted({int(mask.sum()) for _, mask in shown})
    how = "selected" if voxels is None else "chosen"
    count = f"{counts[0]:,} voxels" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,} voxels a fold,"
    entitle(ax, f"{_style.whose(partition)}: variance by feature space, {count} {how}", own=own)
    pairs = ((JOINT, "joint model"), (CHOSEN, "share of the joint model"), (UNIQUE, "unique (a lower bound)"))
    _style.legend(ax, [_style.patch(color, label) for color, label in pairs], own=own, ncols=3)
    return _style.tidy(ax)
