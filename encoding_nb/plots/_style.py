"""What the plots share: colours, headings, axes, legends, and the shape of a distribution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import new_axes
from .._validation import check_flags, check_result, describe
from ..brain import VERTICES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..assembly import Array, Surface
    from ..pipeline import Result


# Okabe and Ito's colours, whose lightness differs too
ALL, CHOSEN, MEASURED, PREDICTED = "0.72", "#0072B2", "0.25", "#D55E00"
SCORE = "correlation (r)"
ESTIMATE = "an estimate, single voxels can exceed it"
TIME = "time from the start of the story (s)"


def heading(result: Result, what: str = "", *, varying: str = "") -> str:
    """Whose data, and which model: the first line of every title."""
    return f"{whose(result)}: {', '.join(filter(None, [what, *model_words(result, varying=varying)]))}"


def whose(result: Any) -> str:
    """The subject, marked as simulated if the BOLD is simulated."""
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
    kind = ["untrained"] if settings.weights == "untrained" else []
    kind += ["approximate (strided)"] if settings.approximate else []
    return [PurePath(settings.model_name).name, *chosen, *kind, *joined]


def space_name(modality: str) -> str:
    """The name of a feature space as plots write it."""
    return {"wordrate": "word rate"}.get(modality, modality.replace("_", " "))


def results_by(setting: str, results: Any, *, least: int = 1) -> tuple[list[Result], list[Any]]:
    """Results of the same voxels in the order of a setting, and its values.

    Raises
    ------
    TypeError
        A single result, or something else among the results.
    ValueError
        Fewer than `least` results, two with the same value, or results of different voxels.
    """
    plot = f"plot by {setting}"
    if not isinstance(results, Iterable) or isinstance(results, str):
        raise TypeError(
            f"{plot}: expected a list of Results, got {describe(results)}; pass [result_a, result_b], or the results "
            f"of run_sweep."
        )
    results = list(results)
    for result in results:
        same_voxels(results[0], result, plot)
    if len(results) < least:
        raise ValueError(f"{plot}: expected {least} or more results, got {len(results)}.")
    results.sort(key=lambda result: getattr(result.settings, setting))
    values = [getattr(result.settings, setting) for result in results]
    if len(set(values)) < len(values):
        raise ValueError(f"{plot}: expected one result per {setting}, got {', '.join(map(str, values))}.")
    return results, values


def same_voxels(result_a: Result, result_b: Result, caller: str) -> tuple[Array, Array]:
    """The scores of two results, (n_voxels,) each; a ValueError if these are not scores of the same voxels."""
    for result in (result_a, result_b):
        check_result(result, caller)
    a, b = np.asarray(result_a.scores), np.asarray(result_b.scores)
    if a.shape != b.shape or result_a.surface != result_b.surface:
        raise ValueError(
            f"{caller}: expected runs of the same voxels, got {len(a)} voxels on {result_a.surface} and {len(b)} on "
            f"{result_b.surface}; compare runs of one assembly."
        )
    return a, b


def surface_of(result: Result) -> Surface:
    """The surface of a result; a ValueError if it has none."""
    if result.surface is None:
        raise ValueError(
            f"{result.subject}: these data have no cortical surface for a map; give the assembly a "
            f"Surface(subject, transform, mask), or use another plot."
        )
    return result.surface


def chosen_voxels(voxels: Any, n_voxels: int, such: str = "such as a result's rois['AC']") -> Array:
    """The mask of the voxels to show, (n_voxels,) bool; a ValueError if it is not a mask or chooses no voxel."""
    flags = check_flags(voxels, "voxels", f"pass a mask, {such}")
    if flags.shape != (n_voxels,) or not flags.any():
        raise ValueError(
            f"Expected a mask of {n_voxels} voxels with at least one chosen, got {int(flags.sum())} chosen of "
            f"{flags.size}; pass `voxels`, {such}."
        )
    return flags


def check_seconds(story: str, **ends: Any) -> None:
    """Refuse ends of a stretch that are not numbers."""
    for name, value in ends.items():
        if value is not None and not isinstance(value, Real):
            raise ValueError(f"{story}: expected {name} in seconds from the sound's start, got {value!r}.")


def found_in_any(results: Sequence[Result]) -> tuple[Array | None, str]:
    """Voxels that are significant in at least one run, (n_voxels,) bool, and by what test.

    None if any of the runs is not tested, since a voxel that is not significant in the others may be so there; then the
    text says how many are not, and why.
    """
    untested = [result for result in results if result.significant is None]
    if untested:
        why = untested[0].test_name
        if len(untested) < len(results):
            why = why.replace("not tested", f"not tested in {len(untested)} of {len(results)} runs", 1)
        return None, why
    tests = dict.fromkeys(result.test_name for result in results)
    return np.any([result.significant for result in results], axis=0), "; ".join(tests)


def test_line(significant: Array | None, test: str) -> str:
    """The line of a title that says how voxels were tested, or why they were not."""
    return test if significant is None else f"significance: {test}"


def significance_options(significant: Array | None, test: str) -> dict[str, Any]:
    """Options of `brain.flatmap` that fade voxels that are not significant, and name the test in the caption."""
    if significant is None:
        return {"note": test}
    if np.all(significant):
        return {"note": f"all are significant ({test})"}
    return {"significant": significant, "otherwise": f"not significant ({test})"}


def ceiling_options(ceiling: Array, least: float) -> dict[str, Any]:
    """Options of `brain.flatmap` that fade voxels whose noise ceiling is not above chance."""
    return {
        "significant": np.asarray(ceiling) >= least,
        "otherwise": f"noise ceiling below {least:.2f}, not above chance",
    }


def known_story(result: Result, story: str) -> str:
    """`story`; a ValueError if the run did not hold it out."""
    if story not in result.story_scores:
        known = ", ".join(result.story_scores)
        raise ValueError(f"No held-out story {story!r} in this result; it has {known}.")
    return story


def voxel_words(result: Result, voxel: int) -> str:
    """The number of a voxel and the areas it lies in, or the name of a region."""
    if result.voxel_names is not None:
        return result.voxel_names[voxel]
    areas = [name for name, mask in result.rois.items() if mask[voxel]]
    return f"{unit(result)} {voxel}" + (f" in {', '.join(areas)}" if areas else "")


def unit(result: Result) -> str:
    """What a score belongs to: "vertex", "region" or "voxel"."""
    if result.surface is not None and result.surface.mask == VERTICES:
        return "vertex"
    return "voxel" if result.voxel_names is None else "region"


def axes_or_new(ax: Axes | None, size: tuple[float, float]) -> Axes:
    """`ax`, or the axes of a new figure."""
    return new_axes(size) if ax is None else ax


def tidy(ax: Any) -> Figure:
    """Remove the upper and right edges of the frame; returns the figure."""
    ax.spines[["top", "right"]].set_visible(False)
    return ax.figure


def patch(color: str, label: str, **look: Any) -> Any:
    """A coloured square for a legend."""
    from matplotlib.patches import Patch

    return Patch(facecolor=color, label=label, **look)


def legend(ax: Axes, handles: list[Any] | None = None, *, own: bool, ncols: int = 2, inside: int = 1) -> None:
    """The legend below the axes of a new figure (`own`), where it covers nothing; on given axes inside.

    `ncols` and `inside` are its numbers of columns in the two cases.
    """
    look: dict[str, Any] = {"handles": handles, "fontsize": "small"}
    if own:
        ax.figure.legend(loc="outside lower center", ncols=ncols, frameon=False, **look)
    else:  # the caller's layout may have no room below
        ax.legend(ncols=inside, **look)


def beside(ax: Axes, **options: Any) -> None:
    """The legend to the right of the axes, where it covers nothing."""
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), **options)


def bands(ax: Axes, x: Any, values: Array, *, outer: str = CHOSEN, alpha: float = 0.18) -> None:
    """Median, middle half and middle 90 percent over the columns of (n_x, n_voxels) values."""
    low, first, median, third, high = np.nanpercentile(values, [5, 25, 50, 75, 95], axis=1)
    ax.fill_between(x, low, high, color=outer, alpha=alpha, linewidth=0, label="middle 90 %")
    ax.fill_between(x, first, third, color=CHOSEN, alpha=0.4, linewidth=0, label="middle half")
    ax.plot(x, median, color=CHOSEN, linewidth=2, marker="o", label="median voxel")


def half_violin(ax: Axes, scores: Array, row: int, *, up: bool, color: str) -> None:
    """Half a violin on the line `row`, with its median; the median alone if there are few values."""
    scores = scores[np.isfinite(scores)]
    if not len(scores):
        return
    side = -1 if up else 1  # the axis runs downwards
    if len(scores) > 5 and np.ptp(scores) > 0:
        low, high = np.percentile(scores, [0.1, 99.9])
        counts, edges = np.histogram(scores, 59, (low, high))
        width = 0.42 * np.convolve(counts, [0.25, 0.5, 0.25], "same") / max(counts.max(), 1)
        centres = (edges[1:] + edges[:-1]) / 2
        ax.fill_between(centres, row, row + side * width, color=color, linewidth=0)
    ax.plot([np.median(scores)] * 2, [row, row + side * 0.42], color="black", linewidth=1.5)


def interval(
    ax: Axes, values: Array | Sequence[Array], row: float, *, color: str, middle: str = "mean"
) -> None:
    """On the line `row`: the mean or median as a dot, the middle half as a bar, the middle 90 percent as a line.

    For several sets of values, such as one for each fold, each of these numbers is the mean over the sets.
    """
    sets = [values] if isinstance(values, np.ndarray) else values
    sets = [found for each in sets if len(found := each[np.isfinite(each)])]
    if not sets:
        return
    low, first, third, high = np.mean([np.percentile(each, [5, 25, 75, 95]) for each in sets], axis=0)
    ax.plot([low, high], [row, row], color=color, linewidth=1.2, zorder=1)
    ax.plot([first, third], [row, row], color=color, linewidth=6, solid_capstyle="butt", zorder=2)
    at = np.mean([each.mean() if middle == "mean" else np.median(each) for each in sets])
    ax.plot(at, row, "o", color="white", markeredgecolor="black", markersize=6, zorder=3)
