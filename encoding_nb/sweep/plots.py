"""Plots of sweeps: which layer, how much context, which model, how many stories.

Every line is the median over voxels, the band around it their middle half. With several subjects each has a
thin line, and the thick one is the mean over them. Numbers: `tables.curve_table`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle
from ..plots import (
    CHOSEN,
    MEASURED,
    PREDICTED,
    SCORE,
    axes_or_new,
    beside,
    found_in_any,
    model_words,
    space_name,
    tidy,
    whose,
)
from .tables import (
    N_STORIES,
    SPREAD,
    check_known,
    curve_table,
    finished,
    listed_results,
    spread_table,
    varying_settings,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from ..pipeline import Result
    from .tables import SweepFailure


Array = np.ndarray

# Okabe and Ito's colours, with markers and dashes so that lines differ without colour, too
_COLOURS = (CHOSEN, PREDICTED, "#009E73", "#CC79A7", "#E69F00", MEASURED)
_MARKERS, _DASHES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
_MANY = 3  # lines from which bands would hide each other


def plot_layer_profiles(results: Sequence[Result | SweepFailure], **options: Any) -> Figure:
    """Scores by layer, a line per model; `options` and errors are those of `plot_sweep`."""
    defaults = {"x": "layer_idx", "by": "model_name", "label": "layer (0 is the embedding)"}
    return plot_sweep(results, **{**defaults, **options})


def plot_lookback(results: Sequence[Result | SweepFailure], **options: Any) -> Figure:
    """Scores by tokens of context, on a logarithmic axis; `options` and errors are those of `plot_sweep`."""
    defaults = {"x": "lookback", "by": "model_name", "label": "lookback (tokens)", "log": True}
    return plot_sweep(results, **{**defaults, **options})


def plot_learning_curve(results: Sequence[Result | SweepFailure], **options: Any) -> Figure:
    """Scores by the number of training stories, averaged over draws of equally many (`story_subsets`).

    `options` and errors are those of `plot_sweep`.
    """
    return plot_sweep(results, **{"x": N_STORIES, "label": "training stories", **options})


def plot_sweep(
    results: Sequence[Result | SweepFailure],
    *,
    x: str,
    by: str | None = None,
    voxels: Array | Mapping[str, Array] | None = None,
    label: str = "",
    log: bool = False,
    ax: Axes | None = None,
) -> Figure:
    """Scores along any numeric setting.

    Parameters
    ----------
    results : of a sweep; failed runs are left out, and the title counts them
    x, by, voxels : as in `curve_table`
    label : of the x axis
    log : whether x is logarithmic, in powers of two

    Raises
    ------
    ValueError
        As `curve_table`; an x that is not numeric.
    TypeError
        As `curve_table`.
    """
    results = listed_results(results, "plot_sweep")
    table = curve_table(results, x=x, by=by, voxels=voxels)
    if not all(isinstance(value, (int, float, np.number)) for value in table[x]):
        raise ValueError(f"Expected a numeric setting along the x axis, got {x} with {table[x][0]!r}.")
    lines = list(table.groupby(by or "line", sort=False, dropna=False))
    new, ax = ax is None, axes_or_new(ax, (6.8, 4.0))
    for number, (name, own) in enumerate(lines):
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        }
        _line(ax, own, x, _name(by, name) if by and len(lines) > 1 else "", look, bands=len(lines) <= _MANY)
    if log:
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    values = sorted(set(table[x]))
    if len(values) <= 16:
        ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set(xlabel=label or x.replace("_", " "), ylabel=SCORE)
    entitle(ax, *_title(results, table, chosen=voxels is not None), own=new)
    beside(ax, fontsize="small")
    return tidy(ax)


def _line(ax: Axes, own: DataFrame, x: str, name: str, look: dict[str, Any], *, bands: bool) -> None:
    """One line, its band, and its subjects' lines."""
    n_subjects = own["subject"].nunique()
    mean = own.groupby(x)[list(SPREAD)].mean()
    prefix, color = f"{name}: " if name else "", look["color"]
    if bands:
        if not name and n_subjects == 1:
            ax.fill_between(mean.index, mean["percentile_5"], mean["percentile_95"], color=color, alpha=0.15,
                            linewidth=0, label="middle 90 %")  # fmt: skip
        ax.fill_between(mean.index, mean["first_quartile"], mean["third_quartile"], color=color,
                        alpha=0.25, linewidth=0, label=f"{prefix}middle half of voxels")  # fmt: skip
    for number, (_, part) in enumerate(own.groupby("subject") if n_subjects > 1 else ()):
        label = None if number else f"{prefix}each subject"
        ax.plot(part[x], part["median"], color=color, linewidth=0.9, alpha=0.6, linestyle=look["linestyle"],
                label=label)  # fmt: skip
    what = "median voxel" if n_subjects == 1 else f"mean of {n_subjects} subjects"
    ax.plot(mean.index, mean["median"], linewidth=2.2, label=f"{prefix}{what}", **look)
    best = mean["median"].idxmax()
    ax.plot(best, mean["median"][best], "o", color="black", fillstyle="none", markersize=12)


def _name(by: str, value: Any) -> str:
    if by == "modality":
        return space_name(value)
    return PurePath(value).name if by == "model_name" else f"{by.replace('_', ' ')} {value}"


def _title(results: Sequence[Result | SweepFailure], table: DataFrame, *, chosen: bool) -> tuple[str, str]:
    """Whose data and what the models have in common; which voxels, and what is missing."""
    runs = finished(results)
    subjects = list(dict.fromkeys(whose(run) for run in runs))
    who = subjects[0] if len(subjects) == 1 else f"{len(subjects)} subjects"
    if len(subjects) > 1 and any(run.simulated for run in runs):
        who += " (simulated BOLD)"
    words = [model_words(run) for run in runs]
    common = [word for word in words[0] if all(word in other for other in words)]
    n_voxels = int(table.drop_duplicates("subject")["n_voxels"].sum())
    second = f"{n_voxels:,} voxels, {'chosen' if chosen else _which_voxels(runs)}"
    failed = len(results) - len(runs)
    if failed:
        second += f"; {failed} failed run{'s' if failed > 1 else ''} left out"
    return ", ".join([who, *common]), second


def _which_voxels(runs: Sequence[Result]) -> str:
    """Which voxels are shown by default, by subject, and by what test."""
    found = [
        found_in_any([run for run in runs if run.subject == subject])
        for subject in dict.fromkeys(run.subject for run in runs)
    ]
    if any(voxels is None for voxels, _ in found):
        return "all; " + next(test for voxels, test in found if voxels is None)
    return f"significant in at least one run ({'; '.join(dict.fromkeys(test for _, test in found))})"


def plot_model_comparison(
    results: Sequence[Result | SweepFailure],
    *,
    by: str = "model_name",
    voxels: Array | Mapping[str, Array] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Models side by side, each at its best values of the other settings that vary, the best model first.

    The line is the middle 90 percent of the voxels, the bar their middle half, the white dot the median, each as
    the mean over subjects; with several subjects, small dots are their medians. The setting is chosen by these
    same held-out scores (the highest mean over subjects of the median voxel), which flatters models with more
    layers: choose on one half of the stories and report the other where the difference matters.

    Parameters
    ----------
    by : the setting whose values are compared, such as "modality" for a language model and word rate
    voxels : as in `curve_table`

    Raises
    ------
    ValueError
        Fewer than two models, or as `curve_table`.
    TypeError
        As `curve_table`.
    """
    results = listed_results(results, "plot_model_comparison")
    runs = finished(results)
    check_known("by", by, runs)
    models = list(dict.fromkeys(getattr(run.settings, by) for run in runs))
    if len(models) < 2:
        raise ValueError(
            f"Expected results that differ in {by}, got {models[0] if models else 'no results'!r}."
        )
    settings = [by, *(name for name in varying_settings(runs) if name != by)]
    table = spread_table(runs, dict(zip(settings, settings, strict=True)), voxels)
    table = table.drop_duplicates(["subject", *settings], keep="last")
    best = [_best(_name(by, model), own, settings) for model, own in table.groupby(by, dropna=False)]
    best.sort(key=lambda found: -found[1]["median"].mean())
    own, ax = ax is None, axes_or_new(ax, (6.8, 1.7 + 0.5 * len(models)))
    for row, (_, found) in enumerate(best):
        median, first, third, low, high = found[list(SPREAD)].mean()
        ax.plot([low, high], [row, row], color="0.55", linewidth=1.2, zorder=1)
        ax.plot([first, third], [row, row], color=CHOSEN, linewidth=6, solid_capstyle="butt", zorder=2)
        if len(found) > 1:
            ax.plot(found["median"], [row + 0.25] * len(found), ".", color=MEASURED, markersize=5, zorder=3)
        ax.plot(median, row, "o", color="white", markeredgecolor="black", markersize=7, zorder=4)
    ax.set_yticks(range(len(models)), [name for name, _ in best])
    ax.set_ylim(len(models) - 0.5, -0.6)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    dots = "; dots: subjects" if table["subject"].nunique() > 1 else ""
    ax.set_xlabel(f"{SCORE}: median, middle half, middle 90 % of the voxels{dots}")
    entitle(ax, *_title(results, table, chosen=voxels is not None), own=own)
    return tidy(ax)


def _best(name: str, table: DataFrame, settings: Sequence[str]) -> tuple[str, DataFrame]:
    """A model's name with its best values of the settings after the first, and its rows of `table` there."""
    by, *others = settings
    points = [point for _, point in table.groupby(list(settings), sort=False, dropna=False)]
    most = max(map(len, points))  # a setting that failed for some subjects would be compared unfairly
    whole = [point for point in points if len(point) == most]
    best = max(whole, key=lambda point: np.nan_to_num(point["median"].mean(skipna=False), nan=-np.inf))
    # word rate has no layer, so a modality is labelled by what varies among its runs
    shown = [other for other in others if by != "modality" or table[other].nunique(dropna=False) > 1]
    values = {other.removesuffix("_idx").replace("_", " "): best[other].iloc[0] for other in shown}
    parts = [f"{other} {value}" for other, value in values.items() if not isinstance(value, tuple)]
    return (f"{name} ({', '.join(parts)})" if parts else name), best
