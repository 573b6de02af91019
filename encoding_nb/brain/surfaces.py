"""Cortical surfaces: voxel masks, outlines, and the sparse matrix from voxels to pixels of a flatmap.

Values per vertex are possible, too: the mask of the surface is then `VERTICES`, and its transform is not used.
All geometry comes from pycortex. The mask, the matrix and the outlines of the demo's surface are files of this
package, so that the demo's first map needs no import of pycortex.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _progress
from .._files import cache_folder, digest, new_file
from .._machine import blas_by_thread, blas_limited
from .._validation import check_whole, describe
from ..assembly import Array, Surface
from ._pycortex import find_store, import_cortex, linked_folder, open_store, pycortex_lock, quiet
from .outlines import Extent, Outline, read_drawing
from .volumes import Volume, axes_onto, read_volume, same_axes, turned

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


VERTICES = "vertices"  # the mask of a surface whose values are per vertex, left hemisphere first
SHIPPED = Surface("S1", "fullhead", "demo")
SHIPPED_FOLDER = Path(__file__).parent.parent / "datasets" / "demo_data" / "surface"
PYCORTEX_MASKS = ("thick", "thin", "cortical", "nearest", "line_nearest")
_CACHE_VERSION = 1  # counts up when the files in the cache folder change their meaning


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
    extent: Extent

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
        pixels = np.argwhere(self.lookup >= 0)
        voxels = self.lookup[tuple(pixels.T)]
        n_pixels = np.maximum(np.bincount(voxels, minlength=n_voxels), 1)
        middles = np.column_stack([np.bincount(voxels, axis, n_voxels) / n_pixels for axis in pixels.T])
        order = np.lexsort((((pixels - middles[voxels]) ** 2).sum(axis=1), voxels))
        seen, first = np.unique(voxels[order], return_index=True)
        places[seen] = pixels[order[first]]
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
    """Write a mapper to one compressed file.

    Raises
    ------
    ValueError
        The weights do not fit the file's format.
    """
    weights = mapper.weights
    counts = np.diff(weights.indptr)
    parts = np.rint(weights.data * 32).astype(np.uint8)  # pycortex samples 32 depths
    if not np.allclose(parts / 32, weights.data, atol=1e-6) or counts.max() > 255:
        raise ValueError(
            f"{path.name}: expected weights in steps of 1/32, at most 255 per pixel; report this subject, please."
        )
    with new_file(path) as draft:
        np.savez_compressed(
            draft,
            data=parts,
            indices=weights.indices.astype(np.uint16 if weights.shape[1] < 2**16 else np.int32),
            counts=counts.astype(np.uint8),
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
        shape, counts = tuple(file["shape"].tolist()), file["counts"]
        pointers = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int32)
        weights = csr_matrix(
            (file["data"].astype(np.float32) / 32, file["indices"].astype(np.int32), pointers),
            shape=(len(counts), int(file["n_voxels"])),
        )
        return FlatMapper(
            pixels=_unpacked(file["pixels"], shape),
            weights=weights,
            curvature=_unpacked(file["curvature"], counts.shape),
            extent=tuple(file["extent"].tolist()),
        )


def _unpacked(bits: Array, shape: tuple[int, ...]) -> Array:
    return np.unpackbits(bits, count=int(np.prod(shape))).astype(bool).reshape(shape)


def vertex_surface(subject: str, *, store: str | None = None) -> Surface:
    """A surface for values per vertex, such as fsaverage's: left hemisphere first, then right.

    Parameters
    ----------
    subject : str
        Its name in pycortex's store.
    store : folder, optional
        The store with the subject; None looks for one.
    """
    return Surface(subject, "", VERTICES, store=store)


def _store_of(surface: Surface) -> Path:
    return find_store(surface.subject, store=surface.store)


def check_surface(surface: Any) -> None:
    """Refuse anything that is not a Surface, such as the name of a subject, or None from data without a surface.

    Raises
    ------
    TypeError
    """
    if not isinstance(surface, Surface):
        raise TypeError(
            f"Expected a Surface, got {describe(surface)}; pass assembly.surface or result.surface, or "
            f"Surface(subject, transform, mask) with pycortex's names."
        )


def surface_mask(surface: Surface) -> Array:
    """The voxels of a surface: bool, (z, y, x), as in pycortex.

    This is the order in which values are listed: value i is that of voxel `np.argwhere(mask)[i]`, so x changes
    fastest. `volume[mask]` lists the values of a volume (z, y, x), and `image.get_fdata().T[mask]` those of a NIfTI
    image stored like the transform's reference. nilearn's maskers and `image.get_fdata()[mask.T]` list the same voxels
    in another order, with z fastest: `voxel_order` converts.

    Raises
    ------
    ValueError
        Unknown subject, transform or mask (the known ones are listed), a surface of vertices, or a mask file
        that is damaged, or stored in another order of axes or shape than the transform's reference image.

    Warns
    -----
    UserWarning
        A mask file whose affine has its voxels elsewhere than the reference; pycortex uses its array only.
    """
    check_surface(surface)
    if surface.mask == VERTICES:
        raise ValueError(
            f"The values of {surface.subject} are per vertex and have no volume mask; for values per voxel use a "
            f"Surface with a transform and a mask."
        )
    return _mask(surface)


def voxel_count(surface: Surface) -> int:
    """The number of voxels in the mask of a surface, or of vertices of the surface."""
    check_surface(surface)
    known = known_voxel_count(surface)
    if known is not None:
        return known
    if surface.mask == VERTICES:
        return int(flat_mapper(surface).weights.shape[1])
    return int(surface_mask(surface).sum())


def known_voxel_count(surface: Surface) -> int | None:
    """`voxel_count` from the files of a surface, without pycortex; None where pycortex has to make the mask first.

    Raises
    ------
    ValueError
        As `surface_mask`.
    """
    check_surface(surface)
    if surface.mask == VERTICES:
        return _vertex_count(surface)
    if surface == SHIPPED:
        return int(_shipped_mask().sum())
    file = _mask_file(surface)
    return None if file is None else int(_mask_of_file(surface, file).sum())


def _vertex_count(surface: Surface) -> int | None:
    """Vertices of both hemispheres; None if the files of the flat surface are not GIFTI files."""
    folder = _store_of(surface) / surface.subject / "surfaces"
    files = [folder / f"flat_{side}.gii" for side in ("lh", "rh")]
    if not all(file.is_file() for file in files):
        return None
    return sum(_points_of_file(file, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=8)
def _points_of_file(file: Path, changed: int) -> int:
    import nibabel

    image: Any = nibabel.load(file)
    return len(image.agg_data("pointset"))


def _mask(surface: Surface) -> Array:
    if surface == SHIPPED:
        return _shipped_mask()
    return _mask_of_file(surface, _mask_file(surface) or _made_by_pycortex(surface))


@lru_cache(maxsize=1)
def _shipped_mask() -> Array:
    with np.load(SHIPPED_FOLDER / "mask.npz") as file:
        return _read_only(_unpacked(file["bits"], file["shape"]))


def _read_only(mask: Array) -> Array:
    mask.setflags(write=False)  # callers share it
    return mask


def _mask_file(surface: Surface) -> Path | None:
    """The file of a mask, in the store or where pycortex has put it; None if pycortex has not made it yet."""
    store = _store_of(surface)
    inside = Path(surface.subject, "transforms", surface.transform)
    file = store / inside / f"mask_{surface.mask}.nii.gz"
    if (file.parent / "matrices.xfm").is_file() and file.is_file():
        return file
    folder = store / surface.subject / "transforms"
    transforms = sorted(path.parent.name for path in folder.glob("*/matrices.xfm"))
    if surface.transform not in transforms:
        raise ValueError(
            f"Subject {surface.subject} has no transform {surface.transform!r}; choose from "
            f"{', '.join(transforms) or 'none'}. For values per vertex use vertex_surface({surface.subject!r})."
        )
    drawn = (path.name[5:-7] for path in file.parent.glob("mask_*.nii.gz"))
    known = sorted({*drawn, *PYCORTEX_MASKS})
    if surface.mask not in known:
        raise ValueError(
            f"{surface.subject}/{surface.transform} has no mask {surface.mask!r}; choose from {', '.join(known)}."
        )
    made = linked_folder(store) / inside / file.name
    return made if made.is_file() else None


def _made_by_pycortex(surface: Surface) -> Path:
    """The file of a mask that pycortex makes and keeps; seconds for "thick" and "thin", minutes for "cortical"."""
    with pycortex_of(surface) as cortex:
        cortex.db.get_mask(surface.subject, surface.transform, surface.mask)
        folder = Path(cortex.db.filestore, surface.subject, "transforms", surface.transform)
        return folder / f"mask_{surface.mask}.nii.gz"


def _mask_of_file(surface: Surface, file: Path) -> Array:
    reference = _reference_file(surface)
    stamps = [path.stat().st_mtime_ns if path is not None else 0 for path in (file, reference)]
    return _read_mask(file, reference, *stamps)


@lru_cache(maxsize=8)
def _read_mask(file: Path, reference: Path | None, *changed: int) -> Array:
    volume = read_volume(file)
    if reference is not None:
        _check_mask(volume, read_volume(reference, first=True))
    values = volume.values()
    if not np.isfinite(values).all():
        raise ValueError(f"{file}: expected a mask of 0 and 1, got values that are not finite.")
    return _read_only(np.ascontiguousarray(values.T != 0))


def _check_mask(volume: Volume, reference: Volume) -> None:
    """pycortex draws the array of a mask as it is: it must be stored as the reference image is."""
    remedy = "save the mask again from an array in the order of axes of the reference, with its affine."
    known = volume.affine is not None and reference.affine is not None
    if volume.shape != reference.shape:
        raise ValueError(
            f"{volume.path}: expected the voxels of {reference.path.name} ({reference}), got {volume}; {remedy}"
        )
    if not known:
        return
    try:
        axes = axes_onto(volume, reference, "")
    except ValueError as error:
        _progress.warn(f"{error} pycortex uses only the array of the mask, and so does this map.")
        return
    if not same_axes(axes):
        raise ValueError(
            f"{volume.path}: is stored in another order of axes than {reference.path.name}, and pycortex uses only its "
            f"array, so maps would be turned or mirrored; {remedy}"
        )


def _reference_file(surface: Surface) -> Path | None:
    file = _store_of(surface) / surface.subject / "transforms" / surface.transform / "reference.nii.gz"
    return file if file.is_file() else None


def surface_grid(surface: Surface) -> Volume:
    """The image whose voxels the mask of a surface has: the transform's reference, else the file of the mask.

    Raises
    ------
    ValueError
        As `surface_mask`, or there is no such image.
    """
    mask = surface_mask(surface)
    file = _reference_file(surface) or (None if surface == SHIPPED else _mask_file(surface))
    if file is None:
        raise ValueError(
            f"{surface.subject}/{surface.transform} has no file reference.nii.gz, so the affine of its voxels is not "
            f"known; copy that file into the folder of the transform."
        )
    grid = read_volume(file, first=True)
    if grid.shape != mask.shape[::-1]:
        raise ValueError(
            f"{file}: expected the {' x '.join(map(str, mask.shape[::-1]))} voxels of the mask, got {grid}; check that "
            f"this is the right store."
        )
    return grid


def voxel_order(surface: Surface, *, mask: str | Path | None = None) -> Array:
    """The numbers that bring columns of BOLD from nilearn's order of voxels into that of a surface.

    With `order = voxel_order(surface, mask="mask.nii.gz")`, `bold[:, order]` has its columns in the order that
    `surface_mask` describes, if `bold` is (n_rows, n_voxels) from `NiftiMasker(mask_img="mask.nii.gz")`, from
    `nilearn.masking.apply_mask`, or from `image.get_fdata()[mask].T`.

    Parameters
    ----------
    surface : Surface
    mask : file, optional
        The NIfTI mask with which BOLD was read, in its own orientation; not 0 inside. None means the mask of the
        surface, stored as the transform's reference image is.

    Returns
    -------
    array of int, (n_voxels,)

    Raises
    ------
    ValueError
        The mask has other voxels than the surface (their numbers are given), is on another grid, has no affine,
        or cannot be read; or a surface of vertices.
    """
    expected = surface_mask(surface)
    if mask is None:
        inside, axes = expected.T, None
    else:
        volume = read_volume(Path(mask).expanduser())
        axes = axes_onto(
            volume,
            surface_grid(surface),
            "resample BOLD (not only the mask) to that image before masking: nilearn.image.resample_to_img.",
        )
        values = volume.values()
        if not np.isfinite(values).all():
            raise ValueError(
                f"{volume.path.name}: expected a mask of 0 and 1, got values that are not finite."
            )
        inside = values != 0
    numbers = np.full(inside.shape, -1)
    numbers[inside] = np.arange(np.count_nonzero(inside))  # nilearn's order: the first axis changes slowest
    if axes is not None:
        numbers = turned(numbers, axes)
    placed = numbers.T
    missing, extra = int((expected & (placed < 0)).sum()), int((~expected & (placed >= 0)).sum())
    if missing or extra:
        raise ValueError(
            f"{Path(str(mask)).name}: expected the {int(expected.sum())} voxels of mask {surface.mask!r} of "
            f"{surface.subject}/{surface.transform}; {missing} of them are missing, and there are {extra} others. Read "
            f"BOLD with that mask, or save yours as mask_<name>.nii.gz in the folder of the transform and use "
            f"Surface({surface.subject!r}, {surface.transform!r}, <name>)."
        )
    return placed[expected]


@contextlib.contextmanager
def pycortex_of(surface: Surface) -> Iterator[Any]:
    """pycortex with a store that contains the subject; for one thread at a time, and without pycortex's prints.

    Its flat mapper solves one tiny system per triangle, for which several BLAS threads only wait for each
    other: with one thread, a mapper takes 6 s where it took 60 s next to another busy process.
    """
    with pycortex_lock:
        open_store(surface.subject, store=surface.store)
        with quiet(), blas_limited(1), blas_by_thread().limit(limits=1):
            yield import_cortex()


def flat_mapper(surface: Surface, *, height: int = 512) -> FlatMapper:
    """The mapper of a surface for a picture of this height, in pixels.

    Immediately available for the demo's surface at 512 and 1024 pixels. Any other is made by pycortex, which takes
    5 to 20 s, and then kept in the user's cache folder.

    Raises
    ------
    ValueError
        Unknown subject, transform or mask, or a height that is not a whole number of 16 or more.
    """
    check_surface(surface)
    height = check_whole(height, "height (pixels)", least=16)
    with pycortex_lock:
        return _mapper(surface, height)


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
    stats = [f"{path.name} {path.stat().st_size} {path.stat().st_mtime_ns} " for path in files]
    return digest([*stats, f"{mask.shape} {_CACHE_VERSION} ", np.packbits(mask)])[:16]


def mapper_of_pycortex(surface: Surface, mask: Array, height: int) -> FlatMapper:
    """The mapper from pycortex's flat mask, flat mapper and curvature; slow if pycortex has not cached these.

    `mask` is that of the surface, (z, y, x); it is not used for a surface of vertices.
    """
    with pycortex_of(surface) as cortex:
        flat = cortex.quickflat.utils
        columns_first, extent = flat.get_flatmask(surface.subject, height=height)
        vertices = flat.get_flatcache(surface.subject, None, height=height).tocsr()
        curvature = vertices @ cortex.db.get_surfinfo(surface.subject).data
        weights = vertices
        if surface.mask != VERTICES:
            weights = flat.get_flatcache(surface.subject, surface.transform, height=height).tocsr()
            if mask.size != weights.shape[1]:
                raise ValueError(
                    f"The volume of mask {surface.mask!r} of {surface.subject} has {mask.size} voxels, but that of "
                    f"transform {surface.transform!r} has {weights.shape[1]}; check that this is the right store."
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
    return _drawing(surface)[0]


def outline_fault(surface: Surface) -> str:
    """Why the subject has no outlines, in a few words; "" if its drawing could be read."""
    return _drawing(surface)[1]


def _drawing(surface: Surface) -> tuple[tuple[Outline, ...], str]:
    check_surface(surface)
    if surface == SHIPPED:
        return _shipped_outlines(), ""
    file = _store_of(surface) / surface.subject / "overlays.svg"
    return _kept_drawing(file, file.stat().st_mtime_ns if file.is_file() else 0)


@lru_cache(maxsize=8)
def _kept_drawing(file: Path, changed: int) -> tuple[tuple[Outline, ...], str]:
    return read_drawing(file)


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

    A voxel belongs to an area if more than half of what the flatmap shows of it lies inside the drawing; a
    vertex if it lies inside.

    Returns
    -------
    dict of name to bool array, (n_voxels,)
        Areas that have a name but no shape in the drawing are left out.
    """
    return dict(_drawn_masks(surface, height, surface_outlines(surface)))


@lru_cache(maxsize=4)
def _drawn_masks(surface: Surface, height: int, outlines: tuple[Outline, ...]) -> dict[str, Array]:
    of_vertices = surface.mask == VERTICES
    mapper = flat_mapper(surface, height=height)
    points = _vertex_places(surface, mapper) if of_vertices else mapper.map_points
    masks: dict[str, Array] = {}
    for line in outlines:
        if line.layer == "rois":
            masks[line.name] = line.contains(points) | masks.get(line.name, False)
    if not of_vertices:
        drawn = np.asarray(mapper.weights.sum(0)).ravel()  # how much of each voxel the flatmap shows
        masks = {name: mapper.weights.T @ mask.astype(float) > drawn / 2 for name, mask in masks.items()}
    return {name: _read_only(mask) for name, mask in masks.items()}


def _vertex_places(surface: Surface, mapper: FlatMapper) -> Array:
    """(n_vertices, 2): map coordinates of the vertices; NaN for those that are not on the flat surface."""
    with pycortex_of(surface) as cortex:
        points, faces = cortex.db.get_surf(surface.subject, "flat", merge=True, nudge=True)
    left, right, bottom, top = mapper.extent
    places = (points[:, :2] - [left, bottom]) / [right - left, top - bottom]
    places[np.setdiff1d(np.arange(len(points)), faces)] = np.nan
    return places
