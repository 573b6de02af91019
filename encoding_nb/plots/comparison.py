"""Runs against each other, and one run's variance split between feature spaces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .. import brain
from .._figures import entitle
from .._validation import describe, require_result
from ..brain import value_limits
from ._style import (
    CHOSEN,
    SCORE,
    axes_or_new,
    chosen_voxels,
    heading,
    interval,
    model_words,
    patch,
    require_results,
    space_name,
    tidy,
    whose,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import Result


Array = np.ndarray

JOINT, UNIQUE = "0.45", "#E69F00"
_MANY = 2000  # voxels from which a density is drawn instead of dots


class Partition(Protocol):
    """What `plot_partition` reads of a variance partitioning; R2 are shares of variance, (n_voxels,)."""

    names: tuple[str, ...]
    joint: Array
    split: Mapping[str, Array]
    unique: Mapping[str, Array]
    significant: Array
    subject: str
    simulated: bool


def plot_comparison(
    result_a: Result, result_b: Result, *, names: tuple[str, str] | None = None, ax: Axes | None = None
) -> Figure:
    """Two runs voxel by voxel: above the diagonal the second predicts better, below it the first.

    Many voxels are drawn as a density, few as dots. The title counts the voxels significant in at least one
    run, and in how many of these the second is better.

    Parameters
    ----------
    names : pair of str, optional
        What to call the runs; by default the settings that differ.

    Raises
    ------
    ValueError
        Runs of different voxels.
    """
    a, b = _same_voxels(result_a, result_b, "plot_comparison")
    names = _names(result_a, result_b) if names is None else names
    own, ax = ax is None, axes_or_new(ax, (5.6, 5.4))
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
    either = there & (result_a.significant | result_b.significant)
    better = int((b > a)[either].sum())
    ax.set(xlim=ends, ylim=ends, xlabel=f"{names[0]}: {SCORE}", ylabel=f"{names[1]}: {SCORE}")
    ax.set_aspect("equal")
    counted = f"{names[1]} is better in {better:,} of {int(either.sum()):,} significant"
    entitle(ax, f"{whose(result_a)}, voxel by voxel", counted, own=own)
    return tidy(ax)


def _same_voxels(result_a: Result, result_b: Result, caller: str) -> tuple[Array, Array]:
    for result in (result_a, result_b):
        require_result(result, caller)
    a, b = np.asarray(result_a.scores), np.asarray(result_b.scores)
    if a.shape != b.shape or result_a.surface != result_b.surface:
        raise ValueError(
            f"Expected runs of the same voxels, got {len(a)} voxels on {result_a.surface} and {len(b)} on "
            f"{result_b.surface}; compare runs of one assembly."
        )
    return a, b


def _names(result_a: Result, result_b: Result) -> tuple[str, str]:
    """The settings in which two runs differ, as words; "first" and "second" where there is none."""
    words = [model_words(result) for result in (result_a, result_b)]
    only = [[word for word in mine if word not in others] for mine, others in (words, words[::-1])]
    if not (only[0] and only[1]) and is_dataclass(result_a.settings):
        differ = [
            field.name
            for field in fields(result_a.settings)
            if getattr(result_a.settings, field.name) != getattr(result_b.settings, field.name, None)
        ]
        only = [
            [f"{name} {getattr(result.settings, name)}" for name in differ[:2]]
            for result in (result_a, result_b)
        ]
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

    The colours go from dark to light around a middle grey, so that the two directions differ in grey, too.
    Voxels significant in neither are faded; `options` are those of `brain.flatmap`.

    Raises
    ------
    ValueError
        Runs of different voxels, or without a surface.
    """
    a, b = _same_voxels(result_a, result_b, "plot_difference_map")
    names = _names(result_a, result_b) if names is None else names
    low, high = value_limits(a - b, cmap="RdBu_r", vmin=None, vmax=None)
    defaults = {
        "title": f"{whose(result_a)}: {names[0]} minus {names[1]}",
        "units": f"difference of {SCORE}; yellow: {names[0]} is better",
        "cmap": "cividis",
        "vmin": low,
        "vmax": high,
        "significant": result_a.significant | result_b.significant,
    }
    return brain.flatmap(a - b, _surface(result_a), ax=ax, **{**defaults, **options})


def plot_pair_map(
    result: Result,
    other: Result | None = None,
    *,
    names: tuple[str, str] | None = None,
    ax: Axes | None = None,
    **options: Any,
) -> Figure:
    """Two values in one map: the scores of a run with its noise ceiling, or with the scores of another run.

    Blue is high in the first alone, orange in the second alone, nearly white in both; `options` are those of
    `brain.flatmap_pair`.

    Raises
    ------
    ValueError
        No noise ceiling (no held-out story was heard twice), runs of different voxels, or no surface.
    """
    require_result(result, "plot_pair_map")
    if other is None:
        if result.noise_ceiling is None:
            raise ValueError(
                f"{result.subject}: this run has no noise ceiling, since no held-out story was heard more than once; "
                f"pass another run to map its scores against."
            )
        first, second = result.scores, result.noise_ceiling
        names = names or (f"score\n{SCORE}", "noise ceiling (r)")
        title = heading(result, "score by noise ceiling")
    else:
        first, second = _same_voxels(result, other, "plot_pair_map")
        names = names or _names(result, other)
        title = f"{whose(result)}: {names[0]} by {names[1]}"
        names = (fill(f"{names[0]} (r)", 22), fill(f"{names[1]} (r)", 22))
    return brain.flatmap_pair(
        first, second, _surface(result), ax=ax, **{"title": title, "names": names, **options}
    )


def plot_best_layer(
    results: Sequence[Result], *, setting: str = "layer_idx", ax: Axes | None = None, **options: Any
) -> Figure:
    """The layer that predicts each voxel best, over voxels significant in at least one of the runs.

    Parameters
    ----------
    results : sequence of Result
        One per layer, in any order.
    setting : str
        What they differ in, such as "lookback".
    options
        Those of `brain.flatmap_categories`.

    Raises
    ------
    ValueError
        Fewer than two results, two of the same layer, results of different voxels, or no surface.
    """
    results = require_results(results, "plot_best_layer")
    if len(results) < 2:
        raise ValueError(f"Expected two or more results that differ in {setting}, got {len(results)}.")
    results = sorted(results, key=lambda result: getattr(result.settings, setting))
    values = [getattr(result.settings, setting) for result in results]
    if len(set(values)) < len(values):
        raise ValueError(f"Expected one result per {setting}, got {', '.join(map(str, values))}.")
    for result in results[1:]:
        _same_voxels(results[0], result, "plot_best_layer")
    scores = np.array([result.scores for result in results], float)
    significant = np.any([result.significant for result in results], axis=0)
    counts = significant & np.isfinite(scores).any(axis=0)
    labels = np.where(counts, np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=0), -1)
    what = "layer" if setting == "layer_idx" else setting
    defaults = {
        "title": heading(results[0], f"best {what}", varying=setting),
        "units": f"{what} with the highest score; {int(counts.sum()):,} voxels significant in a run",
        "names": [str(value) for value in values],
    }
    return brain.flatmap_categories(labels, _surface(results[0]), ax=ax, **{**defaults, **options})


def _surface(result: Result) -> Any:
    if result.surface is None:
        raise ValueError(
            f"{result.subject}: these data name no cortical surface to draw them on; give the assembly a "
            f"Surface(subject, transform, mask), or use plot_comparison."
        )
    return result.surface


def plot_partition(partition: Partition, *, voxels: Array | None = None, ax: Axes | None = None) -> Figure:
    """How the explained variance is split between feature spaces: a bar and the spread over voxels for each.

    The dot is the mean over voxels; the thick line is the middle half of them, the thin one the middle 90
    percent. Of a space's two lines the upper is its share of the joint model (these shares sum to the joint
    R2), the lower what it explains that the others do not.

    Parameters
    ----------
    partition : PartitionResult
    voxels : bool array, (n_voxels,), optional
        Those significant in the joint model by default, all where none is.

    Raises
    ------
    ValueError
        No voxel to show.
    """
    if not hasattr(partition, "joint"):
        raise TypeError(
            f"plot_partition: expected a PartitionResult, got {describe(partition)}; "
            f"partition(assembly, settings) makes one."
        )
    joint = np.asarray(partition.joint)
    significant = np.asarray(partition.significant, bool)
    found = significant if significant.any() else joint == joint
    chosen = chosen_voxels(found if voxels is None else voxels, len(joint))
    rows = ["all together", *partition.names]
    own, ax = ax is None, axes_or_new(ax, (6.4, 1.7 + 0.65 * len(rows)))
    interval(ax, joint[chosen], 0, color=JOINT)
    for row, name in enumerate(partition.names, start=1):
        interval(ax, np.asarray(partition.split[name])[chosen], row - 0.16, color=CHOSEN)
        interval(ax, np.asarray(partition.unique[name])[chosen], row + 0.16, color=UNIQUE)
    ax.axvline(0, color="0.3", linewidth=0.8)
    ax.set_yticks(range(len(rows)), [space_name(row) for row in rows])
    ax.set_ylim(len(rows) - 0.4, -0.6)
    which = "chosen" if voxels is not None else "significant" if significant.any() else "(none significant)"
    ax.set(
        xlabel="explained variance (R²): mean, middle half, middle 90 % of the voxels",
    )
    title = f"{whose(partition)}: variance by feature space, {int(chosen.sum()):,} voxels {which}"
    entitle(ax, title, own=own)
    handles = [
        patch(JOINT, "joint model"),
        patch(CHOSEN, "share of the joint model"),
        patch(UNIQUE, "unique"),
    ]
    if own:
        ax.figure.legend(
            handles=handles, loc="outside lower center", ncols=3, fontsize="small", frameon=False
        )
    else:
        ax.legend(handles=handles, fontsize="small")
    return tidy(ax)
