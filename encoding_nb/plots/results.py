"""Figures of a Result: one question each, with units, readable in grey and by the colour-blind.

Every function takes an `ax` or makes a new `matplotlib.figure.Figure`; pyplot is never used, so figures may
be made in any thread. If the BOLD is simulated, the title says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import brain
from .._figures import entitle
from .._validation import check_result
from . import _style
from ._style import ALL, CHOSEN, SCORE
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

    Voxels that are not significant are faded; `options` are those of `brain.flatmap`. Data by region are drawn as
    labelled bars instead (`plot_regions`), which have no options.

    Raises
    ------
    ValueError
        The data have neither a surface nor names of regions, or the run did not hold out the story.
    """
    check_result(result, "plot_flatmap")
    if result.surface is None and result.voxel_names is not None:
        return plot_regions(result, story=story, ax=ax, **options)
    surface = _style.surface_of(result)
    scores = result.scores if story is None else result.story_scores[_style.known_story(result, story)]
    title = _style.heading(result, story or "held-out stories")
    defaults = {"title": title, "units": f"{SCORE}, predicted with measured BOLD"}
    return brain.flatmap(scores, surface, ax=ax, **{**defaults, "significant": result.significant, **options})


def plot_stories(result: Result, *, ax: Axes | None = None) -> Figure:
    """How well each held-out story is predicted: the distribution of scores over voxels.

    Above each line are all voxels, below it those significant over all held-out stories; the ticks are medians.
    A diamond is the median noise ceiling of the significant voxels in a story that was heard repeatedly. Old records
    only have the mean noise ceiling of several stories, which is a dotted line through all of them.
    """
    check_result(result, "plot_stories")
    stories = list(result.story_scores)
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 1.9 + 0.75 * len(stories)))
    for row, story in enumerate(stories):
        scores = result.story_scores[story]
        _style.half_violin(ax, scores, row, up=True, color=ALL)
        _style.half_violin(ax, scores[result.significant], row, up=False, color=CHOSEN)
    _mark_ceilings(ax, result, stories)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(stories)), stories)
    ax.set_ylim(len(stories) - 0.45, -0.55)
    ax.set(xlabel=f"{SCORE}, predicted with measured BOLD")
    entitle(ax, _style.heading(result, "scores by story"), own=own)
    n_significant = int(result.significant.sum())
    handles = [
        _style.patch(ALL, f"all {len(result.scores):,} voxels"),
        _style.patch(CHOSEN, f"{n_significant:,} significant (FDR {result.settings.fdr_q:g})"),
        *ax.get_legend_handles_labels()[0],
    ]
    _style.legend(ax, handles, own=own)
    return _style.tidy(ax)


def _mark_ceilings(ax: Axes, result: Result, stories: Sequence[str]) -> None:
    """The noise ceiling of the significant voxels, on the lines of those stories whose ceiling is known."""
    if result.noise_ceiling is None or not result.significant.any():
        return
    ceilings = dict(result.story_noise_ceiling)
    if not ceilings and len(stories) == 1:
        ceilings = {stories[0]: result.noise_ceiling}
    if not ceilings:
        mean = float(np.nanmedian(result.noise_ceiling[result.significant]))
        ax.axvline(mean, color="black", linestyle=":", label="noise ceiling, mean of the repeated stories")
        return
    rows = [row for row, story in enumerate(stories) if story in ceilings]
    at = [float(np.nanmedian(ceilings[stories[row]][result.significant])) for row in rows]
    ax.plot(at, rows, "D", color="black", markersize=5, label="noise ceiling, median")


def plot_layers(results: Sequence[Result], *, voxels: Array | None = None, ax: Axes | None = None) -> Figure:
    """Scores by layer: median over voxels, with the middle half and the middle 90 percent of them.

    Parameters
    ----------
    results : sequence of Result
        One per layer, in any order.
    voxels : bool array, (n_voxels,), optional
        Which voxels; by default those significant in at least one of the results, which favours no layer.

    Raises
    ------
    ValueError
        No results, two of the same layer, results of different voxels, or no voxel to show.
    TypeError
        A single Result.
    """
    label = "layer (0 is the embedding)"
    return plot_profile(results, setting="layer_idx", label=label, voxels=voxels, ax=ax)


def plot_profile(
    results: Sequence[Result],
    *,
    setting: str,
    label: str = "",
    voxels: Array | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Scores by any numeric setting, such as "lookback"; see `plot_layers`."""
    results, values = _style.results_by(setting, results)
    found = np.any([result.significant for result in results], axis=0) if voxels is None else voxels
    chosen = _style.chosen_voxels(found, len(results[0].scores))
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 3.8))
    scores = np.array([result.scores[chosen] for result in results])
    _style.bands(ax, values, scores)
    best = int(np.nanmedian(scores, axis=1).argmax())
    ax.plot(values[best], np.nanmedian(scores[best]), "o", color="black", fillstyle="none", markersize=12)
    which = "significant in at least one" if voxels is None else "chosen"
    title = _style.heading(results[0], varying=setting)
    entitle(ax, title, f"{int(chosen.sum()):,} voxels, {which}; best at {values[best]}", own=own)
    ax.set(xlabel=label or setting, ylabel=SCORE)
    ax.set_xticks(values)
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    _style.beside(ax, fontsize="small")
    return _style.tidy(ax)


def plot_alphas(result: Result, *, ax: Axes | None = None) -> Figure:
    """Which alphas cross-validation chose, with a note if many are at an end of the grid."""
    check_result(result, "plot_alphas")
    grid = np.sort(np.asarray(result.settings.alpha_grid, float))
    chosen = np.atleast_2d(result.best_alphas)
    groups = [(f"all {chosen.shape[1]:,} voxels", chosen, ALL)]
    if result.significant.any():
        name = f"{int(result.significant.sum()):,} significant voxels"
        groups.append((name, chosen[:, result.significant], CHOSEN))
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 3.8))
    for i, (name, alphas, color) in enumerate(groups):
        shares = _shares(alphas, grid)
        at = np.arange(len(grid)) + (i - (len(groups) - 1) / 2) * 0.4
        ax.bar(at, 100 * shares, 0.4, color=color, label=name)
    note = _pile_note(shares, grid, groups[-1][0])
    entitle(ax, _style.heading(result, "chosen alphas"), note, own=own)
    ax.set_xticks(range(len(grid)), [f"{alpha:.3g}" for alpha in grid], rotation=45, ha="right")
    ax.set(xlabel="alpha (penalty, as in scikit-learn)", ylabel="voxels (%)")
    _style.legend(ax, own=own)
    return _style.tidy(ax)


def _shares(alphas: Array, grid: Array) -> Array:
    """(n_grid,): the share of chosen alphas at each point of the grid; the nearest, since files round."""
    logs, known = np.log(alphas[np.isfinite(alphas) & (alphas > 0)]), np.log(np.maximum(grid, 1e-300))
    nearest = np.abs(logs[:, None] - known[None]).argmin(1)
    return np.bincount(nearest, minlength=len(grid)) / max(len(nearest), 1)


def _pile_note(shares: Array, grid: Array, voxels: str) -> str:
    notes = []
    for end, word in ((0, "smallest"), (len(grid) - 1, "largest")):
        if shares[end] > PILED_UP and len(grid) > 1:
            share = f"{100 * shares[end]:.0f} % of {voxels}"
            notes.append(f"{share} have the {word} alpha: extend the grid there")
    return "; ".join(notes)
