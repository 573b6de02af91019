"""What every map shares: pixels mixed from a palette, outlines and notes laid over, the figure around it.

A map is drawn in two halves: the cortex in colour, one step of a palette per pixel, and above it the outlines
and names. The second half is kept, so that a live map is redrawn by the first alone.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from .assembly import Surface
from .colours import CURVATURE, NONSIGNIFICANT, PARTS, mixed_colours, opacity_of
from .columns import checked_flags
from .figures import entitle, new_axes
from .overlays import draw_outlines, lettering
from .surfaces import VERTICES, flat_mapper, outline_fault, roi_names, surface_outlines, voxel_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = np.ndarray

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
