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
from ._style import ALL, CHOSEN, ESTIMATE, SCORE
from .regions import plot_regions, shown_values

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import Result, ShiftTest

Array = np.ndarray

PILED_UP = 0.25  # share of voxels at an end of the alpha grid from which the plot says so


def plot_flatmap(
    result: Result, *, values: str = "score", story: str | None = None, ax: Axes | None = None, **options: Any
) -> Figure:
    """The scores of a run, or of one of its held-out stories, on the flattened cortex.

    Voxels that are not significant are faded, if the run is tested; the caption names the test. Data by region are
    drawn as labelled bars instead (`plot_regions`), which have no options.

    Parameters
    ----------
    result : Result
    values : "score", "ceiling" or "share"
        The scores; the noise ceilings, faded where they are not above chance; or the scores as a share of the noise
        ceilings, r / ceiling, where the ceilings are above chance (the caption says how many voxels are not shown).
        Ceilings are estimates, and single voxels can exceed them.
    story : str, optional
        One of the held-out stories.
    ax : Axes, optional
    options
        Those of `brain.flatmap`.

    Raises
    ------
    ValueError
        The data have neither a surface nor names of regions, the run did not hold out the story, or there is no noise
        ceiling.
    """
    check_result(result, "plot_flatmap")
    if result.surface is None and result.voxel_names is not None:
        return plot_regions(result, values=values, story=story, ax=ax, **options)
    surface = _style.surface_of(result)
    shown, units, look = shown_values(result, values, story)
    title = _style.heading(result, story or "held-out stories")
    if "significant" in options:
        look = {}  # whatever these flags are, they are not the run's
    return brain.flatmap(shown, surface, ax=ax, **{"title": title, "units": units, **look, **options})


def plot_stories(result: Result, *, ax: Axes | None = None) -> Figure:
    """How well each held-out story is predicted: the distribution of scores over voxels.

    Above each line are all voxels, below it those significant over all held-out stories; the ticks are medians.
    A diamond is the median noise ceiling of the significant voxels in a story that was heard repeatedly; it is empty if
    that is not above chance. Old records only have the mean noise ceiling of several stories, which is a dotted line
    through all of them. Without a test there are only all voxels, and the title says why.
    """
    check_result(result, "plot_stories")
    stories = list(result.story_scores)
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 1.9 + 0.75 * len(stories)))
    for row, story in enumerate(stories):
        scores = result.story_scores[story]
        _style.half_violin(ax, scores, row, up=True, color=ALL)
        if result.significant is not None:
            _style.half_violin(ax, scores[result.significant], row, up=False, color=CHOSEN)
    _mark_ceilings(ax, result, stories)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(stories)), stories)
    ax.set_ylim(len(stories) - 0.45, -0.55)
    ax.set(xlabel=f"{SCORE}, predicted with measured BOLD")
    tested = _style.test_line(result.significant, result.test_name)
    entitle(ax, _style.heading(result, "scores by story"), tested, own=own)
    handles = [_style.patch(ALL, f"all {len(result.scores):,} voxels")]
    if result.significant is not None:
        n_significant = int(result.significant.sum())
        handles.append(_style.patch(CHOSEN, f"{n_significant:,} significant (FDR {result.settings.fdr_q:g})"))
    _style.legend(ax, handles + ax.get_legend_handles_labels()[0], own=own)
    return _style.tidy(ax)


def _mark_ceilings(ax: Axes, result: Result, stories: Sequence[str]) -> None:
    """The noise ceiling of the significant (untested: all) voxels, on the lines of stories whose ceiling is known."""
    found = np.ones(len(result.scores), bool) if result.significant is None else result.significant
    if result.noise_ceiling is None or not np.isfinite(result.noise_ceiling[found]).any():
        return
    ceilings = dict(result.story_noise_ceiling)
    if not ceilings and len(stories) == 1:
        ceilings = {stories[0]: result.noise_ceiling}
    if not ceilings:
        mean = float(np.nanmedian(result.noise_ceiling[found]))
        chance = "" if mean >= brain.chance_ceiling(result) else "\nnot above chance"
        label = f"noise ceiling, mean of the repeated stories\n({ESTIMATE}){chance}"
        ax.axvline(mean, color="black", linestyle=":", label=label)
        return
    at = {story: float(np.nanmedian(ceilings[story][found])) for story in stories if story in ceilings}
    above = {story for story, median in at.items() if median >= brain.chance_ceiling(result, story)}
    for which, fill, label in (
        (above, "full", f"noise ceiling, median\n({ESTIMATE})"),
        (at.keys() - above, "none", "noise ceiling, median,\nnot above chance"),
    ):
        rows = [row for row, story in enumerate(stories) if story in which]
        if rows:
            medians = [at[stories[row]] for row in rows]
            ax.plot(medians, rows, "D", color="black", fillstyle=fill, markersize=5, label=label)


def plot_layers(results: Sequence[Result], *, voxels: Array | None = None, ax: Axes | None = None) -> Figure:
    """Scores by layer: median over voxels, with the middle half and the middle 90 percent of them.

    Parameters
    ----------
    results : sequence of Result
        One per layer, in any order.
    voxels : bool array, (n_voxels,), optional
        Which voxels; by default those significant in at least one of the results, which favours no layer, or all if
        any of the results is not tested.

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
    n_voxels = len(results[0].scores)
    found, test = _style.found_in_any(results) if voxels is None else (voxels, "")
    chosen = np.ones(n_voxels, bool) if found is None else _style.chosen_voxels(found, n_voxels)
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 3.8))
    scores = np.array([result.scores[chosen] for result in results])
    _style.bands(ax, values, scores)
    best = int(np.nanmedian(scores, axis=1).argmax())
    ax.plot(values[best], np.nanmedian(scores[best]), "o", color="black", fillstyle="none", markersize=12)
    which = f"{int(chosen.sum()):,} voxels"
    if voxels is not None:
        which += ", chosen"
    else:
        which = f"all {which}" if found is None else f"{which}, significant in at least one"
        test = _style.test_line(found, test)
    title = _style.heading(results[0], varying=setting)
    entitle(ax, title, f"{which}; best at {values[best]}", test, own=own)
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
    if result.significant is not None and result.significant.any():
        name = f"{int(result.significant.sum()):,} significant voxels"
        groups.append((name, chosen[:, result.significant], CHOSEN))
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 3.8))
    for i, (name, alphas, color) in enumerate(groups):
        shares = _shares(alphas, grid)
        at = np.arange(len(grid)) + (i - (len(groups) - 1) / 2) * 0.4
        ax.bar(at, 100 * shares, 0.4, color=color, label=name)
    note = _pile_note(shares, grid, groups[-1][0])
    tested = _style.test_line(result.significant, result.test_name)
    entitle(ax, _style.heading(result, "chosen alphas"), tested, note, own=own)
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


MOST_ENTRIES = 40  # rows of a shift test's plot


def plot_shift_test(test: ShiftTest, *, ax: Axes | None = None) -> Figure:
    """A shift test: the observed values, and the range of the same with shifted data.

    Each row is a region, or a voxel; of more than 40, those that are furthest above their null. The first row is the
    mean over all. A bar covers the middle 95 % of the shifts, a tick their mean, and filled dots are significant.

    Parameters
    ----------
    test : ShiftTest
    ax : Axes, optional
    """
    means = np.nanmean(test.nulls, axis=1, keepdims=True)
    t = (test.observed - test.null_mean) / test.null_sd
    chosen = np.argsort(-np.nan_to_num(t, nan=-np.inf), kind="stable")[:MOST_ENTRIES]
    chosen = np.sort(chosen) if len(t) <= MOST_ENTRIES else chosen
    what = "regions" if test.voxels is None else "voxels"
    values = np.append(np.nanmean(test.observed), test.observed[chosen])
    nulls = np.column_stack([means, test.nulls[:, chosen]])
    names = [f"mean of {len(test.observed)} {what}", *(test.names[i] for i in chosen)]
    pvalues = np.append(test.mean[3], test.pvalues[chosen])
    filled = np.append(test.mean[3] <= 0.05, test.significant[chosen])
    own = ax is None
    ax = _style.axes_or_new(ax, (6.8, 1.6 + 0.24 * len(names)))
    rows = -np.arange(len(names))
    low, high = np.nanquantile(nulls, [0.025, 0.975], axis=0)
    ax.hlines(rows, low, high, color=ALL, linewidth=7, label=f"95 % of {len(nulls)} shifts")
    ax.plot(np.nanmean(nulls, axis=0), rows, "|", color="0.35", markersize=9, label="their mean")
    ax.scatter(
        values,
        rows,
        s=34,
        zorder=3,
        edgecolor=CHOSEN,
        color=[CHOSEN if f else "white" for f in filled],
        label="observed",
    )
    for row, value, p, top in zip(rows, values, pvalues, high, strict=True):
        ax.annotate(
            f"p {p:.3f}", (max(value, top), row), (8, 0), textcoords="offset points", va="center", fontsize=8
        )
    ax.axvline(0, color="0.8", linewidth=0.8, zorder=0)
    ax.set_yticks(rows, names)
    score = "R²" if test.statistic == "r2" else "r"
    ax.set_xlabel(f"gain in {score}" if test.against is not None else score)
    shifted = "BOLD" if test.shift == "bold" else "features"
    entitle(ax, f"Shifted {shifted}, each fitted anew (least p {test.least_p:.3g})", own=own)
    ax.margins(x=0.15)
    below = -0.6 / (0.24 * len(names) + 0.5)  # of the axes' height: under the label of x
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, below), ncols=3, fontsize=8, frameon=False)
    return _style.tidy(ax)
