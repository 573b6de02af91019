"""Figures of a Result: one question each, with units, readable in grey and by the colour-blind.

Every function takes an `ax` or makes a new `matplotlib.figure.Figure`; pyplot is never used, so figures may
be made in any thread. Where the BOLD is simulated, the title says so. Comparisons of runs, pictures of the
design and plots by region have files of their own and are to be had from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import brain
from .._figures import entitle
from .._validation import require_result
from ._style import (
    ALL,
    CHOSEN,
    SCORE,
    axes_or_new,
    beside,
    chosen_voxels,
    half_violin,
    heading,
    known_story,
    patch,
    require_results,
    tidy,
)
from .regions import plot_regions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import Result


Array = np.ndarray

PILED_UP = 0.25  # share of voxels at an end of the alpha grid from which the plot says so


def plot_flatmap(
    result: Result, *, story: str | None = None, ax: Axes | None = None, **options: Any
) -> Figure:
    """The scores of a run, or of one of its held-out stories, on the flattened cortex.

    Voxels that are not significant are faded; `options` are those of `brain.flatmap`. Data that come by region
    are drawn as labelled bars instead (`plot_regions`), for which there are no options.

    Raises
    ------
    ValueError
        The run's data have neither a surface nor names of regions, or it did not hold out the story.
    """
    require_result(result, "plot_flatmap")
    if result.surface is None and result.voxel_names is not None:
        return plot_regions(result, story=story, ax=ax, **options)
    if result.surface is None:
        raise ValueError(
            f"{result.subject}: these data name no cortical surface to draw them on; give the assembly a "
            f"Surface(subject, transform, mask), or use the other plots."
        )
    scores = result.scores if story is None else result.story_scores[known_story(result, story)]
    title = heading(result, story or "held-out stories")
    defaults = {"title": title, "units": f"{SCORE}, predicted with measured BOLD"}
    return brain.flatmap(
        scores, result.surface, ax=ax, **{**defaults, "significant": result.significant, **options}
    )


def plot_stories(result: Result, *, ax: Axes | None = None) -> Figure:
    """How well each held-out story is predicted: the distribution of scores over voxels.

    Above each line all voxels, below it those significant over all held-out stories; the ticks are medians.
    A diamond is the median noise ceiling of the significant voxels in a story that was heard repeatedly. A record
    from before ceilings were kept by story has their mean alone, which is drawn as a line through several stories.
    """
    require_result(result, "plot_stories")
    stories = list(result.story_scores)
    own, ax = ax is None, axes_or_new(ax, (6.4, 1.9 + 0.75 * len(stories)))
    for row, story in enumerate(stories):
        scores = result.story_scores[story]
        half_violin(ax, scores, row, up=True, color=ALL)
        half_violin(ax, scores[result.significant], row, up=False, color=CHOSEN)
    _mark_ceilings(ax, result, stories)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(stories)), stories)
    ax.set_ylim(len(stories) - 0.45, -0.55)
    ax.set(xlabel=f"{SCORE}, predicted with measured BOLD")
    entitle(ax, heading(result, "scores by story"), own=own)
    n_significant = int(result.significant.sum())
    handles = [
        patch(ALL, f"all {len(result.scores):,} voxels"),
        patch(CHOSEN, f"{n_significant:,} significant (FDR {result.settings.fdr_q:g})"),
        *ax.get_legend_handles_labels()[0],
    ]
    if own:  # beside the axes, so that it covers nothing; a caller's layout may have no room there
        ax.figure.legend(
            handles=handles, loc="outside lower center", ncols=2, fontsize="small", frameon=False
        )
    else:
        ax.legend(handles=handles, fontsize="small")
    return tidy(ax)


def _mark_ceilings(ax: Axes, result: Result, stories: Sequence[str]) -> None:
    """The noise ceiling of the significant voxels, on the lines of those stories whose own is known."""
    if result.noise_ceiling is None or not result.significant.any():
        return
    ceilings = dict(result.story_noise_ceiling)
    if not ceilings and len(stories) == 1:
        ceilings = {stories[0]: result.noise_ceiling}
    if not ceilings:
        mean = float(np.nanmedian(result.noise_ceiling[result.significant]))
        ax.axvline(mean, color="black", linestyle=":", label="noise ceiling, mean of the stories heard again")
        return
    rows = [row for row, story in enumerate(stories) if story in ceilings]
    at = [float(np.nanmedian(ceilings[stories[row]][result.significant])) for row in rows]
    ax.plot(
        at, rows, marker="D", color="black", linestyle="none", markersize=5, label="noise ceiling, median"
    )


def plot_layers(results: Sequence[Result], *, voxels: Array | None = None, ax: Axes | None = None) -> Figure:
    """Scores by layer: median over voxels, with the middle half and the middle 90 percent of them.

    Parameters
    ----------
    results : sequence of Result
        One per layer, in any order.
    voxels : bool array, (n_voxels,), optional
        Which voxels; those significant in at least one of the results by default, which favours every layer
        alike.

    Raises
    ------
    ValueError
        No results, two of the same layer, results of different voxels, or no voxel to show.
    """
    results = require_results(results, "plot_layers")
    return plot_profile(
        results, setting="layer_idx", label="layer (0 is the embedding)", voxels=voxels, ax=ax
    )


def plot_profile(
    results: Sequence[Result],
    *,
    setting: str,
    label: str = "",
    voxels: Array | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Scores by any numeric setting, such as "lookback"; see `plot_layers`."""
    results = require_results(results, "plot_profile")
    if not results:
        raise ValueError(f"Expected results that differ in {setting}, got none.")
    results = sorted(results, key=lambda result: getattr(result.settings, setting))
    values = [getattr(result.settings, setting) for result in results]
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(
            f"Expected one result per {setting}, got {values.count(twice)} with {setting} {twice}."
        )
    sizes = {len(result.scores) for result in results}
    if len(sizes) > 1:
        raise ValueError(
            f"Expected results of the same voxels, got {', '.join(map(str, sorted(sizes)))} voxels."
        )
    found = np.any([result.significant for result in results], axis=0) if voxels is None else voxels
    chosen = chosen_voxels(found, len(results[0].scores))
    own, ax = ax is None, axes_or_new(ax, (6.4, 3.8))
    scores = np.array([result.scores[chosen] for result in results])
    _band_plot(ax, values, scores)
    best = int(np.nanmedian(scores, axis=1).argmax())
    ax.plot(values[best], np.nanmedian(scores[best]), "o", color="black", fillstyle="none", markersize=12)
    which = "significant in at least one" if voxels is None else "chosen"
    title = heading(results[0], varying=setting)
    entitle(ax, title, f"{int(chosen.sum()):,} voxels, {which}; best at {values[best]}", own=own)
    ax.set(xlabel=label or setting, ylabel=SCORE)
    ax.set_xticks(values)
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    beside(ax, fontsize="small")
    return tidy(ax)


def plot_alphas(result: Result, *, ax: Axes | None = None) -> Figure:
    """Which alphas cross-validation chose; says so where they pile up at an end of the grid."""
    require_result(result, "plot_alphas")
    grid = np.sort(np.asarray(result.settings.alphas, float))
    chosen = np.atleast_2d(result.best_alphas)
    groups = [(f"all {chosen.shape[1]:,} voxels", chosen, ALL)]
    if result.significant.any():
        name = f"{int(result.significant.sum()):,} significant"
        groups.append((name, chosen[:, result.significant], CHOSEN))
    own, ax = ax is None, axes_or_new(ax, (6.4, 3.8))
    for i, (name, alphas, color) in enumerate(groups):
        shares = _shares(alphas, grid)
        ax.bar(
            np.arange(len(grid)) + (i - (len(groups) - 1) / 2) * 0.4,
            100 * shares,
            0.4,
            color=color,
            label=name,
        )
    note = _pile_note(_shares(groups[-1][1], grid), grid, groups[-1][0])
    entitle(ax, heading(result, "chosen alphas"), note, own=own)
    ax.set_xticks(range(len(grid)), [f"{alpha:.3g}" for alpha in grid], rotation=45, ha="right")
    ax.set(xlabel="alpha (penalty, as scikit-learn counts it)", ylabel="voxels (%)")
    if own:
        ax.figure.legend(loc="outside lower center", ncols=2, fontsize="small", frameon=False)
    else:
        ax.legend(fontsize="small")
    return tidy(ax)


def _shares(alphas: Array, grid: Array) -> Array:
    """(n_grid,): the share of chosen alphas at each point of the grid; the nearest, since files round."""
    logs, known = np.log(alphas[np.isfinite(alphas) & (alphas > 0)]), np.log(np.maximum(grid, 1e-300))
    nearest = np.abs(logs[:, None] - known[None]).argmin(1)
    return np.bincount(nearest, minlength=len(grid)) / max(len(nearest), 1)


def _pile_note(shares: Array, grid: Array, who: str) -> str:
    notes = []
    for end, word in ((0, "smallest"), (len(grid) - 1, "largest")):
        if shares[end] > PILED_UP and len(grid) > 1:
            notes.append(f"{100 * shares[end]:.0f} % of {who} chose the {word} alpha: widen the grid there")
    return "; ".join(notes)


def _band_plot(ax: Axes, x: Sequence[float], scores: Array) -> None:
    """Median and bands over the columns of (n_x, n_voxels) scores."""
    low, first, median, third, high = np.nanpercentile(scores, [5, 25, 50, 75, 95], axis=1)
    ax.fill_between(x, low, high, color=CHOSEN, alpha=0.18, linewidth=0, label="middle 90 %")
    ax.fill_between(x, first, third, color=CHOSEN, alpha=0.4, linewidth=0, label="middle half")
    ax.plot(x, median, color=CHOSEN, linewidth=2, marker="o", label="median voxel")
