"""Regions of interest: masks from the drawing, from an atlas file or one's own, and scores summed up by region."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .._validation import require_result
from ..assembly import Surface
from ..scoring import checked_flags, region_metrics
from .surfaces import VERTICES, pycortex_of, roi_masks, surface_mask, voxel_count

if TYPE_CHECKING:
    from pandas import DataFrame


Array = np.ndarray
# masks by name, names of areas, or an atlas file
Regions = Mapping[str, Array] | Sequence[str] | str | Path

_ATLAS_ENDINGS = (".nii", ".nii.gz", ".npz", ".json")


class Scored(Protocol):
    """What `roi_table` reads of a `pipeline.Result`."""

    @property
    def scores(self) -> Array:
        """(n_voxels,)."""
        ...

    @property
    def significant(self) -> Array:
        """(n_voxels,) bool."""
        ...

    @property
    def surface(self) -> Surface | None:
        """Where the voxels lie."""
        ...

    @property
    def rois(self) -> Mapping[str, Array]:
        """The data's own masks."""
        ...


def roi_table(
    result: Scored,
    rois: Regions | None = None,
    *,
    values: Array | None = None,
    names: Mapping[int, str] | None = None,
) -> DataFrame:
    """Scores by region, best median first.

    Parameters
    ----------
    result : Result
        Its scores, its significant voxels, its surface and its own masks.
    rois : mapping of name to mask, names, or path of an atlas, optional
        Own boolean masks, (n_voxels,) each; the names of some of the result's or the drawn areas; or an atlas
        file as `read_masks` takes it. None takes the masks that came with the data, else the drawn areas.
    values : array, (n_voxels,), optional
        What to sum up instead of the scores, such as those of one story or a share of variance.
    names : mapping of label to name, optional
        For an atlas of numbered labels.

    Returns
    -------
    DataFrame, index "region"; columns "mean", "median" (of the voxels with a finite value, NaN where there is
    none), "count" (all voxels) and "significant" (how many of them are). Regions may overlap.

    Raises
    ------
    ValueError
        An unknown name (the known are listed), a mask or `values` of the wrong length, or no region to be had.
    """
    require_result(result, "roi_table")
    scores = np.asarray(result.scores if values is None else values)
    if scores.shape != np.shape(result.scores):
        raise ValueError(
            f"roi_table: expected {len(result.scores)} values, one per voxel of the result, got shape {scores.shape}."
        )
    masks = region_masks(result, rois, names=names)
    return summarise_regions(scores, masks, significant=result.significant)


def roi_metrics(result: Scored, rois: Regions | None = None) -> dict[str, float]:
    """`roi_table` as flat numbers, as a run's metrics hold them: {"AC/median_score": ..., "AC/n_significant": ...}.

    A run has those of the masks that came with its data in `Result.metrics`; `records.save_run` writes those of
    the drawn areas where the data have no masks.

    Parameters
    ----------
    result, rois
        As in `roi_table`.

    Raises
    ------
    ValueError
        As `roi_table`.
    """
    return region_metrics(result.scores, result.significant, region_masks(result, rois))


def summarise_regions(
    scores: Array, masks: Mapping[str, Array], *, significant: Array | None = None
) -> DataFrame:
    """The table of `roi_table` from arrays: `scores` and `significant` (n_voxels,), masks by name."""
    from pandas import DataFrame

    columns: dict[str, list[float]] = {"mean": [], "median": [], "count": []}
    if significant is not None:
        columns["significant"], significant = [], checked_flags(significant)
    for mask in check_masks(masks, len(scores)).values():
        inside = scores[mask]
        inside = inside[np.isfinite(inside)]
        columns["mean"].append(float(inside.mean()) if len(inside) else np.nan)
        columns["median"].append(float(np.median(inside)) if len(inside) else np.nan)
        columns["count"].append(int(mask.sum()))
        if significant is not None:
            columns["significant"].append(int(significant[mask].sum()))
    table = DataFrame(columns, index=list(masks))
    table.index.name = "region"
    return table.sort_values("median", ascending=False, kind="stable")


def region_masks(
    result: Scored, rois: Regions | None = None, *, names: Mapping[int, str] | None = None
) -> dict[str, Array]:
    """The masks that `rois` means for a result, bool, (n_voxels,) each; see `roi_table`."""
    n_voxels = len(result.scores)
    if isinstance(rois, Mapping):
        return check_masks(rois, n_voxels)
    if isinstance(rois, Path) or (isinstance(rois, str) and rois.endswith(_ATLAS_ENDINGS)):
        if result.surface is None:
            raise ValueError(
                f"{rois}: an atlas needs the surface of the data to find its voxels, and these data name none; pass "
                f"boolean masks instead."
            )
        return read_masks(rois, result.surface, names=names)
    if rois is None and result.rois:
        return check_masks(result.rois, n_voxels)
    drawn = roi_masks(result.surface) if result.surface is not None else {}
    known = {**drawn, **result.rois}
    if not known:
        raise ValueError(
            "These data come with no regions and name no surface that any are drawn on; pass `rois`, a mapping of "
            "name to boolean mask."
        )
    chosen = list(known) if rois is None else [rois] if isinstance(rois, str) else list(rois)
    for name in chosen:
        if name not in known:
            raise ValueError(f"No region {name!r} here; known are {', '.join(known)}.")
    return {name: known[name] for name in chosen}


def check_masks(masks: Mapping[str, Array], n_voxels: int) -> dict[str, Array]:
    """The masks as boolean arrays, refused where one is not (n_voxels,) of True and False."""
    checked = {}
    for name, mask in masks.items():
        array = np.asarray(mask)
        if array.shape != (n_voxels,) or not (array.dtype == bool or np.isin(array, (0, 1)).all()):
            raise ValueError(
                f"Region {name!r}: expected {n_voxels} flags, one True or False per voxel, got {array.dtype} of shape "
                f"{array.shape}; number the voxels as the scores are."
            )
        checked[str(name)] = array.astype(bool)
    return checked


def read_masks(
    path: str | Path, surface: Surface, *, names: Mapping[int, str] | None = None
) -> dict[str, Array]:
    """Regions from an atlas file, as masks over the voxels of a surface.

    Parameters
    ----------
    path : file
        A NIfTI volume of whole-number labels (0: none) on the grid of the surface's transform; an `.npz` of
        one boolean array per region, (n_voxels,) or the transform's volume (z, y, x); or a `.json` object of
        region names, each with the numbers of its voxels (from 0) or with one true or false per voxel.
    surface : Surface
    names : mapping of label to name, optional
        For a NIfTI file; labels without a name are called "label 7".

    Returns
    -------
    dict of name to bool array, (n_voxels,)
        A region of the file without any voxel in the mask is listed, and holds none.

    Raises
    ------
    ValueError
        A file of another kind, on another grid, with labels that are no whole numbers, or with masks of the
        wrong length. OSError where it cannot be read.
    """
    path = Path(path)
    n_voxels = voxel_count(surface)
    if path.name.endswith((".nii", ".nii.gz")):
        return _label_volume(path, surface, names or {})
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            masks = {name: _over_voxels(file[name], surface) for name in file.files}
    elif path.suffix == ".json":
        masks = {name: _listed(name, entry, n_voxels, path) for name, entry in _json_object(path).items()}
    else:
        raise ValueError(
            f"{path.name}: expected an atlas as {', '.join(_ATLAS_ENDINGS)}; convert it, or pass boolean masks."
        )
    return check_masks(masks, n_voxels)


def _over_voxels(mask: Array, surface: Surface) -> Array:
    """A mask as it is, or a mask volume on the surface's grid cut down to the surface's voxels."""
    if surface.mask != VERTICES and mask.shape == surface_mask(surface).shape:
        return mask[surface_mask(surface)]
    return mask


def _json_object(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: expected an object of region names, got a {type(content).__name__}.")
    return content


def _listed(name: str, entry: Any, n_voxels: int, path: Path) -> Array:
    array = np.asarray(entry)
    if array.dtype == bool:
        return array
    mask = np.zeros(n_voxels, bool)
    if array.size == 0:
        return mask
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n_voxels:
        raise ValueError(
            f"{path.name}, region {name!r}: expected voxel numbers from 0 to {n_voxels - 1}, or one true or false for "
            f"each of {n_voxels} voxels."
        )
    mask[array] = True
    return mask


def _label_volume(path: Path, surface: Surface, names: Mapping[int, str]) -> dict[str, Array]:
    import nibabel

    mask = surface_mask(surface)
    volume = np.asarray(nibabel.load(path).dataobj).squeeze()
    if volume.shape != mask.shape[::-1]:
        raise ValueError(
            f"{path.name}: expected labels on the grid of {surface.subject}/{surface.transform}, "
            f"{mask.shape[::-1]} voxels (x, y, z), got {volume.shape}; resample the atlas to that transform first."
        )
    labels = volume.T[mask]
    if not (np.isfinite(labels).all() and (labels == np.rint(labels)).all()):
        raise ValueError(f"{path.name}: expected whole-number labels; resample with nearest neighbours.")
    found = [int(label) for label in np.unique(volume[np.isfinite(volume)]) if label != 0]
    return {names.get(label, f"label {label}"): labels == label for label in found}


def pycortex_roi_masks(surface: Surface) -> dict[str, Array]:
    """The drawn areas by pycortex's own count of vertices, for comparison with `roi_masks`.

    A voxel belongs to an area when most of the vertices in it do, and to none when it holds no vertex:
    pycortex's `get_roi_verts`, counted per voxel by its nearest mapper. Needs no Inkscape, and takes 10 to
    20 s for a real cortex.

    Returns
    -------
    dict of name to bool array, (n_voxels,)
    """
    return dict(_pycortex_masks(surface))


@lru_cache(maxsize=2)
def _pycortex_masks(surface: Surface) -> dict[str, Array]:
    from scipy.sparse import vstack

    with pycortex_of(surface) as cortex, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one per name without a shape
        inside = cortex.utils.get_roi_verts(surface.subject, mask=True)
        inside = {name: mask for name, mask in inside.items() if mask.any()}
        if surface.mask == VERTICES:
            return inside
        nearest = vstack(cortex.utils.get_mapper(surface.subject, surface.transform, "nearest").masks)
    in_mask = surface_mask(surface).ravel()
    every = nearest.T @ np.ones(nearest.shape[0])
    return {
        name: (nearest.T @ vertices.astype(float) > every / 2)[in_mask] for name, vertices in inside.items()
    }
