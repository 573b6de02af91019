"""Maps whose colours need a key of their own: two values at once, and categories such as the best layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .assembly import Surface
from .colours import LIGHT_CURVATURE, PAIR_STEPS, category_palette, map_note, pair_palette, value_limits
from .figures import broken
from .painting import (
    Look,
    checked,
    cortex_image,
    draw_lock,
    finished,
    map_axes,
    outline_note,
    significance_note,
)
from .surfaces import flat_mapper

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Array = np.ndarray
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
        The values at the ends of each axis; None as in `colours.value_limits`.
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
