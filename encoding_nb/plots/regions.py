"""Plots by region: scores within areas of the cortex, and data that have regions instead of voxels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle, new_figure
from .._validation import check_flags, check_result
from ..brain import Regions, chance_ceiling, draw_lock, region_masks, roi_table, values_of
from . import _style
from ._style import ALL, CHOSEN, ESTIMATE, SCORE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..pipeline import Result

Array = np.ndarray

ROWS, COLUMNS = 40, 3  # of names that are legible in one figure
LETTERS = 30  # of a line below a column of bars


def plot_rois(
    result: Result,
    rois: Regions | None = None,
    *,
    names: Mapping[int, str] | None = None,
    ax: Axes | None = None,
) -> Figure:
    """Scores by region, best median first: the median, the middle half and the middle 90 percent of its voxels.

    Next to each name is the number of its significant voxels, if the run is tested, and of all its voxels. The title
    names the test.

    Parameters
    ----------
    rois, names
        As in `brain.roi_table`.

    Raises
    ------
    ValueError
        As `brain.roi_table`.
    """
    check_result(result, "plot_rois")
    masks = region_masks(result, rois, names=names)
    table = roi_table(result, masks)
    own, ax = ax is None, _style.axes_or_new(ax, (6.4, 2.0 + 0.2 * len(table)))
    for row, name in enumerate(table.index):
        _style.interval(ax, result.scores[masks[name]], row, color=CHOSEN, middle="median")
    tested = result.significant is not None
    columns = ["significant", "count"] if tested else ["count"]
    labels = [
        f"{name}  {'/'.join(f'{count:,}' for count in counts)}"
        for name, *counts in table[columns].itertuples()
    ]
    ax.set_yticks(range(len(table)), labels, fontsize="small")
    ax.set_ylim(len(table) - 0.4, -0.6)
    ax.axvline(0, color="0.3", linewidth=0.8, zorder=0)
    ax.set_xlabel(f"{SCORE}: median, middle half, middle 90 % of the voxels")
    lines = [f"next to each name: {'significant/all' if tested else 'all'} voxels"]
    lines.append(_style.test_line(result.significant, result.test_name))
    entitle(ax, _style.heading(result, "scores by region"), *lines, own=own)
    return _style.tidy(ax)


def shown_values(result: Result, values: str, story: str | None) -> tuple[Array, str, dict[str, Any]]:
    """(n_voxels,) values of a result, see `plot_flatmap`; their name and unit; what of `brain.flatmap` marks them."""
    if story is not None:
        _style.known_story(result, story)
    shown = values_of(result, values, story)
    if values == "ceiling":
        units = f"noise ceiling (r): {ESTIMATE}"
        return shown, units, _style.ceiling_options(shown, chance_ceiling(result, story))
    look = _style.significance_options(result.significant, result.test_name)
    if values == "share":
        units = f"score as a share of the noise ceiling, where that is above chance: {ESTIMATE}"
        return shown, units, look
    return shown, f"{SCORE}, predicted with measured BOLD", look


def plot_regions(
    result: Result, *, values: str = "score", story: str | None = None, ax: Axes | None = None
) -> Figure:
    """Scores of data by region: a bar per region, best first, grey if it is not significant.

    At most 120 regions in three columns, on a given `ax` at most 40; if there are more, the title says so.

    Parameters
    ----------
    result : Result
    values, story
        As in `plot_flatmap`.
    ax : Axes, optional

    Raises
    ------
    ValueError
        The data have no region names, the story was not held out, or there is no noise ceiling.
    """
    check_result(result, "plot_regions")
    if result.voxel_names is None:
        raise ValueError(f"{result.subject}: these data have no region names; use plot_rois for areas.")
    shown, units, look = shown_values(result, values, story)
    title = _style.heading(result, story or "held-out stories")
    flags, labels, lines = result.significant, ("significant", "not significant"), [title]
    if missing := int((~np.isfinite(shown)).sum()):
        lines.append(f"{missing} of {len(shown)} regions have no value")
    if values == "ceiling":
        flags, labels = look["significant"], ("above chance", look["otherwise"])
    else:
        lines.append(_style.test_line(flags, result.test_name))
    names, title = result.voxel_names, "\n".join(lines)
    return draw_regions(shown, names, significant=flags, labels=labels, title=title, units=units, ax=ax)[0]


def draw_regions(
    values: Array,
    names: Sequence[str],
    *,
    significant: Array | None = None,
    labels: tuple[str, str] = ("significant", "not significant"),
    title: str = "",
    units: str = SCORE,
    limits: tuple[float | None, float | None] = (None, None),
    ax: Axes | None = None,
) -> tuple[Figure, list[tuple[Axes, Array]]]:
    """A labelled bar per value, in columns of 40, the highest first.

    Parameters
    ----------
    values : array, (n_regions,)
        A region without a finite value is last, without a bar.
    names : sequence of str, (n_regions,)
    significant : bool array, (n_regions,), optional
        Bars are grey where it is False; None draws all in one colour, without a legend.
    labels : pair of str
        Of the legend, where `significant` is True and where it is False.
    limits : pair of float or None
        The ends of the axis of values; None for those of the values.

    Returns
    -------
    figure, and for each column its axes and the numbers of the regions in it, from the top.
    """
    order = np.argsort(np.where(np.isfinite(values), -values, np.inf), kind="stable")
    shown = order[: ROWS if ax is not None else ROWS * COLUMNS]
    left_out = f"the {len(shown)} highest of {len(order):,} regions" if len(shown) < len(order) else ""
    n_columns = -(-len(shown) // ROWS)
    parts = np.array_split(shown, n_columns)
    if ax is None:
        figure: Any = new_figure((max(4.2 + 3.4 * (n_columns - 1), 6.5), 1.6 + 0.2 * len(parts[0])))
        columns = list(figure.subplots(1, n_columns, sharex=True, squeeze=False)[0])
    else:
        figure, columns = ax.figure, [ax]
    flags = np.ones(len(values), bool) if significant is None else check_flags(significant)
    for column, part in zip(columns, parts, strict=True):
        colours = [CHOSEN if flag else ALL for flag in flags[part]]
        column.barh(range(len(part)), np.nan_to_num(values[part]), color=colours, height=0.75)
        column.set_yticks(range(len(part)), [names[i] for i in part], fontsize="small")
        column.set_ylim(len(parts[0]) - 0.4, -0.6)  # the first column has the most
        column.axvline(0, color="0.3", linewidth=0.8)
        if None not in limits:
            column.set_xlim(*limits)
        column.set_xlabel(fill(units, LETTERS if n_columns > 1 else 2 * LETTERS))
        _style.tidy(column)
    entitle(columns[0], *title.split("\n"), left_out, own=ax is None)
    if significant is not None:
        handles = [_style.patch(CHOSEN, labels[0]), _style.patch(ALL, labels[1])]
        _style.legend(columns[0], handles, own=ax is None)
    return figure, list(zip(columns, parts, strict=True))


def region_picture(
    values: Array,
    names: Sequence[str],
    *,
    significant: Array | None = None,
    labels: tuple[str, str] = ("significant", "not significant"),
    units: str = SCORE,
    limits: tuple[float | None, float | None] = (None, None),
    dpi: int = 100,
) -> tuple[Array, Array]:
    """`draw_regions` as pixels, for the click-through view.

    Returns
    -------
    picture : array, (height, width, 4), uint8 RGBA
    lookup : array, (height, width), int32
        The region in whose row a pixel lies; -1 elsewhere.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with draw_lock:
        look: dict[str, Any] = {
            "significant": significant,
            "labels": labels,
            "units": units,
            "limits": limits,
        }
        figure, columns = draw_regions(values, names, **look)
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        picture = np.array(canvas.buffer_rgba())
        lookup = np.full(picture.shape[:2], -1, np.int32)
        height = len(picture)
        for column, shown in columns:
            left = column.get_tightbbox().x0
            right = column.get_window_extent().x1
            for row, region in enumerate(shown):
                above, below = height - column.transData.transform([(0, row - 0.5), (0, row + 0.5)])[:, 1]
                lookup[round(above) : round(below), max(0, round(left)) : round(right)] = region
    return picture, lookup
