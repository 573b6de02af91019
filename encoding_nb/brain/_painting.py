"""Values to colours, and colours to the pixels and figures of a map.

A map is drawn in two halves: the cortex in colour, one step of a palette per pixel, and above it the outlines
and names. The second half is cached, so that a live map only redraws the first.
"""

from __future__ import annotations

import difflib
import io
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .._figures import entitle, new_axes
from .._validation import check_choice, check_flags
from ..assembly import Array, Surface
from .outlines import draw_outlines, lettering
from .surfaces import VERTICES, flat_mapper, outline_fault, roi_names, surface_outlines, voxel_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes


STEPS = 256  # of a colour map
PARTS = 32  # of opacity
CURVATURE = (96.0, 160.0)  # the greys of sulci and gyri under a map, 0 to 255
LIGHT_CURVATURE = (222.0, 242.0)  # under a map of categories
_INCHES = 3.3  # height of the drawing that outlines and labels are sized for
_TWO_ARMED = set("RdBu PuOr BrBG PiYG PRGn RdYlBu RdGy coolwarm bwr seismic vanimo".split())

draw_lock = threading.RLock()  # matplotlib's text layout is not made for several threads


def map_note(values: Array) -> str:
    """What a map of these values cannot show by itself: nothing to draw, or one value everywhere; else ""."""
    finite = np.asarray(values)[np.isfinite(values)]
    if not len(finite):
        return f"none of the {len(values)} voxels has a finite value"
    if finite.min() == finite.max():
        return f"all {len(finite)} voxels with a value have the same value, {finite[0]:.4g}"
    return ""


def missing_note(values: Array) -> str:
    """How many of the voxels are not shown because they have no finite value, if some are; else ""."""
    n_finite = int(np.isfinite(values).sum())
    if n_finite in (0, len(values)):  # for none, see `map_note`
        return ""
    return f"{len(values) - n_finite:,} of {len(values):,} voxels have no value and are not shown"


def value_limits(values: Array, *, cmap: str, vmin: float | None, vmax: float | None) -> tuple[float, float]:
    """The ends of the colour scale: `vmin` and `vmax`, by default 0 and the 99.5th percentile of the finite values.

    A scale with two arms (such as RdBu_r) gets ends of equal size. If the upper end would not be above 0, the scale
    begins at the 0.5th percentile. Values within -1 and 1, such as correlations, get ends within them, too.

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
    least, most = (-1.0, 1.0) if len(finite) and np.abs(finite).max() <= 1 else (-np.inf, np.inf)
    if low == high:  # one value everywhere: put it in the middle of the scale
        low, high = max(low - 0.5, least), min(high + 0.5, most)
    low, high = low if vmin is None else float(vmin), high if vmax is None else float(vmax)
    if vmin is None and low >= high:
        low = max(high - 1.0, least) if high > least else high - 1.0
    if vmax is None and low >= high:
        high = min(low + 1.0, most) if low < most else low + 1.0
    if not low < high:
        raise ValueError(f"Expected vmin below vmax, got {low:g} and {high:g}; try without one of them.")
    return float(low), float(high)


def check_cmap(cmap: str, known: Iterable[str], where: str) -> None:
    """Refuse a colour map that is not among the known ones, if there are any, and suggest similar names."""
    known = list(known)
    if known and cmap not in known:
        near = difflib.get_close_matches(cmap, known, 3) or ["inferno", "viridis", "RdBu_r"]
        raise ValueError(f"{where} has no colour map {cmap!r}; try {', '.join(near)}.")


@lru_cache(maxsize=16)
def palette_of(cmap: str) -> Array:
    """(256, 3) uint8: a colour map of matplotlib as a table; a ValueError for an unknown name."""
    import matplotlib

    check_cmap(cmap, matplotlib.colormaps, "matplotlib")
    return np.rint(matplotlib.colormaps[cmap](np.arange(STEPS) / 255)[:, :3] * 255).astype(np.uint8)


@lru_cache(maxsize=16)
def category_palette(n_categories: int, cmap: str = "viridis") -> Array:
    """(n_categories, 3) uint8: colours in order, evenly spaced along a colour map without its lightest end.

    They are drawn on light greys, and differ from these in a grey print, too.
    """
    steps = np.linspace(0, 0.85 * STEPS, n_categories) if n_categories > 1 else np.array([STEPS / 3])
    return palette_of(cmap)[np.rint(steps).astype(int)]


# Corners of the palette for two values: neither, the first alone, the second alone, both. Blue and orange differ
# in every kind of colour vision, and in grey the four corners go from dark to light.
PAIR_CORNERS = ("#232323", "#1f6fc0", "#f0902a", "#fdf8ee")
PAIR_STEPS = 32  # along each of the two axes
_TO_CONES = np.reshape([0.4122214708, 0.5363325363, 0.0514459929, 0.2119034982, 0.6806995451, 0.1073969566,
                        0.0883024619, 0.2817188376, 0.6299787005], (3, 3))  # fmt: skip
_TO_LAB = np.reshape([0.2104542553, 0.7936177850, -0.0040720468, 1.9779984951, -2.4285922050, 0.4505937099,
                      0.0259040371, 0.7827717662, -0.8086757660], (3, 3))  # fmt: skip


@lru_cache(maxsize=1)
def pair_palette() -> Array:
    """(32 * 32, 3) uint8: colours for two values, row by row of the second, with even steps along both.

    Mixed in Oklab, where equal steps look equal (B. Ottosson, 2020, "A perceptual color space for image
    processing").
    """
    rgb = np.array([[int(corner[i : i + 2], 16) for i in (1, 3, 5)] for corner in PAIR_CORNERS]) / 255
    neither, first, second, both = _to_oklab(rgb)
    x = np.linspace(0, 1, PAIR_STEPS)[None, :, None]
    y = np.linspace(0, 1, PAIR_STEPS)[:, None, None]
    mixed = (1 - x) * (1 - y) * neither + x * (1 - y) * first + (1 - x) * y * second + x * y * both
    return np.rint(255 * np.clip(_from_oklab(mixed), 0, 1)).astype(np.uint8).reshape(-1, 3)


def _to_oklab(srgb: Array) -> Array:
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T


def _from_oklab(lab: Array) -> Array:
    linear = (lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_CONES).T
    linear = np.clip(linear, 0, None)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _hatch(share: Array, pixels: Array) -> Array:
    rows, columns = np.nonzero(pixels)
    step = max(4, round(pixels.shape[0] / 85))
    stripes = (rows + columns) % step < step / 2
    return np.where(stripes & (share < 0.5), 0.0, 1.0)


# How voxels that are not significant are shown: from the significant share of the cortex under each pixel to
# the opacity of its colour, (n_pixels,) both; and the word for it in a figure.
NONSIGNIFICANT: dict[str, tuple[Callable[[Array, Array], Array], str]] = {
    "fade": (lambda share, pixels: 0.3 + 0.7 * share, "faded"),
    "hatch": (_hatch, "hatched"),
    "hide": (lambda share, pixels: share >= 0.5, "hidden"),
}


@dataclass(frozen=True, eq=False)
class MapStyle:
    """How a map is drawn, whatever its colours mean; `brain.flat_image` explains the fields.

    Raises
    ------
    ValueError
        `significant` is not a mask of flags (p-values, for example); an unknown `nonsignificant`.
    """

    height: int = 512
    significant: Array | None = None
    nonsignificant: str = "fade"
    otherwise: str = "not significant"
    note: str = ""
    with_curvature: bool = True
    with_rois: bool | Sequence[str] = True
    with_sulci: bool = False
    with_labels: bool = True

    def __post_init__(self) -> None:
        if self.significant is not None:
            object.__setattr__(self, "significant", check_flags(self.significant))
        check_choice(self.nonsignificant, "nonsignificant", NONSIGNIFICANT)

    def areas(self, surface: Surface) -> tuple[str, ...]:
        """The areas whose outlines are drawn: all, none, or those named; a ValueError for an unknown name."""
        known = roi_names(surface)
        if isinstance(self.with_rois, bool):
            return known if self.with_rois else ()
        names = (self.with_rois,) if isinstance(self.with_rois, str) else tuple(self.with_rois)
        for name in names:
            if name not in known:
                drawn = ", ".join(known) or "none"
                raise ValueError(f"No area {name!r} is drawn for {surface.subject}; drawn are {drawn}.")
        return names

    def notes(self, surface: Surface) -> list[str]:
        """What a figure says about voxels that are not significant, and about outlines that are missing."""
        word = NONSIGNIFICANT[self.nonsignificant][1]
        some = self.significant is not None and not self.significant.all()
        notes = [f"{word}: {self.otherwise}"] if some else []
        return [*notes, self.note, self.outline_note(surface)]

    def outline_note(self, surface: Surface) -> str:
        """Why outlines are missing, if they are wanted and the subject's drawing cannot be read; else ""."""
        fault = outline_fault(surface) if self.with_sulci or self.with_rois else ""
        return f"no outlines: {fault}" if fault else ""


def checked(values: Any, surface: Surface, what: str = "values") -> Array:
    """`values` as an array; a ValueError unless it is one number per voxel (or vertex) of the surface."""
    array = np.asarray(values)
    n_voxels = voxel_count(surface)
    if array.shape != (n_voxels,):
        got = f"{len(array)} {what}" if array.ndim == 1 else f"{what} of shape {array.shape}"
        where = f"mask {surface.mask!r} of {surface.subject}/{surface.transform}"
        per = f"vertex of {surface.subject}" if surface.mask == VERTICES else f"voxel of {where}"
        raise ValueError(
            f"Expected {n_voxels} {what}, one per {per}, got {got}; pass the surface of the same assembly."
        )
    return array


@dataclass(frozen=True, eq=False)
class Painting:
    """A cortex in colour, without outlines, made by `paint`.

    Attributes
    ----------
    cortex : array, (height, width, 4), uint8
        RGBA, transparent outside the cortex.
    surface : Surface
    style : MapStyle
    light : bool
        Whether outlines and names are dark, as a light map needs them.
    """

    cortex: Array
    surface: Surface
    style: MapStyle
    light: bool

    def pixels(self, note: str) -> Array:
        """The picture with outlines, and the note at its lower edge: (height, width, 4), uint8."""
        note = "; ".join(text for text in (note, self.style.outline_note(self.surface)) if text)
        where, what = overlay(self.surface, self.style.height, note, **self._outlines())
        flat = self.cortex.reshape(-1, 4)  # drawn in place: a painting is used once
        flat[where] = what + (flat[where] * (255 - what[:, 3:].astype(np.uint16)) // 255).astype(np.uint8)
        return self.cortex

    def axes(self, title: str, ax: Axes | None, *, size: tuple[float, float] = (6.4, 4.6)) -> Any:
        """Axes with the map, its outlines and names sharp at any size; call it under `draw_lock`."""
        extent: Any = flat_mapper(self.surface, height=self.style.height).extent
        outlines = self._outlines()
        own, ax = ax is None, new_axes(size) if ax is None else ax
        ax.set_axis_off()
        ax.imshow(self.cortex, extent=extent, aspect="equal", interpolation="antialiased")
        draw_outlines(ax, surface_outlines(self.surface), extent=extent, **outlines)
        for side, place in (("left", 0.02), ("right", 0.98)):
            ax.text(place, 0.0, f"{side} hemisphere", transform=ax.transAxes, ha=side, va="bottom", color="0.25",
                    fontsize="small")  # fmt: skip
        entitle(ax, title, own=own)
        return ax

    def _outlines(self) -> dict[str, Any]:
        style = self.style
        areas = style.areas(self.surface)
        return {"areas": areas, "sulci": style.with_sulci, "labels": style.with_labels, "dark": self.light}


def paint(
    steps: Array, shown: Array, palette: Array, surface: Surface, style: MapStyle, *, light: bool = False
) -> Painting:
    """Colour the cortex.

    The colour of a pixel depends on a step of the palette, an opacity and one of two greys, and opacities
    come in 32 parts as the mapper's weights do: so all colours are mixed once, in a table, and looked up.

    Parameters
    ----------
    steps : array of int, (n_pixels,)
        Rows of `palette`.
    shown : bool array, (n_pixels,)
        Which pixels have a value; the others show the curvature.
    palette : array, (n_steps, 3), uint8
    light : bool
        Whether the curvature is two light greys.
    """
    mapper = flat_mapper(surface, height=style.height)
    parts = shown.astype(np.float32)
    if style.significant is not None:
        flags = checked(style.significant, surface, "significance flags")
        share = np.nan_to_num(mapper.project(flags.astype(float)))
        parts *= NONSIGNIFICANT[style.nonsignificant][0](share, mapper.pixels)
    index = steps + len(palette) * np.rint(parts * PARTS).astype(np.int32)
    index += len(palette) * (PARTS + 1) * mapper.curvature
    greys = LIGHT_CURVATURE if light else CURVATURE
    if not style.with_curvature:
        greys = (sum(greys) / 2, sum(greys) / 2)
    image = np.zeros(mapper.pixels.size, np.uint32)
    image[mapper.places] = _mixed_colours(palette.tobytes(), greys)[index]
    return Painting(image.view(np.uint8).reshape(*mapper.pixels.shape, 4), surface, style, light)


@lru_cache(maxsize=16)
def _mixed_colours(palette: bytes, greys: tuple[float, float]) -> Array:
    """(2 greys * 33 opacities * n_steps,) RGBA of one byte each, packed into uint32.

    `palette` holds three bytes per step; `greys` are those of sulci and gyri, 0 to 255.
    """
    colours = np.frombuffer(palette, np.uint8).reshape(-1, 3)
    part = np.arange(PARTS + 1)[:, None, None] / PARTS
    mixed = part * colours + (1 - part) * np.array(greys)[:, None, None, None]
    opaque = np.full((*mixed.shape[:-1], 1), 255.0)
    return np.concatenate([mixed, opaque], axis=-1).astype(np.uint8).reshape(-1, 4).view(np.uint32).ravel()


@lru_cache(maxsize=16)
def overlay(surface: Surface, height: int, note: str = "", **outlines: Any) -> tuple[Array, Array]:
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
        draw_outlines(axes, surface_outlines(surface), extent=mapper.extent, **outlines)
        if note:
            letters = lettering(size=8, dark=outlines.get("dark", False))
            axes.text(0.5, 0.01, note, transform=axes.transAxes, va="bottom", **letters)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        drawn = np.asarray(canvas.buffer_rgba())[:rows, :columns].reshape(-1, 4)
    where = np.flatnonzero(drawn[:, 3])
    what = drawn[where]
    what[..., :3] = np.rint(what[..., :3] * (what[..., 3:] / 255))
    return where, what


def png(image: Array) -> bytes:
    """An RGBA picture as PNG, quickly."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
