"""The data that the click-through map sends to the browser, made from results and arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..assembly import Array
from ..brain import category_palette, palette_of
from ..pipeline import Result
from ..plots import voxel_words

# The folder of the JavaScript and CSS that draw these data.
WEB = Path(__file__).parent


def course_of(result: Result, voxel: int, story: str) -> dict[str, Any]:
    """The data of one voxel for the browser: a heading, and times, measured and predicted BOLD as float32 bytes."""
    score = result.story_scores[story][voxel] if story in result.story_scores else np.nan
    heading = f"{voxel_words(result, voxel)}, {story}: r = {score:.2f}"
    series = {"times": result.row_times, "measured": result.measured, "predicted": result.predictions}
    if any(story not in kept for kept in series.values()):
        empty = {name: b"" for name in series}
        return {"voxel": voxel, "heading": f"{heading}; this run kept no time courses", **empty}
    times = np.asarray(result.row_times[story], "<f4").tobytes()
    columns = {
        name: np.asarray(series[name][story][:, voxel], "<f4").tobytes() for name in ("measured", "predicted")
    }
    return {"voxel": voxel, "heading": heading, "times": times, **columns}


def areas_of(masks: Mapping[str, Array], n_voxels: int) -> tuple[list[str], Array]:
    """Names of the areas, joined where several overlap, and for each voxel (n_voxels,) which of these it has."""
    if not masks:
        return [""], np.zeros(n_voxels, int)
    has = np.array(list(masks.values()), dtype=bool).T
    # Each voxel's areas as one string of bits: sorting those is a hundred times as fast as sorting rows.
    bits = np.ascontiguousarray(np.packbits(has, axis=1))
    _, first, numbers = np.unique(
        bits.view(f"V{bits.shape[1]}").ravel(), return_index=True, return_inverse=True
    )
    names = [
        ", ".join(name for name, inside in zip(masks, has[voxel], strict=True) if inside) for voxel in first
    ]
    return names, numbers


def row_places(lookup: Array, n_regions: int) -> Array:
    """(n_regions, 2): the middle of each region's row in the picture, -1 if it is not shown."""
    places = np.full((n_regions, 2), -1)
    rows, columns = np.nonzero(lookup >= 0)
    regions = lookup[rows, columns]
    counts = np.bincount(regions, minlength=n_regions)
    shown = counts > 0
    for axis, at in enumerate((rows, columns)):
        places[shown, axis] = (np.bincount(regions, at, n_regions)[shown] / counts[shown]).astype(int)
    return places


def stops(cmap: str, categories: Sequence[float] | None = None) -> list[str]:
    """Colours along the bar, as in a CSS gradient; each category has its own stretch of the bar."""
    if categories is None:
        return ["#" + bytes(colour).hex() for colour in palette_of(cmap)[::15]]
    share = 100 / len(categories)
    return [
        f"#{bytes(colour).hex()} {i * share:.2f}% {(i + 1) * share:.2f}%"
        for i, colour in enumerate(category_palette(len(categories), cmap))
    ]
