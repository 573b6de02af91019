"""Surfaces and their flat mappers: one sparse matrix from voxels to pixels.

Values may also be given per vertex: the surface's mask is then `VERTICES` and its transform is not looked at.
All geometry is pycortex's own. The mask, the mapper and the outlines of the demo's surface come with the
package, so that its first map needs neither pycortex's import nor a cold cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._files import cache_folder, new_file
from .._machine import blas_by_thread, blas_limited
from .._validation import describe
from ..assembly import Surface
from ._pycortex import find_store, import_cortex, open_store, pycortex_lock, quiet
from .outlines import Outline, read_drawing

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


VERTICES = "vertices"  # the mask of a surface whose values are per vertex, left hemisphere first
SHIPPED = Surface("S1", "fullhead", "demo")
SHIPPED_FOLDER = Path(__file__).parent.parent / "datasets" / "demo_data" / "surface"
PYCORTEX_MASKS = ("thick", "thin", "cortical", "nearest", "line_nearest")
_CACHE_VERSION = 1  # counts up when the files in the cache folder change their meaning


def vertex_surface(subject: str, *, store: str | None = None) -> Surface:
    """A surface for values per vertex, such as fsaverage's: left hemisphere first, then right.

    Parameters
    ----------
    subject : str
        By its name in pycortex's store.
    store : folder, optional
        The store that holds it; None looks for one.
    """
    return Surface(subject, "", VERTICES, store=store)


def _store_of(surface: Surface) -> Path:
    return find_store(surface.subject, store=surface.store)


def require_surface(surface: Any) -> None:
    """Refuse what is not a Surface, such as a subject's name, or None of data that name no surface.

    Raises
    ------
    TypeError
    """
    if not isinstance(surface, Surface):
        raise TypeError(
            f"Expected a Surface, got {describe(surface)}; pass assembly.surface or result.surface, or "
            f"Surface(subject, transform, mask) by pycortex's names."
        )


def surface_mask(surface: Surface) -> Array:
    """The voxels of a surface: bool, (z, y, x), in the order in which values are listed.

    Raises
    ------
    ValueError
        Unknown subject, transform or mask; the known ones are listed. Or a surface of vertices.
    """
    require_surface(surface)
    if surface.mask == VERTICES:
        raise ValueError(
            f"The values of {surface.subject} are per vertex and have no volume mask; use a Surface with a transform "
            f"and a mask for values per voxel."
        )
    return _mask(surface)


def voxel_count(surface: Surface) -> int:
    """How many voxels the mask of a surface holds, or how many vertices the surface has."""
    require_surface(surface)
    if surface.mask == VERTICES:
        return int(flat_mapper(surface).weights.shape[1])
    return int(surface_mask(surface).sum())


@lru_cache(maxsize=8)
def _mask(surface: Surface) -> Array:
    if surface == SHIPPED:
        with np.load(SHIPPED_FOLDER / "mask.npz") as file:
            mask = np.unpackbits(file["bits"], count=int(np.prod(file["shape"]))).astype(bool)
            mask = mask.reshape(file["shape"])
    else:
        mask = _pycortex_mask(surface)
    mask.setflags(write=False)
    return mask


def _pycortex_mask(surface: Surface) -> Array:
    folder = _store_of(surface) / surface.subject / "transforms"
    transforms = sorted(path.parent.name for path in folder.glob("*/matrices.xfm"))
    if surface.transform not in transforms:
        raise ValueError(
            f"Subject {surface.subject} has no transform {surface.transform!r}; choose from "
            f"{', '.join(transforms) or 'none'}; or draw values per vertex on vertex_surface({surface.subject!r})."
        )
    drawn = (path.name[5:-7] for path in (folder / surface.transform).glob("mask_*.nii.gz"))
    known = sorted({*drawn, *PYCORTEX_MASKS})
    if surface.mask not in known:
        raise ValueError(
            f"{surface.subject}/{surface.transform} has no mask {surface.mask!r}; choose from "
            f"{', '.join(known)}."
        )
    with pycortex_of(surface) as cortex:
        return np.asarray(cortex.db.get_mask(surface.subject, surface.transform, surface.mask), bool)


@contextlib.contextmanager
def pycortex_of(surface: Surface) -> Iterator[Any]:
    """pycortex with a store that holds the subject; one thread at a time, and without its prints.

    Its flat mapper solves one tiny system per triangle, for which several BLAS threads only wait for each
    other: with one, a mapper takes 6 s where it took 60 s beside another busy process.
    """
    with pycortex_lock:
        open_store(surface.subject, store=surface.store)
        with quiet(), blas_limited(1), blas_by_thread().limit(limits=1):
            yield import_cortex()


def flat_mapper(surface: Surface, *, height: int = 512) -> FlatMapper:
    """The mapper of a surface at a picture height in pixels.

    Ready at once for the demo's surface at 512 and 1024 pixels. Any other is made by pycortex, which takes
    5 to 20 s, and then kept in the user's cache folder.

    Raises
    ------
    ValueError
        Unknown subject, transform or mask, or a height that is not whole or below 16.
    """
    require_surface(surface)
    if not isinstance(height, Integral) or height < 16:
        raise ValueError(f"Expected a picture height of 16 pixels or more, a whole number, got {height!r}.")
    with pycortex_lock:
        return _mapper(surface, int(height))


@lru_cache(maxsize=4)
def _mapper(surface: Surface, height: int) -> FlatMapper:
    shipped = SHIPPED_FOLDER / f"flat-{height}.npz"
    if surface == SHIPPED and shipped.is_file():
        return read_mapper(shipped)
    mask = np.empty(0, bool) if surface.mask == VERTICES else surface_mask(surface)
    name = f"flat-{surface.subject}-{surface.transform}-{surface.mask}-{height}-{_key(surface, mask)}.npz"
    kept = cache_folder() / name
    if not kept.is_file():
        write_mapper(kept, mapper_of_pycortex(surface, mask, height))
    return read_mapper(kept)


def _key(surface: Surface, mask: Array) -> str:
    """Changes when the subject's surfaces, its transform or the mask change."""
    subject = _store_of(surface) / surface.subject
    files = sorted((subject / "surfaces").iterdir())
    if surface.mask != VERTICES:
        files.append(subject / "transforms" / surface.transform / "matrices.xfm")
    key = blake2b(np.packbits(mask).tobytes(), digest_size=8)
    for path in files:
        stat = path.stat()
        key.update(f"{path.name} {stat.st_size} {stat.st_mtime_ns}".encode())
    key.update(f"{mask.shape} {_CACHE_VERSION}".encode())
    return key.hexdigest()


def mapper_of_pycortex(surface: Surface, mask: Array, height: int) -> FlatMapper:
    """The mapper from pycortex's flat mask, flat mapper and curvature; slow where these are not cached.

    `mask` is the surface's, (z, y, x), and is not looked at for a surface of vertices.
    """
    with pycortex_of(surface) as cortex:
        flat = cortex.quickflat.utils
        columns_first, extent = flat.get_flatmask(surface.subject, height=height)
        vertices = flat.get_flatcache(surface.subject, None, height=height).tocsr()
        curvature = vertices @ cortex.db.get_surfinfo(surface.subject).data
        if surface.mask == VERTICES:
            weights = vertices
        else:
            weights = flat.get_flatcache(surface.subject, surface.transform, height=height).tocsr()
    if surface.mask != VERTICES:
        if mask.size != weights.shape[1]:
            raise ValueError(
                f"Mask {surface.mask!r} of {surface.subject} has {mask.size} voxels in all but transform "
                f"{surface.transform!r} has {weights.shape[1]}; check that the store holds the subject you mean."
            )
        weights = weights[:, np.flatnonzero(mask)]
    # pycortex lists the pixels column by column from below; a picture is read row by row from above
    x, y = np.nonzero(columns_first)
    order = np.lexsort((x, -y))
    return FlatMapper(
        pixels=columns_first.T[::-1],
        weights=weights[order].astype(np.float32),
        curvature=np.asarray(curvature).ravel()[order] > 0,
        extent=tuple(float(edge) for edge in extent),
    )


def surface_outlines(surface: Surface) -> tuple[Outline, ...]:
    """The outlines drawn for the subject: areas ("rois"), sulci, and the edge of the cortex."""
    require_surface(surface)
    return _shipped_outlines() if surface == SHIPPED else _drawing_of(surface)[0]


def outline_fault(surface: Surface) -> str:
    """Why there are no outlines of the subject, in a few words; nothing where its drawing could be read."""
    return "" if surface == SHIPPED else _drawing_of(surface)[1]


def _drawing_of(surface: Surface) -> tuple[tuple[Outline, ...], str]:
    drawing = _store_of(surface) / surface.subject / "overlays.svg"
    return _kept_drawing(drawing, drawing.stat().st_mtime_ns if drawing.is_file() else 0)


@lru_cache(maxsize=8)
def _kept_drawing(drawing: Path, changed: int) -> tuple[tuple[Outline, ...], str]:
    return read_drawing(drawing)


@lru_cache(maxsize=1)
def _shipped_outlines() -> tuple[Outline, ...]:
    with np.load(SHIPPED_FOLDER / "outlines.npz") as file:
        lines = np.split(file["points"].astype(float), np.cumsum(file["lengths"])[:-1])
        columns = (file["layers"], file["names"], lines, file["closed"], file["label_at"].astype(float))
        return tuple(
            Outline(str(layer), str(name), points, bool(closed), None if np.isnan(at).any() else at)
            for layer, name, points, closed, at in zip(*columns, strict=True)
        )


def roi_names(surface: Surface) -> tuple[str, ...]:
    """The areas drawn for the subject."""
    return tuple(dict.fromkeys(line.name for line in surface_outlines(surface) if line.layer == "rois"))


def roi_masks(surface: Surface, *, height: int = 512) -> dict[str, Array]:
    """The voxels of each area drawn on the subject's flatmap, both hemispheres together.

    A voxel belongs to an area when more than half of what the flatmap shows of it lies inside the drawing; a
    vertex does when it lies inside.

    Returns
    -------
    dict of name to bool array, (n_voxels,)
        Areas that are only named in the drawing, without a shape, are not listed.
    """
    return dict(_drawn_masks(surface, height, surface_outlines(surface)))


@lru_cache(maxsize=4)
def _drawn_masks(surface: Surface, height: int, outlines: tuple[Outline, ...]) -> dict[str, Array]:
    if surface.mask == VERTICES:
        points = _vertex_places(surface)
        return {name: _read_only(_inside(name, points, outlines)) for name in roi_names(surface)}
    mapper = flat_mapper(surface, height=height)
    drawn = np.asarray(mapper.weights.sum(0)).ravel()  # how much of each voxel the flatmap shows
    return {
        name: _read_only(
            mapper.weights.T @ _inside(name, mapper.map_points, outlines).astype(float) > drawn / 2
        )
        for name in roi_names(surface)
    }


def _read_only(mask: Array) -> Array:
    mask.setflags(write=False)  # callers share it
    return mask


def _inside(name: str, points: Array, outlines: tuple[Outline, ...]) -> Array:
    """(n_points,) bool: which (n_points, 2) map coordinates lie in any piece of the area."""
    pieces = [line.contains(points) for line in outlines if line.layer == "rois" and line.name == name]
    return np.any(pieces, axis=0)


def _vertex_places(surface: Surface) -> Array:
    """(n_vertices, 2): map coordinates of the vertices; NaN for those that the flat surface leaves out."""
    with pycortex_of(surface) as cortex:
        points, faces = cortex.db.get_surf(surface.subject, "flat", merge=True, nudge=True)
    left, right, bottom, top = flat_mapper(surface).extent
    places = (points[:, :2] - [left, bottom]) / [right - left, top - bottom]
    places[np.setdiff1d(np.arange(len(points)), faces)] = np.nan
    return places
