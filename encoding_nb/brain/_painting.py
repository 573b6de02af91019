"""Values to colours, and colours to the pixels of a map.

A map is drawn in two halves: the cortex in colour, one step of a palette per pixel, and above it the outlines
and names. The second half is kept, so that a live map is redrawn by the first alone.
"""

from __future__ import annotations

import difflib
import io
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle, new_axes
from ..assembly import Surface
from ..scoring import checked_flags
from .outlines import draw_outlines, lettering
from .surfaces import (
    VERTICES,
    FlatMapper,
    flat_mapper,
    outline_fault,
    roi_names,
    surface_outlines,
    voxel_count,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


Array = np.ndarray

STEPS = 256  # of a colour map
PARTS = 32  # of opacity
CURVATURE = (96.0, 160.0)  # the greys of sulci and gyri under a map, 0 to 255
LIGHT_CURVATURE = (222.0, 242.0)  # under a map of categories


def map_note(values: Array) -> str:
    """What a map of these values cannot show by itself: nothing to draw, or one value everywhere; else ""."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return f"none of the {len(values)} voxels has a finite value"
    if finite.min() == finite.max():
        return f"all {len(finite)} voxels with a value have the same, {finite[0]:.4g}"
    return ""


def value_limits(values: Array, *, cmap: str, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """The ends of the colour scale: what is given, else 0 to the 99.5th percentile of the finite values.

    A scale with two arms (such as RdBu_r) gets ends of equal size; one whose upper end would not be above 0
    begins at the lowest value.

    Raises
    ------
    ValueError
        `vmin` is not below `vmax`.
    """
    array = np.asarray(values, float)
    finite = array[np.isfinite(array)]
    low, high = np.percentile(finite, [0.5, 99.5]) if len(finite) else (0.0, 1.0)
    if cmap.removesuffix("_r") in _TWO_ARMED:
        high = max(abs(low), abs(high))
        low = -high
    elif high > 0:
        low = 0.0
    if low == high:  # one value everywhere: put it in the middle of the scale
        low, high = low - 0.5, high + 0.5
    low, high = low if vmin is None else float(vmin), high if vmax is None else float(vmax)
    if vmin is None and low >= high:
        low = high - 1.0
    if vmax is None and low >= high:
        high = low + 1.0
    if not low < high:
        raise ValueError(
            f"Expected vmin below vmax, got {low:g} and {high:g}; leave one out to have it chosen."
        )
    return float(low), float(high)


_TWO_ARMED = {
    "RdBu",
    "PuOr",
    "BrBG",
    "PiYG",
    "PRGn",
    "RdYlBu",
    "RdGy",
    "coolwarm",
    "bwr",
    "seismic",
    "vanimo",
}


@lru_cache(maxsize=16)
def palette_of(cmap: str) -> Array:
    """(256, 3) uint8: a colour map of matplotlib's as a table; an unknown name is refused."""
    import matplotlib

    if cmap not in matplotlib.colormaps:
        near = difflib.get_close_matches(cmap, list(matplotlib.colormaps), 3) or [
            "viridis",
            "inferno",
            "RdBu_r",
        ]
        raise ValueError(f"There is no colour map {cmap!r} in matplotlib; try {', '.join(near)}.")
    return np.rint(matplotlib.colormaps[cmap](np.arange(256) / 255)[:, :3] * 255).astype(np.uint8)


def _fade(share: Array, pixels: Array) -> Array:
    return 0.3 + 0.7 * share


def _hide(share: Array, pixels: Array) -> Array:
    return (share >= 0.5).astype(float)


def _hatch(share: Array, pixels: Array) -> Array:
    rows, columns = np.nonzero(pixels)
    step = max(4, round(pixels.shape[0] / 85))
    stripes = (rows + columns) % step < step / 2
    return np.where(stripes & (share < 0.5), 0.0, 1.0)


# How voxels that are not significant are shown: from the significant share of the cortex under each pixel to
# the opacity of its colour, (n_pixels,) both.
NONSIGNIFICANT: dict[str, Callable[[Array, Array], Array]] = {"fade": _fade, "hatch": _hatch, "hide": _hide}


def opacity_of(significant: Array, mapper: FlatMapper, nonsignificant: str) -> Array:
    """(n_pixels,): how much of its colour each pixel shows, from (n_voxels,) significance flags."""
    return NONSIGNIFICANT[nonsignificant](
        np.nan_to_num(mapper.project(significant.astype(float))), mapper.pixels
    )


@lru_cache(maxsize=16)
def mixed_colours(palette: bytes, greys: tuple[float, float]) -> Array:
    """(2 greys * 33 opacities * n_steps,) RGBA of one byte each, packed into uint32.

    `palette` holds three bytes per step; `greys` are those of sulci and gyri, 0 to 255.
    """
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    part = np.arange(PARTS + 1)[:, None, None] / PARTS
    mixed = part * colours + (1 - part) * np.array(greys)[:, None, None, None]
    opaque = np.full((*mixed.shape[:-1], 1), 255.0)
    return np.concatenate([mixed, opaque], axis=-1).astype(np.uint8).reshape(-1, 4).view(np.uint32).ravel()


@lru_cache(maxsize=16)
def category_palette(n_categories: int, cmap: str = "viridis") -> Array:
    """(n_categories, 3) uint8: colours in order, evenly spaced along a colour map without its lightest end.

    They are drawn on light greys, from which even a grey print tells them.
    """
    steps = np.linspace(0, 0.85 * STEPS, n_categories) if n_categories > 1 else np.array([STEPS / 3])
    return palette_of(cmap)[np.rint(steps).astype(int)]


# Corners of the palette for two values: neither, the first alone, the second alone, both. Blue and orange are
# told apart by everyone, and in grey the four corners go from dark to light.
PAIR_CORNERS = ("#232323", "#1f6fc0", "#f0902a", "#fdf8ee")
PAIR_STEPS = 32  # along each of the two axes


@lru_cache(maxsize=1)
def pair_palette() -> Array:
    """(32 * 32, 3) uint8: colours for two values, row by row of the second, even to the eye along both.

    Mixed in Oklab, where equal steps look equal (B. Ottosson, 2020, "A perceptual color space for image
    processing").
    """
    rgb = np.array([[int(corner[i : i + 2], 16) for i in (1, 3, 5)] for corner in PAIR_CORNERS]) / 255
    neither, first, second, both = _to_oklab(rgb)
    x = np.linspace(0, 1, PAIR_STEPS)[None, :, None]
    y = np.linspace(0, 1, PAIR_STEPS)[:, None, None]
    mixed = (1 - x) * (1 - y) * neither + x * (1 - y) * first + (1 - x) * y * second + x * y * both
    return np.rint(255 * np.clip(_from_oklab(mixed), 0, 1)).astype(np.uint8).reshape(-1, 3)


_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def _to_oklab(srgb: Array) -> Array:
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T


def _from_oklab(lab: Array) -> Array:
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = np.clip(linear, 0, None)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


_INCHES = 3.3  # height of the drawing that outlines and labels are sized for
draw_lock = threading.RLock()  # matplotlib's text layout is not made for several threads


@dataclass(frozen=True, eq=False)
class Look:
    """How a map is drawn, whatever its colours mean; the parameters are explained in `brain.flat_image`.

    Raises
    ------
    ValueError
        `significant` holds others than flags, such as p-values; an unknown `nonsignificant`.
    """

    height: int = 512
    significant: Array | None = None
    nonsignificant: str = "fade"
    with_curvature: bool = True
    with_rois: bool | Sequence[str] = True
    with_sulci: bool = False
    with_labels: bool = True

    def __post_init__(self) -> None:
        if self.significant is not None:
            object.__setattr__(self, "significant", checked_flags(self.significant))
        if self.nonsignificant not in NONSIGNIFICANT:
            raise ValueError(
                f"Expected nonsignificant to be one of {', '.join(NONSIGNIFICANT)}, got {self.nonsignificant!r}."
            )


def checked(values: Any, surface: Surface, what: str = "values") -> Array:
    """`values` as an array, refused where it is not one number per voxel (or vertex) of the surface."""
    array = np.asarray(values)
    n_voxels = voxel_count(surface)
    if array.shape != (n_voxels,):
        got = f"{len(array)} {what}" if array.ndim == 1 else f"{what} of shape {array.shape}"
        where = f"mask {surface.mask!r} of {surface.subject}/{surface.transform}"
        per = f"vertex of {surface.subject}" if surface.mask == VERTICES else f"voxel of {where}"
        raise ValueError(
            f"Expected {n_voxels} {what}, one per {per}, got {got}; pass the surface of the assembly that they come "
            f"from."
        )
    return array


def cortex_image(
    steps: Array,
    shown: Array,
    palette: Array,
    surface: Surface,
    look: Look,
    *,
    greys: tuple[float, float] = CURVATURE,
) -> Array:
    """(height, width, 4) uint8 RGBA: the cortex without outlines.

    The colour of a pixel depends on a step of the palette, an opacity and one of two greys, and opacities
    come in 32 parts as the mapper's weights do: so all colours are mixed once, in a table, and looked up.

    Parameters
    ----------
    steps : array of int, (n_pixels,)
        Rows of `palette`.
    shown : bool array, (n_pixels,)
        Where there is a value; elsewhere the curvature shows.
    palette : array, (n_steps, 3), uint8
    greys : of sulci and of gyri, 0 to 255; their mean everywhere where the look has no curvature
    """
    mapper = flat_mapper(surface, height=look.height)
    parts = shown.astype(np.float32)
    if look.significant is not None:
        flags = checked(look.significant, surface, "significance flags")
        parts *= opacity_of(flags, mapper, look.nonsignificant)
    index = steps + len(palette) * np.rint(parts * PARTS).astype(np.int32)
    index += len(palette) * (PARTS + 1) * mapper.curvature
    if not look.with_curvature:
        greys = (sum(greys) / 2, sum(greys) / 2)
    image = np.zeros(mapper.pixels.size, np.uint32)
    image[mapper.places] = mixed_colours(palette.tobytes(), greys)[index]
    return image.view(np.uint8).reshape(*mapper.pixels.shape, 4)


def chosen_areas(surface: Surface, with_rois: bool | Sequence[str]) -> tuple[str, ...]:
    """The drawn areas that are meant: all, none, or those named; an unknown name is refused."""
    known = roi_names(surface)
    if isinstance(with_rois, bool):
        return known if with_rois else ()
    names = (with_rois,) if isinstance(with_rois, str) else tuple(with_rois)
    for name in names:
        if name not in known:
            raise ValueError(
                f"No area {name!r} is drawn for {surface.subject}; drawn are {', '.join(known) or 'none'}."
            )
    return names


@lru_cache(maxsize=16)
def overlay(
    surface: Surface,
    height: int,
    areas: tuple[str, ...],
    sulci: bool,
    labels: bool,
    note: str,
    dark: bool = False,
) -> tuple[Array, Array]:
    """Outlines and note as pixels: where, (n,) indices into the picture, and what, (n, 4) premultiplied."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mapper = flat_mapper(surface, height=height)
    rows, columns = mapper.pixels.shape
    # the drawing keeps its size in inches, so that lines and letters grow with the picture
    figure = Figure(figsize=(_INCHES * columns / rows, _INCHES), dpi=rows / _INCHES)
    with draw_lock:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=mapper.extent[:2], ylim=mapper.extent[2:])
        figure.patch.set_alpha(0)
        draw_outlines(
            axes,
            surface_outlines(surface),
            extent=mapper.extent,
            areas=areas,
            sulci=sulci,
            labels=labels,
            dark=dark,
        )
        if note:
            axes.text(0.5, 0.01, note, transform=axes.transAxes, va="bottom", **lettering(size=8, dark=dark))
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[:rows, :columns].reshape(-1, 4)
    where = np.flatnonzero(drawn[:, 3])
    what = drawn[where]
    what[..., :3] = np.rint(what[..., :3] * (what[..., 3:] / 255))
    return where, what


def lay_over(image: Array, where: Array, what: Array) -> None:
    """Blend pixels, their colours already multiplied by their alpha, into an RGBA picture in place."""
    flat = image.reshape(-1, 4)
    flat[where] = what + (flat[where] * (255 - what[:, 3:].astype(np.uint16)) // 255).astype(np.uint8)


def finished(image: Array, surface: Surface, look: Look, note: str, *, dark: bool = False) -> Array:
    """`image` with the outlines, and a note at its lower edge, laid over in place; `dark` suits a light map."""
    areas = chosen_areas(surface, look.with_rois)
    note = "; ".join(said for said in (note, outline_note(surface, look)) if said)
    lay_over(image, *overlay(surface, look.height, areas, look.with_sulci, look.with_labels, note, dark))
    return image


def png(image: Array) -> bytes:
    """An RGBA picture as PNG, quickly."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def map_axes(
    image: Array,
    surface: Surface,
    look: Look,
    title: str,
    ax: Axes | None,
    *,
    size: tuple[float, float] = (6.4, 4.6),
    dark: bool = False,
) -> Axes:
    """Axes with a map in them, its outlines and names sharp at any size; call it under `draw_lock`."""
    extent = flat_mapper(surface, height=look.height).extent
    areas = chosen_areas(surface, look.with_rois)
    own, ax = ax is None, new_axes(size) if ax is None else ax
    ax.set_axis_off()
    ax.imshow(image, extent=extent, aspect="equal", interpolation="antialiased")
    draw_outlines(
        ax,
        surface_outlines(surface),
        extent=extent,
        areas=areas,
        sulci=look.with_sulci,
        labels=look.with_labels,
        dark=dark,
    )
    for side, place in (("left", 0.02), ("right", 0.98)):
        ax.text(place, 0.0, f"{side} hemisphere", transform=ax.transAxes, ha=side, va="bottom", color="0.25",
                fontsize="small")  # fmt: skip
    entitle(ax, title, own=own)
    return ax


def outline_note(surface: Surface, look: Look) -> str:
    """That outlines are wanted and cannot be had, and why; nothing where all is well."""
    wanted = look.with_sulci or bool(look.with_rois)
    fault = outline_fault(surface) if wanted else ""
    return f"no outlines: {fault}" if fault else ""


def significance_note(look: Look) -> str:
    """What the key says of voxels that are not significant."""
    words = {"fade": "faded", "hatch": "hatched", "hide": "hidden"}
    return f"{words[look.nonsignificant]}: not significant" if look.significant is not None else ""
