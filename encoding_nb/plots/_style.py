"""What the plots share: colours, headings, axes, and the shape of a distribution."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import new_axes
from .._validation import describe, require_result
from ..brain import VERTICES
from ..scoring import checked_flags

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import Result


Array = np.ndarray

# Okabe and Ito's colours, whose lightness differs too
ALL, CHOSEN, MEASURED, PREDICTED = "0.72", "#0072B2", "0.25", "#D55E00"
SCORE = "correlation (r)"


def heading(result: Result, what: str = "", *, varying: str = "") -> str:
    """Whose data, by which model: the first line of every title."""
    parts = [what] if what else []
    return f"{whose(result)}: {', '.join([*parts, *model_words(result, varying=varying)])}"


def whose(result: Any) -> str:
    """The subject, and that its BOLD is simulated where it is."""
    simulated = " (simulated BOLD)" if result.simulated and "simulated" not in result.subject else ""
    return f"{result.subject}{simulated}"


def model_words(result: Result, *, varying: str = "") -> list[str]:
    """The feature space of a run in words, without the setting that varies."""
    settings = result.settings
    joined = [f"with {space_name(name)}" for name in getattr(settings, "joined_with", ())]
    if settings.modality != "language_model":
        return [space_name(settings.modality), *joined]
    named = {"layer_idx": f"layer {settings.layer_idx}", "lookback": f"lookback {settings.lookback}"}
    chosen = [text for name, text in named.items() if name != varying]
    kind = ["approximate (strided)"] if settings.approximate else []
    return [PurePath(settings.model_name).name, *chosen, *kind, *joined]


def space_name(modality: str) -> str:
    """A feature space as it is written in a plot."""
    return {"wordrate": "word rate"}.get(modality, modality.replace("_", " "))


def require_results(results: Any, caller: str) -> list[Result]:
    """Several results as a list, refused where there is one alone, or something else among them.

    Raises
    ------
    TypeError
    """
    if hasattr(results, "scores") or not isinstance(results, Iterable) or isinstance(results, str):
        one = "a Result alone" if hasattr(results, "scores") else describe(results)
        raise TypeError(
            f"{caller}: expected a list of Results, got {one}; pass [result_a, result_b], or those of run_sweep."
        )
    results = list(results)
    for result in results:
        require_result(result, caller)
    return results


def chosen_voxels(voxels: Any, n_voxels: int, such: str = "such as a result's rois['AC']") -> Array:
    """The mask of the voxels to show, (n_voxels,) bool, refused where it is none or chooses none."""
    flags = checked_flags(voxels, "voxels", f"pass a mask, {such}")
    if flags.shape != (n_voxels,) or not flags.any():
        raise ValueError(
            f"Expected a mask of {n_voxels} voxels with at least one chosen, got {int(flags.sum())} chosen of "
            f"{flags.size}; pass `voxels`, {such}."
        )
    return flags


def check_seconds(story: str, **ends: Any) -> None:
    """Refuse ends of a stretch that are no numbers."""
    for name, value in ends.items():
        if value is not None and not isinstance(value, Real):
            raise ValueError(
                f"{story}: expected {name} in seconds from the start of the sound, got {value!r}."
            )


def known_story(result: Result, story: str) -> str:
    """`story`, refused where the run did not hold it out."""
    if story not in result.story_scores:
        raise ValueError(
            f"No held-out story {story!r} in this result; it has {', '.join(result.story_scores)}."
        )
    return story


def voxel_words(result: Result, voxel: int) -> str:
    """A voxel's number and the areas it lies in, or the name of a region."""
    if result.voxel_names is not None:
        return result.voxel_names[voxel]
    areas = [name for name, mask in result.rois.items() if mask[voxel]]
    return f"{unit(result)} {voxel}" + (f" in {', '.join(areas)}" if areas else "")


def unit(result: Result) -> str:
    """What a score is of: "vertex", "region" or "voxel"."""
    if result.surface is not None and result.surface.mask == VERTICES:
        return "vertex"
    return "voxel" if result.voxel_names is None else "region"


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """`ax`, or the axes of a new figure."""
    return new_axes(size) if ax is None else ax


def tidy(ax: Axes) -> Figure:
    """Take the frame's upper and right edges away; returns the figure."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax.figure


def patch(color: str, label: str, **look: Any) -> Any:
    """A coloured square for a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label, **look)


def half_violin(ax: Axes, scores: Array, row: int, *, up: bool, color: str) -> None:
    """Half a violin on the line `row`, with its median; the median alone where there are few values."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return
    side = -1 if up else 1  # the axis runs downwards
    if len(scores) > 5 and np.ptp(scores) > 0:
        edges = np.linspace(*np.percentile(scores, [0.1, 99.9]), 60)
        counts = np.histogram(scores, edges)[0].astype(float)
        width = 0.42 * np.convolve(counts, [0.25, 0.5, 0.25], "same") / max(counts.max(), 1)
        centres = (edges[1:] + edges[:-1]) / 2
        ax.fill_between(centres, row, row + side * width, color=color, linewidth=0)
    ax.plot([np.median(scores)] * 2, [row, row + side * 0.42], color="black", linewidth=1.5)


def interval(ax: Axes, values: Array, row: float, *, color: str, middle: str = "mean") -> None:
    """On the line `row`: the mean or median as a dot, the middle half as a bar, the middle 90 percent as a line."""
    values = values[np.isfinite(values)]
    if not len(values):
        return
    low, first, third, high = np.percentile(values, [5, 25, 75, 95])
    ax.plot([low, high], [row, row], color=color, linewidth=1.2, zorder=1)
    ax.plot([first, third], [row, row], color=color, linewidth=6, solid_capstyle="butt", zorder=2)
    at = values.mean() if middle == "mean" else np.median(values)
    ax.plot(at, row, "o", color="white", markeredgecolor="black", markersize=6, zorder=3)


def beside(ax: Axes, **options: Any) -> None:
    """The legend to the right of the axes, where it covers nothing."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **options)
