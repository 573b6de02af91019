"""From numbers to the colours of a map: the ends of the scale, the colour table, what is not significant."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from .mappers import FlatMapper

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
