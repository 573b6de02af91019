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
from ..plots import CHOSEN, MEASURED, PREDICTED, SCORE, axes_or_new, beside, tidy, whose
from .tables import (
    N_STORIES,
    SPREAD,
    curve_table,
    listed_results,
    refuse_unknown,
    shown_voxels,
    spread,
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
    line = by or "line"
    names = list(dict.fromkeys(table[line]))
    new, ax = ax is None, axes_or_new(ax, (6.8, 4.0))
    for number, name in enumerate(names):
        own = table[table[line] == name]
        look = {
            "color": _COLOURS[number % len(_COLOURS)],
            "marker": _MARKERS[number % len(_MARKERS)],
            "linestyle": _DASHES[number // len(_COLOURS) % len(_DASHES)],
        }
        _line(ax, own, x, _name(by, name) if by and len(names) > 1 else "", look, bands=len(names) <= _MANY)
    if log:
        ax.set_xscale("log", base=2)
        ax.minorticks_off()
    values = sorted(set(table[x]))
    if len(values) <= 16:
        ax.set_xticks(values, [f"{value:g}" for value in values])
    ax.axhline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set(xlabel=label or x.replace("_", " "), ylabel=SCORE)
    n_voxels = int(table.drop_duplicates("subject")["n_voxels"].sum())
    entitle(ax, *_title(results, n_voxels, {x}, chosen=voxels is not None).split("\n"), own=new)
    beside(ax, fontsize="small")
    return tidy(ax)


def _line(ax: Axes, own: DataFrame, x: str, name: str, look: dict[str, Any], *, bands: bool) -> None:
    """One line, its band, and its subjects' lines."""
    subjects = list(dict.fromkeys(own["subject"]))
    mean = own.groupby(x)[list(SPREAD)].mean()
    prefix = f"{name}: " if name else ""
    if bands:
        if not name and len(subjects) == 1:
            ax.fill_between(mean.index, mean["percentile_5"], mean["percentile_95"], color=look["color"], alpha=0.15,
                            linewidth=0, label="middle 90 %")  # fmt: skip
        ax.fill_between(mean.index, mean["first_quartile"], mean["third_quartile"], color=look["color"],
                        alpha=0.25, linewidth=0, label=f"{prefix}middle half of voxels")  # fmt: skip
    if len(subjects) > 1:
        for number, subject in enumerate(subjects):
            part = own[own["subject"] == subject]
            label = f"{prefix}each subject" if number == 0 else None
            ax.plot(part[x], part["median"], color=look["color"], linewidth=0.9, alpha=0.6,
                    linestyle=look["linestyle"], label=label)  # fmt: skip
    what = "median voxel" if len(subjects) == 1 else f"mean of {len(subjects)} subjects"
    ax.plot(mean.index, mean["median"], linewidth=2.2, label=f"{prefix}{what}", **look)
    best = mean["median"].idxmax()
    ax.plot(best, mean["median"][best], "o", color="black", fillstyle="none", markersize=12)


def _name(by: str, value: Any) -> str:
    if by == "modality":
        return value.replace("_", " ")
    return PurePath(value).name if by == "model_name" else f"{by.replace('_', ' ')} {value}"


def _title(
    results: Sequence[Result | SweepFailure], n_voxels: int, varying: set[str | None], *, chosen: bool
) -> str:
    """Whose data, what does not vary, which voxels, and what is missing."""
    runs = [result for result in results if hasattr(result, "scores")]
    subjects = list(dict.fromkeys(whose(run) for run in runs))
    who = subjects[0] if len(subjects) == 1 else f"{len(subjects)} subjects"
    if len(subjects) > 1 and any(run.simulated for run in runs):
        who += " (simulated BOLD)"
    settings = runs[0].settings
    parts = []
    if settings.modality == "language_model":
        named = {
            "model_name": PurePath(settings.model_name).name,
            "layer_idx": f"layer {settings.layer_idx}",
            "lookback": f"lookback {settings.lookback}",
        }
        varying = varying | set(varying_settings(runs))
        parts = [text for name, text in named.items() if name not in varying]
    second = f"{n_voxels:,} voxels, {'chosen' if chosen else 'significant in at least one run'}"
    failed = len(results) - len(runs)
    if failed:
        second += f"; {failed} failed run{'s' if failed > 1 else ''} left out"
    return f"{', '.join([who, *parts])}\n{second}"


def plot_model_comparison(
    results: Sequence[Result | SweepFailure],
    *,
    by: str = "model_name",
    voxels: Array | Mapping[str, Array] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Models side by side, each at its best setting of whatever else varies, the best model first.

    The line is the middle 90 percent of the voxels, the bar their middle half, the white dot the median, each as
    the mean over subjects; with several subjects, small dots are their medians. The setting is chosen by these
    same held-out scores (the highest mean over subjects of the median voxel), which flatters models with more
    layers: choose on one half of the stories and report the other where the difference matters.

    Parameters
    ----------
    by : the setting whose values are compared, such as "modality" for a language model beside word rate
    voxels : as in `curve_table`

    Raises
    ------
    ValueError
        Fewer than two models, or as `curve_table`.
    TypeError
        As `curve_table`.
    """
    results = listed_results(results, "plot_model_comparison")
    runs = [result for result in results if hasattr(result, "scores")]
    refuse_unknown("by", by, runs)
    models = list(dict.fromkeys(getattr(run.settings, by) for run in runs))
    if len(models) < 2:
        raise ValueError(
            f"Expected results that differ in {by}, got {models[0] if models else 'no results'!r}."
        )
    others = [name for name in varying_settings(runs) if name != by]
    subjects = list(dict.fromkeys(run.subject for run in runs))
    masks = {subject: shown_voxels(runs, subject, voxels) for subject in subjects}
    best = {model: _best(runs, by, model, others, masks) for model in models}
    # a layer says nothing of word rate, so modalities are told by what varies among their own runs
    told = {
        model: varying_settings([run for run in runs if run.settings.modality == model])
        if by == "modality"
        else others
        for model in models
    }
    models.sort(key=lambda model: -np.nanmean([found[0] for found in best[model][1].values()]))
    own, ax = ax is None, axes_or_new(ax, (6.8, 1.7 + 0.5 * len(models)))
    for row, model in enumerate(models):
        found = np.array(list(best[model][1].values()))
        median, first, third, low, high = np.nanmean(found, axis=0)
        ax.plot([low, high], [row, row], color="0.55", linewidth=1.2, zorder=1)
        ax.plot([first, third], [row, row], color=CHOSEN, linewidth=6, solid_capstyle="butt", zorder=2)
        if len(found) > 1:
            ax.plot(found[:, 0], np.full(len(found), row + 0.25), ".", color=MEASURED, markersize=5, zorder=3)
        ax.plot(median, row, "o", color="white", markeredgecolor="black", markersize=7, zorder=4)
    ax.set_yticks(
        range(len(models)),
        [_with_setting(by, model, others, best[model][0], told[model]) for model in models],
    )
    ax.set_ylim(len(models) - 0.5, -0.6)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    dots = "; dots: subjects" if len(subjects) > 1 else ""
    ax.set_xlabel(f"{SCORE}: median, middle half, middle 90 % of the voxels{dots}")
    counts = {subject: int(mask.sum()) for subject, mask in masks.items()}
    title = _title(results, sum(counts.values()), {by, *others}, chosen=voxels is not None)
    entitle(ax, *title.split("\n"), own=own)
    return tidy(ax)


def _best(
    runs: Sequence[Result], by: str, model: Any, others: Sequence[str], masks: Mapping[str, Array]
) -> tuple[tuple, dict[str, Array]]:
    """The values of `others` at which a model does best over its subjects, and each subject's spread there."""
    found: dict[tuple, dict[str, Array]] = {}
    for run in runs:
        if getattr(run.settings, by) == model:
            key = tuple(getattr(run.settings, name) for name in others)
            found.setdefault(key, {})[run.subject] = spread(run.scores[masks[run.subject]])
    most = max(map(len, found.values()))  # a setting that failed for some subjects would be compared unfairly
    whole = {key: spreads for key, spreads in found.items() if len(spreads) == most}
    return max(
        whole.items(), key=lambda item: np.nan_to_num(np.mean([s[0] for s in item[1].values()]), nan=-np.inf)
    )


def _with_setting(by: str, model: Any, others: Sequence[str], key: tuple, told: Sequence[str]) -> str:
    """A model's name with those of its settings that are `told`."""
    short = {"layer_idx": "layer"}
    parts = [f"{short.get(name, name.replace('_', ' '))} {value}" for name, value in zip(others, key, strict=True)
             if not isinstance(value, tuple) and name in told]  # fmt: skip
    name = _name(by, model)
    return f"{name} ({', '.join(parts)})" if parts else name
