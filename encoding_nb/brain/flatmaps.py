"""Flat maps: one value per voxel, two values, or categories, as pixels or as a figure.

Every picture comes from one sparse matrix per surface, pixels by voxels (`flat_mapper`), which pycortex's
geometry defines; drawing a map is then one product. The matrix of the demo's surface comes with the package.
Nothing here uses pyplot, so maps may be drawn in any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import broken
from ..assembly import Array, Surface
from ._painting import (
    PAIR_STEPS,
    STEPS,
    MapStyle,
    Painting,
    category_palette,
    checked,
    draw_lock,
    map_note,
    missing_note,
    paint,
    pair_palette,
    palette_of,
    value_limits,
)
from .surfaces import flat_mapper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Limits = tuple[float | None, float | None]

_MAX_CATEGORIES = 100
_LETTERS = 60  # that fit next to each other under a colour bar


def flat_image(
    values: Array,
    surface: Surface,
    *,
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    **style: Any,
) -> Array:
    """A finished flatmap as pixels: uint8 RGBA, (height, width, 4), transparent outside the cortex.

    Parameters
    ----------
    values : array, (n_voxels,)
        Voxels without a finite value show the curvature.
    surface : Surface
        Of voxels, or of vertices (`vertex_surface`).
    cmap, vmin, vmax
        Colour map by matplotlib's name, and the values at its ends; see `value_limits`.
    height : int, pixels
        512 by default.
    significant : bool array, (n_voxels,), optional
        Where it is False the map is shown as `nonsignificant` says: "fade" (the default), "hatch" or "hide". None
        shows all voxels.
    otherwise, note : str
        For figures: what voxels are where `significant` is False ("not significant" by default), and a line of your
        own, both written at the colour bar.
    with_curvature : bool
        Gyri and sulci as two greys under the map (the default); else one grey.
    with_rois : bool or names
        Outlines of the drawn areas: all (the default), none, or those named.
    with_sulci, with_labels : bool
        Lines along the sulci (off by default), and the names of areas and sulci (on).

    Raises
    ------
    ValueError
        `values` or `significant` of the wrong length; `significant` is not a mask of flags (p-values, for example); an
        unknown area, colour map or `nonsignificant`.
    TypeError
        `surface` is not a Surface; an unknown option.
    """
    painting, _ = _value_map(values, surface, cmap, vmin, vmax, MapStyle(**style))
    return painting.pixels(map_note(values))


def flatmap(
    values: Array,
    surface: Surface,
    *,
    title: str = "",
    units: str = "",
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    with_colorbar: bool = True,
    ax: Axes | None = None,
    **style: Any,
) -> Figure:
    """A flatmap with colour bar and title, for print and projector; outlines and names are sharp at any size.

    Parameters
    ----------
    values : array, (n_voxels,)
    surface : Surface
    title : str
    units : str
        What the values are, with their unit; written at the colour bar.
    with_colorbar : bool
        Whether the colour bar is drawn.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure, without pyplot.
    others
        As in `flat_image`.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError, TypeError
        As `flat_image`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    look = MapStyle(**style)
    painting, (low, high) = _value_map(values, surface, cmap, vmin, vmax, look)
    with draw_lock:
        ax = painting.axes(title, ax)
        if with_colorbar:
            finite = np.asarray(values)[np.isfinite(values)]
            below, above = bool((finite < low).any()), bool((finite > high).any())
            extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
            scale = ScalarMappable(Normalize(low, high), cmap)
            notes = [units, map_note(values), missing_note(values), *look.notes(surface)]
            _add_bar(ax, scale, notes, extend=extend, shrink=0.4, aspect=30)
    return ax.figure


def _value_map(
    values: Array, surface: Surface, cmap: str, vmin: float | None, vmax: float | None, style: MapStyle
) -> tuple[Painting, tuple[float, float]]:
    """The map, and the values at the ends of its colours."""
    values = checked(values, surface)
    limits = value_limits(values, cmap=cmap, vmin=vmin, vmax=vmax)
    palette = palette_of(cmap)
    steps, shown = _steps(values, surface, style, limits, STEPS)
    return paint(steps, shown, palette, surface, style), limits


def _steps(
    values: Array, surface: Surface, style: MapStyle, limits: tuple[float, float], n_steps: int
) -> tuple[Array, Array]:
    """For each pixel (n_pixels,) the step of the scale that its value lies in, and whether it has a value."""
    low, high = limits
    flat = flat_mapper(surface, height=style.height).project(values)
    shown = np.isfinite(flat)
    flat[~shown] = low
    return np.clip((flat - low) * (n_steps / (high - low)), 0, n_steps - 1).astype(np.int32), shown


def _add_bar(ax: Any, scale: Any, notes: Iterable[str], **options: Any) -> Any:
    """A colour bar below the map, with notes at it."""
    bar = ax.figure.colorbar(scale, ax=ax, orientation="horizontal", pad=0.02, **options)
    bar.set_label(broken(notes, ax.figure.get_size_inches()[0]))
    return bar


def flatmap_pair(
    first: Array,
    second: Array,
    surface: Surface,
    *,
    names: tuple[str, str] = ("first", "second"),
    title: str = "",
    first_limits: Limits = (None, None),
    second_limits: Limits = (None, None),
    ax: Axes | None = None,
    **style: Any,
) -> Figure:
    """Two values per voxel in one map, with a square key: the first value runs to the right, the second upwards.

    Dark where both are low, blue where only the first is high, orange where only the second is, and nearly
    white where both are.

    Parameters
    ----------
    first, second : arrays, (n_voxels,)
        A pixel shows colour where both have a value.
    surface : Surface
    names : pair of str
        What the two values are, with their units; written at the key.
    title : str
    first_limits, second_limits : pairs of float or None
        The values at the ends of each axis; None as in `value_limits`.
    ax : matplotlib Axes, optional
        Where to draw; by default a new figure, without pyplot.
    others
        `height`, `significant`, `nonsignificant`, `otherwise`, `note`, `with_curvature`, `with_rois`, `with_sulci`,
        `with_labels`, as in `brain.flat_image`.

    Raises
    ------
    ValueError, TypeError
        As `brain.flat_image`.
    """
    from matplotlib.colorbar import make_axes

    look = MapStyle(**style)
    steps: Any = np.int32(0)
    shown: Any = True
    ends, notes = [], []
    for which, values, (vmin, vmax), weight in (
        ("first", first, first_limits, 1),
        ("second", second, second_limits, PAIR_STEPS),
    ):
        values = checked(values, surface, f"values of the {which} map")
        ends.append(value_limits(values, cmap="", vmin=vmin, vmax=vmax))
        its_steps, its_shown = _steps(values, surface, look, ends[-1], PAIR_STEPS)
        steps, shown = steps + weight * its_steps, shown & its_shown
        if note := map_note(values) or missing_note(values):
            notes.append(f"{which} map: {note}")
    painting = paint(steps, shown, pair_palette(), surface, look)
    with draw_lock:
        ax = painting.axes(title, ax, size=(7.8, 3.5))
        key, _ = make_axes(ax, location="right", shrink=0.4, fraction=0.15, aspect=1, pad=0.04)
        key.set_box_aspect(1)
        square = pair_palette().reshape(PAIR_STEPS, PAIR_STEPS, 3)
        key.imshow(square, origin="lower", extent=(*ends[0], *ends[1]), aspect="auto")
        key.set(xlabel=names[0], ylabel=names[1])
        key.tick_params(labelsize="small")
        key.locator_params(nbins=3)
        key.set_title(broken(["; ".join(notes), *look.notes(surface)], 1.6), fontsize="small")
    return ax.figure


def category_image(
    labels: Array, surface: Surface, *, n_categories: int, cmap: str = "viridis", **style: Any
) -> Array:
    """A category per voxel in one map, as pixels: uint8 RGBA, (height, width, 4).

    A pixel has the category with the largest share of the cortex under it: categories are never averaged.
    Gyri and sulci are two light greys here, so that the categories' colours differ from them in a grey print.

    Parameters
    ----------
    labels : array of int, (n_voxels,)
        0 to `n_categories` - 1, or -1 for no category, where the curvature shows.
    surface : Surface
    n_categories : int, at most 100
    cmap : str
        The colour map that the categories' colours are taken from, in order.
    others
        As in `flatmap_pair`.

    Raises
    ------
    ValueError
        Labels that are not whole numbers from -1 to `n_categories` - 1; else as `brain.flat_image`.
    """
    return _category_map(labels, surface, n_categories, cmap, MapStyle(**style)).pixels(_no_label(labels))


def flatmap_categories(
    labels: Array,
    surface: Surface,
    *,
    names: Sequence[str],
    title: str = "",
    units: str = "",
    cmap: str = "viridis",
    ax: Axes | None = None,
    **style: Any,
) -> Figure:
    """A figure of `category_image` with a stepped colour bar.

    Parameters
    ----------
    names : sequence of str, (n_categories,)
        Written at the colour bar; if there are many, every second or third of them.
    title, units : str
        `units` says what the categories are.
    ax : matplotlib Axes, optional
    others
        As in `category_image`.

    Raises
    ------
    ValueError
        As `category_image`.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    look, n_categories = MapStyle(**style), len(names)
    painting = _category_map(labels, surface, n_categories, cmap, look)
    with draw_lock:
        ax = painting.axes(title, ax)
        colours = ListedColormap(category_palette(n_categories, cmap) / 255)
        scale = ScalarMappable(BoundaryNorm(np.arange(n_categories + 1) - 0.5, n_categories), colours)
        notes = [units, _no_label(labels), *look.notes(surface)]
        bar = _add_bar(ax, scale, notes, shrink=0.5, aspect=25, spacing="uniform")
        every = max(1, -(-sum(len(str(name)) + 2 for name in names) // _LETTERS))
        bar.set_ticks(range(0, n_categories, every), labels=[str(name) for name in names[::every]])
        bar.minorticks_off()
    return ax.figure


def _category_map(labels: Array, surface: Surface, n_categories: int, cmap: str, style: MapStyle) -> Painting:
    if not 1 <= n_categories <= _MAX_CATEGORIES:
        raise ValueError(f"Expected 1 to {_MAX_CATEGORIES} categories, got {n_categories}.")
    labels = checked(labels, surface, "labels")
    if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= n_categories:
        raise ValueError(
            f"Expected labels as whole numbers from -1 (no category) to {n_categories - 1}, got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    weights = flat_mapper(surface, height=style.height).weights
    largest = np.zeros(weights.shape[0], np.float32)
    winner = np.zeros(weights.shape[0], np.int32)
    for category in np.unique(labels[labels >= 0]):
        share = weights @ (labels == category).astype(np.float32)
        more = share > largest
        largest[more], winner[more] = share[more], category
    return paint(winner, largest > 0, category_palette(n_categories, cmap), surface, style, light=True)


def _no_label(labels: Array) -> str:
    return "" if (np.asarray(labels) >= 0).any() else f"none of the {len(labels)} voxels is in a category"
