"""From voxels to pixels: a surface's flat mapper as a sparse matrix, and the file that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .store import new_file

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class FlatMapper:
    """From the voxels of a surface's mask, or its vertices, to the pixels of its flatmap.

    Attributes
    ----------
    pixels : array, (height, width), bool
        Where the picture shows cortex. The pixels below are these, row by row from the top.
    weights : sparse matrix, (n_pixels, n_voxels)
        The share of the cortex under a pixel, from white matter to pia, that lies in a voxel. A row sums to
        less than 1 where the mask leaves some of it out. For values per vertex a row has one entry, 1, at the
        nearest vertex.
    curvature : array, (n_pixels,), bool
        Where the folded cortex curves outwards (gyri), as pycortex shades it.
    extent : tuple of float
        Left, right, bottom, top in the coordinates of pycortex's flat surface, mm.
    """

    pixels: Array
    weights: csr_matrix
    curvature: Array
    extent: tuple[float, float, float, float]

    @cached_property
    def map_points(self) -> Array:
        """(n_pixels, 2): the place of each pixel, 0 to 1 from left to right and from bottom to top."""
        rows, columns = np.nonzero(self.pixels)
        height, width = self.pixels.shape
        return np.column_stack([columns / (width - 1), 1 - rows / (height - 1)])

    @cached_property
    def places(self) -> Array:
        """(n_pixels,): index of each pixel in the picture, row by row from the top."""
        return np.flatnonzero(self.pixels)

    @cached_property
    def means(self) -> csr_matrix:
        """(n_pixels, n_voxels): `weights` with rows that sum to 1, or to 0 where the mask has no voxel."""
        totals = np.asarray(self.weights.sum(1)).ravel()
        means = self.weights.astype(float)
        means.data /= np.repeat(totals, np.diff(self.weights.indptr))
        return means

    @cached_property
    def lookup(self) -> Array:
        """(height, width) int32: the voxel with the largest share under each pixel, -1 where there is none."""
        counts = np.diff(self.weights.indptr)
        filled = np.flatnonzero(counts)
        largest = np.zeros(len(counts), np.float32)
        largest[filled] = np.maximum.reduceat(self.weights.data, self.weights.indptr[filled])
        candidates = np.flatnonzero(self.weights.data == np.repeat(largest, counts))
        rows = np.repeat(np.arange(len(counts)), counts)[candidates]
        found, first = np.unique(rows, return_index=True)
        image = np.full(self.pixels.size, -1, np.int32)
        image[self.places[found]] = self.weights.indices[candidates[first]]
        return image.reshape(self.pixels.shape)

    @cached_property
    def voxel_places(self) -> Array:
        """(n_voxels, 2) int32: row and column of a pixel in the middle of each voxel; -1 where none shows it."""
        n_voxels = self.weights.shape[1]
        places = np.full((n_voxels, 2), -1, np.int32)
        by_voxel = self.weights.tocsc()
        shown = np.flatnonzero(np.diff(by_voxel.indptr))
        any_pixel = self.places[by_voxel.indices[by_voxel.indptr[shown]]]
        places[shown] = np.column_stack(np.unravel_index(any_pixel, self.pixels.shape))
        rows, columns = np.nonzero(self.lookup >= 0)
        voxels = self.lookup[rows, columns]
        n_pixels = np.maximum(np.bincount(voxels, minlength=n_voxels), 1)
        away = sum(
            (at - (np.bincount(voxels, at, n_voxels) / n_pixels)[voxels]) ** 2 for at in (rows, columns)
        )
        order = np.lexsort((away, voxels))
        seen, first = np.unique(voxels[order], return_index=True)
        places[seen] = np.column_stack([rows, columns])[order[first]]
        return places

    def project(self, values: Array) -> Array:
        """(n_pixels,): the mean of the (n_voxels,) values under each pixel; NaN where there is none.

        Values that are not finite count as missing, as in pycortex.
        """
        there = np.isfinite(values)
        if there.all():
            flat = self.means @ values.astype(float)
            flat[np.diff(self.means.indptr) == 0] = np.nan
            return flat
        total, share = self.means @ np.where(there, values, 0.0), self.means @ there.astype(float)
        return np.divide(total, share, out=np.full(len(total), np.nan), where=share > 0)


def write_mapper(path: Path, mapper: FlatMapper) -> None:
    """Keep a mapper in one compressed file."""
    weights = mapper.weights
    arrays = {
        "data": np.rint(weights.data * 32).astype(np.uint8),  # pycortex samples 32 depths
        "indices": weights.indices.astype(np.uint16 if weights.shape[1] < 2**16 else np.int32),
        "counts": np.diff(weights.indptr).astype(np.uint8),
    }
    if not np.allclose(arrays["data"] / 32, weights.data, atol=1e-6) or arrays["counts"].max() > 255:
        raise ValueError(f"{path.name}: weights that are no multiples of 1/32 are not foreseen.")
    with new_file(path) as draft:
        np.savez_compressed(
            draft,
            **arrays,
            n_voxels=weights.shape[1],
            pixels=np.packbits(mapper.pixels),
            shape=mapper.pixels.shape,
            curvature=np.packbits(mapper.curvature),
            extent=mapper.extent,
        )


def read_mapper(path: Path) -> FlatMapper:
    """Read what `write_mapper` wrote."""
    from scipy.sparse import csr_matrix

    with np.load(path) as file:
        shape = tuple(int(n) for n in file["shape"])
        counts = file["counts"]
        pointers = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
        weights = csr_matrix(
            (file["data"].astype(np.float32) / 32, file["indices"].astype(np.int32), pointers),
            shape=(len(counts), int(file["n_voxels"])),
        )
        return FlatMapper(
            pixels=np.unpackbits(file["pixels"], count=shape[0] * shape[1]).astype(bool).reshape(shape),
            weights=weights,
            curvature=np.unpackbits(file["curvature"], count=len(counts)).astype(bool),
            extent=tuple(float(edge) for edge in file["extent"]),
        )
