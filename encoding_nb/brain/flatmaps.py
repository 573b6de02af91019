"""Flat maps: one value a voxel, two values, or categories, as pixels or as a figure.

Every picture comes from one sparse matrix per surface, pixels by voxels (`flat_mapper`), which pycortex's own
geometry defines; drawing a map is then one product. The matrix of the demo's surface comes with the package.
Nothing here uses pyplot, so maps may be drawn in any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import broken
from ..assembly import Surface
from ._painting import (
    LIGHT_CURVATURE,
    PAIR_STEPS,
    STEPS,
    Look,
    category_palette,
    checked,
    cortex_image,
    draw_lock,
    finished,
    map_axes,
    map_note,
    outline_note,
    pair_palette,
    palette_of,
    png,
    significance_note,
    value_limits,
)
from .surfaces import flat_mapper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


Array = np.ndarray


def flat_array(values: Array, surface: Surface, *, height: int = 512) -> Array:
    """Values on the flatmap: float, (height, width), NaN outside the cortex and where no voxel has a value.

    Equals pycortex's `make_flatmap_image` of the same volume, or of the same values per vertex.

    Raises
    ------
    ValueError
        `values` is not one number per voxel of the surface's mask, or per vertex of a `vertex_surface`.
    """
    array = checked(values, surface)
    mapper = flat_mapper(surface, height=height)
    image = np.full(mapper.pixels.shape, np.nan)
    image[mapper.pixels] = mapper.project(array)
    return image


def flat_image(
    values: Array,
    surface: Surface,
    *,
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    height: int = 512,
    significant: Array | None = None,
    nonsignificant: str = "fade",
    with_curvature: bool = True,
    with_rois: bool | Sequence[str] = True,
    with_sulci: bool = False,
    with_labels: bool = True,
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
    significant : bool array, (n_voxels,), optional
        Where it is False the map is shown as `nonsignificant` says: "fade", "hatch" or "hide".
    with_curvature : bool
        Gyri and sulci as two greys under the map; else one grey.
    with_rois : bool or names
        Outlines of the drawn areas: all, none, or those named.
    with_sulci, with_labels : bool

    Raises
    ------
    ValueError
        `values` or `significant` of the wrong length; `significant` of others than flags, such as p-values; an
        unknown area, colour map or `nonsignificant`.
    TypeError
        `surface` is none.
    """
    look = Look(height, significant, nonsignificant, with_curvature, with_rois, with_sulci, with_labels)
    image = _coloured(values, surface, cmap, vmin, vmax, look)
    return finished(image, surface, look, map_note(values))


def _coloured(
    values: Array, surface: Surface, cmap: str, vmin: float | None, vmax: float | None, look: Look
) -> Array:
    low, high = value_limits(checked(values, surface), cmap=cmap, vmin=vmin, vmax=vmax)
    palette = palette_of(cmap)
    flat = flat_mapper(surface, height=look.height).project(np.asarray(values))
    shown = np.isfinite(flat)
    flat[~shown] = low
    steps = np.clip((flat - low) * (STEPS / (high - low)), 0, STEPS - 1).astype(np.int32)
    return cortex_image(steps, shown, palette, surface, look)


def flat_png(values: Array, surface: Surface, **options: Any) -> bytes:
    """A finished flatmap as PNG; `options` are those of `flat_image`. Quick enough to follow a slider."""
    return png(flat_image(values, surface, **options))


def flatmap(
    values: Array,
    surface: Surface,
    *,
    title: str = "",
    units: str = "",
    cmap: str = "inferno",
    vmin: float | None = None,
    vmax: float | None = None,
    height: int = 512,
    significant: Array | None = None,
    nonsignificant: str = "fade",
    with_curvature: bool = True,
    with_rois: bool | Sequence[str] = True,
    with_sulci: bool = False,
    with_labels: bool = True,
    with_colorbar: bool = True,
    ax: Axes | None = None,
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
        Where to draw; else a new figure is made. Never pyplot's.
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
    look = Look(height, significant, nonsignificant, with_curvature, with_rois, with_sulci, with_labels)
    image = _coloured(values, surface, cmap, vmin, vmax, look)
    with draw_lock:
        ax = map_axes(image, surface, look, title, ax)
        if with_colorbar:
            limits = value_limits(values, cmap=cmap, vmin=vmin, vmax=vmax)
            notes = [map_note(values), significance_note(look), outline_note(surface, look)]
            _add_colorbar(ax, np.asarray(values), cmap, limits, units, notes)
    return ax.figure


def _add_colorbar(
    ax: Axes, values: Array, cmap: str, limits: tuple[float, float], units: str, notes: list[str]
) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    finite = values[np.isfinite(values)]
    below, above = (
        (bool((finite < limits[0]).any()), bool((finite > limits[1]).any())) if len(finite) else (0, 0)
    )
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[int(below), int(above)]
    bar = ax.figure.colorbar(
        ScalarMappable(Normalize(*limits), cmap),
        ax=ax,
        orientation="horizontal",
        shrink=0.4,
        aspect=30,
        pad=0.02,
        extend=extend,
    )
    bar.set_label(broken([units, *notes], ax.figure.get_size_inches()[0]))


Limits = tuple[float | None, float | None]

_MAX_CATEGORIES = 100


def pair_image(
    first: Array,
    second: Array,
    surface: Surface,
    *,
    first_limits: Limits = (None, None),
    second_limits: Limits = (None, None),
    **look: Any,
) -> Array:
    """Two values per voxel in one map, as pixels: uint8 RGBA, (height, width, 4).

    Dark where both are low, blue where the first alone is high, orange where the second alone is, and nearly
    white where both are.

    Parameters
    ----------
    first, second : arrays, (n_voxels,)
        A pixel shows colour where both have a value.
    surface : Surface
    first_limits, second_limits : pairs of float or None
        The values at the ends of each axis; None as in `value_limits`.
    look
        `height`, `significant`, `nonsignificant`, `with_curvature`, `with_rois`, `with_sulci`, `with_labels`,
        as in `brain.flat_image`.

    Raises
    ------
    ValueError
        As `brain.flat_image`.
    """
    chosen = Look(**look)
    image = _pair_pixels(first, second, surface, first_limits, second_limits, chosen)
    return finished(image, surface, chosen, _pair_note(first, second))


def _pair_pixels(
    first: Array, second: Array, surface: Surface, first_limits: Limits, second_limits: Limits, look: Look
) -> Array:
    mapper = flat_mapper(surface, height=look.height)
    shown = np.ones(len(mapper.places), bool)
    step = np.zeros(len(mapper.places), np.int32)
    for values, limits, weight, what in (
        (first, first_limits, 1, "values of the first map"),
        (second, second_limits, PAIR_STEPS, "values of the second map"),
    ):
        low, high = value_limits(checked(values, surface, what), cmap="", vmin=limits[0], vmax=limits[1])
        flat = mapper.project(np.asarray(values))
        shown &= np.isfinite(flat)
        flat[~np.isfinite(flat)] = low
        step += weight * np.clip((flat - low) * (PAIR_STEPS / (high - low)), 0, PAIR_STEPS - 1).astype(
            np.int32
        )
    return cortex_image(step, shown, pair_palette(), surface, look)


def _pair_note(first: Array, second: Array) -> str:
    notes = (map_note(np.asarray(first)), map_note(np.asarray(second)))
    return "; ".join(
        f"{which} map: {note}" for which, note in zip(("first", "second"), notes, strict=True) if note
    )


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
    **look: Any,
) -> Figure:
    """A figure of `pair_image` with a square key: the first value runs to the right, the second upwards.

    Parameters
    ----------
    names : pair of str
        What the two values are, with their units; written at the key.
    ax : matplotlib Axes, optional
        Where to draw; else a new figure is made. Never pyplot's.
    others
        As in `pair_image`.

    Raises
    ------
    ValueError
        As `brain.flat_image`.
    """
    from matplotlib.colorbar import make_axes

    chosen = Look(**look)
    image = _pair_pixels(first, second, surface, first_limits, second_limits, chosen)
    ends = [
        value_limits(np.asarray(values), cmap="", vmin=limits[0], vmax=limits[1])
        for values, limits in ((first, first_limits), (second, second_limits))
    ]
    with draw_lock:
        ax = map_axes(image, surface, chosen, title, ax, size=(7.8, 3.5))
        key, _ = make_axes(ax, location="right", shrink=0.4, fraction=0.15, aspect=1, pad=0.04)
        key.set_box_aspect(1)
        square = pair_palette().reshape(PAIR_STEPS, PAIR_STEPS, 3)
        key.imshow(square, origin="lower", extent=(*ends[0], *ends[1]), aspect="auto")
        key.set(xlabel=names[0], ylabel=names[1])
        key.tick_params(labelsize="small")
        key.locator_params(nbins=3)
        notes = (_pair_note(first, second), significance_note(chosen), outline_note(surface, chosen))
        key.set_title(broken(notes, 1.6), fontsize="small")
    return ax.figure


def category_image(
    labels: Array, surface: Surface, *, n_categories: int, cmap: str = "viridis", **look: Any
) -> Array:
    """A category per voxel in one map, as pixels: uint8 RGBA, (height, width, 4).

    A pixel has the category with the largest share of the cortex beneath it: categories are never averaged.
    Gyri and sulci are two light greys here, so that the categories' colours stay apart from them in a grey print.

    Parameters
    ----------
    labels : array of int, (n_voxels,)
        0 to `n_categories` - 1, or -1 for none, where the curvature shows.
    surface : Surface
    n_categories : int, at most 100
    cmap : str
        The colour map that the categories' colours are taken from, in order.
    look
        As in `pair_image`.

    Raises
    ------
    ValueError
        Labels that are no whole numbers from -1 to `n_categories` - 1; else as `brain.flat_image`.
    """
    chosen = Look(**look)
    image = _category_pixels(labels, surface, n_categories, cmap, chosen)
    return finished(image, surface, chosen, _no_label(labels), dark=True)


def _category_pixels(labels: Array, surface: Surface, n_categories: int, cmap: str, look: Look) -> Array:
    if not 1 <= n_categories <= _MAX_CATEGORIES:
        raise ValueError(f"Expected 1 to {_MAX_CATEGORIES} categories, got {n_categories}.")
    labels = checked(labels, surface, "labels")
    if labels.dtype.kind not in "iu" or labels.min() < -1 or labels.max() >= n_categories:
        raise ValueError(
            f"Expected labels as whole numbers from -1 (none) to {n_categories - 1}, got {labels.dtype} from "
            f"{labels.min()} to {labels.max()}."
        )
    weights = flat_mapper(surface, height=look.height).weights
    largest = np.zeros(weights.shape[0], np.float32)
    winner = np.zeros(weights.shape[0], np.int32)
    for category in np.unique(labels[labels >= 0]):
        share = weights @ (labels == category).astype(np.float32)
        more = share > largest
        largest[more], winner[more] = share[more], category
    palette = category_palette(n_categories, cmap)
    return cortex_image(winner, largest > 0, palette, surface, look, greys=LIGHT_CURVATURE)


def _no_label(labels: Array) -> str:
    return "" if (np.asarray(labels) >= 0).any() else f"none of the {len(labels)} voxels is in a category"


def flatmap_categories(
    labels: Array,
    surface: Surface,
    *,
    names: Sequence[str],
    title: str = "",
    units: str = "",
    cmap: str = "viridis",
    ax: Axes | None = None,
    **look: Any,
) -> Figure:
    """A figure of `category_image` with a stepped colour bar.

    Parameters
    ----------
    names : sequence of str, (n_categories,)
        Written at the colour bar; where there are many, every second or third of them.
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
    chosen = Look(**look)
    image = _category_pixels(labels, surface, len(names), cmap, chosen)
    with draw_lock:
        ax = map_axes(image, surface, chosen, title, ax, dark=True)
        notes = [units, _no_label(labels), significance_note(chosen), outline_note(surface, chosen)]
        label = broken(notes, ax.figure.get_size_inches()[0])
        _add_steps(ax, category_palette(len(names), cmap) / 255, names, label)
    return ax.figure


def _add_steps(ax: Axes, colours: Array, names: Sequence[str], label: str) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    edges = np.arange(len(names) + 1) - 0.5
    scale = ScalarMappable(BoundaryNorm(edges, len(names)), ListedColormap(colours))
    bar = ax.figure.colorbar(
        scale, ax=ax, orientation="horizontal", shrink=0.5, aspect=25, pad=0.02, spacing="uniform"
    )
    room = 60  # letters that fit side by side
    every = max(1, -(-sum(len(str(name)) + 2 for name in names) // room))
    bar.set_ticks(range(0, len(names), every), labels=[str(name) for name in names[::every]])
    bar.minorticks_off()
    bar.set_label(label)
