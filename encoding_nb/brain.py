"""Brain maps: voxel values on pycortex's flattened cortex, as pixels for the panel and figures for export.

Every picture comes from one sparse matrix per surface, pixels by voxels (`flat_mapper`), which pycortex's own
geometry defines; drawing a map is then one product. The matrix of the demo's surface comes with the package.
Nothing here uses pyplot, so maps may be drawn in any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .assembly import Surface
from .colours import STEPS, map_note, palette_of, value_limits
from .figures import broken
from .keyed_maps import category_image, flatmap_categories, flatmap_pair, pair_image
from .painting import (
    Look,
    checked,
    cortex_image,
    draw_lock,
    finished,
    map_axes,
    outline_note,
    png,
    significance_note,
)
from .regions import read_masks, region_masks, roi_table
from .store import open_store
from .surfaces import (
    VERTICES,
    FlatMapper,
    flat_mapper,
    roi_masks,
    roi_names,
    surface_mask,
    vertex_surface,
    voxel_count,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "VERTICES",
    "FlatMapper",
    "category_image",
    "flat_array",
    "flat_image",
    "flat_mapper",
    "flat_png",
    "flatmap",
    "flatmap_categories",
    "flatmap_pair",
    "map_note",
    "open_store",
    "pair_image",
    "read_masks",
    "region_masks",
    "roi_masks",
    "roi_names",
    "roi_table",
    "surface_mask",
    "vertex_surface",
    "voxel_count",
]

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
