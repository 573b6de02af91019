"""NIfTI volumes, compared by their affines with the voxels of another, and turned into its order of axes.

Files of the same shape may list their voxels from the left or from the right, and with any axis first: FSL writes
LAS, fMRIPrep RAS, FreeSurfer LIA. Only the affine tells which voxel of one file is which of the other.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from .._validation import error_text
from ..assembly import Array

MOST_OFF = 0.1  # voxels by which two files may differ and still have the same voxels: affines are rounded


@dataclass(frozen=True, eq=False)
class Volume:
    """A NIfTI file of one volume. Its values are not read yet.

    Attributes
    ----------
    path : Path
    shape : tuple of int
        Voxels along x, y and z, as stored.
    affine : array, (4, 4), or None
        From voxel numbers to millimetres; None if the file has none.
    """

    path: Path
    shape: tuple[int, ...]
    affine: Array | None
    _image: Any

    def __str__(self) -> str:
        sizes = "" if self.affine is None else f" of {_joined(_voxel_sizes(self.affine))} mm"
        return f"{_joined(self.shape)} voxels{sizes}"

    def values(self) -> Array:
        """The values, (x, y, z), as stored.

        Raises
        ------
        ValueError
            The file is damaged.
        """
        try:
            return np.asarray(self._image.dataobj).reshape(self.shape)
        except (OSError, ValueError, EOFError, zlib.error) as error:
            raise ValueError(_unreadable(self.path, error)) from error


def read_volume(path: Path, *, first: bool = False) -> Volume:
    """A NIfTI file of one volume; only its header is read.

    Parameters
    ----------
    path : file
    first : bool
        Accept several volumes, such as a whole run, for the voxels of the first.

    Raises
    ------
    ValueError
        Another kind of file, a damaged one, more than one volume, or an affine that is singular or not finite.
        FileNotFoundError if there is no such file.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    try:
        image: Any = nibabel.load(path)
    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile, HeaderDataError) as error:
        raise ValueError(_unreadable(path, error)) from error
    except nibabel.filebasedimages.ImageFileError as error:
        raise ValueError(_unreadable(path, error)) from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise ValueError(
            f"{path.name}: expected a NIfTI volume, got a {type(image).__name__.removesuffix('Image')} file; convert "
            f"it to a NIfTI volume (.nii.gz) in the space of the BOLD."
        )
    several = any(length != 1 for length in image.shape[3:]) and not first
    if len(image.shape) < 3 or several:
        raise ValueError(
            f"{path.name}: expected one volume (x, y, z), got {_joined(image.shape)}; save each volume as its own file."
        )
    header = image.header
    affine = None
    if header["sform_code"] or header["qform_code"]:
        affine = np.asarray(image.affine, float)
        # compared with the voxel sizes, so that the unit of the affine does not matter
        if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) <= 1e-6 * np.prod(
            _voxel_sizes(affine)
        ):
            raise ValueError(
                f"{path.name}: its affine is singular or not finite, so nothing tells where its voxels are; copy the "
                f"affine of the image from which it was made."
            )
    return Volume(path, tuple(image.shape[:3]), affine, image)


def axes_onto(volume: Volume, grid: Volume, advice: str) -> Array:
    """How `turned` brings the array of a volume into the order of axes of another with the same voxels.

    Parameters
    ----------
    volume, grid : Volume
    advice : str
        What to do with a volume that has other voxels.

    Returns
    -------
    array, (3, 2)
        The axis of `grid`, and 1 or -1 for its direction, for each axis of `volume` (as in nibabel.orientations).

    Raises
    ------
    ValueError
        Other voxels: another size, place, angle or field of view; or a volume without an affine.

    Warns
    -----
    UserWarning
        `grid` has no affine: then the array is taken as it is.
    """
    from nibabel import orientations

    expected = f"{volume.path.name}: expected the voxels of {grid.path} ({grid})"
    if grid.affine is None:
        if volume.shape != grid.shape:
            raise ValueError(f"{expected}, got {volume}; {advice}")
        _progress.warn(
            f"{grid.path} has no affine (its qform and sform codes are 0), so it is not known which side is left: the "
            f"voxels of {volume.path.name} are taken in the order in which they are stored.",
            stacklevel=3,
        )
        return orientations.axcodes2ornt("RAS")
    if volume.affine is None:
        raise ValueError(
            f"{volume.path.name}: has no affine (its qform and sform codes are 0), so it is not known which side is "
            f"left; if its array is in the order of {grid.path}, save it with that file's affine."
        )
    onto = np.linalg.solve(grid.affine, volume.affine)
    axes = orientations.io_orientation(onto)
    off = np.inf
    if np.isfinite(axes).all():
        back = orientations.inv_ornt_aff(axes, volume.shape)
        corners = np.array([*itertools.product(*[(0, length - 1) for length in grid.shape])])
        moved = (onto @ back)[:3] @ np.column_stack([corners, np.ones(8)]).T
        off = float(np.abs(moved - corners.T).max())  # voxels; nothing between the corners is further off
    if off > MOST_OFF or _turned_shape(volume.shape, axes) != grid.shape:
        how_far = "in other places" if off > MOST_OFF else "not as many of them"
        if MOST_OFF < off < 1:
            how_far = f"up to {off:.2g} voxels away"
        raise ValueError(f"{expected}, got {volume}, {how_far}; {advice}")
    return axes


def turned(values: Array, axes: Array) -> Array:
    """An array (x, y, z) with its axes as `axes_onto` found them."""
    from nibabel import orientations

    return orientations.apply_orientation(values, axes)


def same_axes(axes: Array) -> bool:
    """Whether `turned` leaves an array as it is."""
    return bool((axes == [[0, 1], [1, 1], [2, 1]]).all())


def _turned_shape(shape: tuple[int, ...], axes: Array) -> tuple[int, ...]:
    return tuple(shape[axis] for axis in np.argsort(axes[:, 0]))


def _voxel_sizes(affine: Array) -> Array:
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def _joined(numbers: Any) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _unreadable(path: Path, error: Exception) -> str:
    return f"{path.name}: cannot be read as a NIfTI volume ({error_text(error)}); save or download it again."
