"""Regions of interest: masks from the subject's drawing, an atlas file or arrays, and scores by region."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import check_result, mask_of
from ..assembly import Array, Surface
from ..scoring import region_metrics
from .surfaces import VERTICES, roi_masks, surface_mask, voxel_count

if TYPE_CHECKING:
    from pandas import DataFrame

# masks by name, names of areas, or an atlas file
Regions = Mapping[str, Array] | Sequence[str] | str | Path

_ATLAS_ENDINGS = (".nii", ".nii.gz", ".npz", ".json")
_KEYS = {"mean": "mean_score", "median": "median_score", "count": "n_voxels"}


def roi_table(
    result: Any,
    rois: Regions | None = None,
    *,
    values: Array | None = None,
    names: Mapping[int, str] | None = None,
) -> DataFrame:
    """Scores by region, best median first.

    Parameters
    ----------
    result : Result
        Its scores, its significant voxels, its surface and its masks.
    rois : mapping of name to mask, names, or path of an atlas, optional
        Boolean masks, (n_voxels,) each; names of some of the result's or the drawn areas; or an atlas
        file as in `read_masks`. None takes the masks of the data set, else the drawn areas.
    values : array, (n_voxels,), optional
        What to summarise instead of the scores, such as those of one story or a share of variance.
    names : mapping of label to name, optional
        For an atlas of numbered labels.

    Returns
    -------
    DataFrame, index "region"; columns "mean", "median" (of the voxels with a finite value, NaN if there is
    none), "count" (all voxels) and "significant" (how many of them are). Regions may overlap.

    Raises
    ------
    ValueError
        An unknown name (the known are listed), a mask or `values` of the wrong length, or no regions available.
    """
    from pandas import DataFrame

    check_result(result, "roi_table")
    scores = np.asarray(result.scores if values is None else values)
    if scores.shape != np.shape(result.scores):
        raise ValueError(
            f"roi_table: expected {len(result.scores)} values, one per voxel of the result, got shape {scores.shape}."
        )
    masks = region_masks(result, rois, names=names)
    metrics = region_metrics(scores, result.significant, masks)
    columns = {column: [metrics[f"{name}/{key}"] for name in masks] for column, key in _KEYS.items()}
    # also those without a finite value: `values` may lack some
    columns["significant"] = [
        int((mask & np.asarray(result.significant, bool)).sum()) for mask in masks.values()
    ]
    table = DataFrame(columns, index=list(masks))
    table.index.name = "region"
    return table.sort_values("median", ascending=False, kind="stable")


def roi_metrics(result: Any, rois: Regions | None = None) -> dict[str, float]:
    """`roi_table` as flat numbers, as in the metrics of a run: {"AC/median_score": ..., "AC/n_significant": ...}.

    `Result.metrics` has those of the masks of the data set; if it has no masks, `records.save_run` writes those of
    the drawn areas.

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


def region_masks(
    result: Any, rois: Regions | None = None, *, names: Mapping[int, str] | None = None
) -> dict[str, Array]:
    """The masks that `rois` means for a result, bool, (n_voxels,) each; see `roi_table`."""
    if rois is None and result.rois:
        rois = result.rois
    if isinstance(rois, Mapping):
        return _checked_masks(rois, len(result.scores))
    if isinstance(rois, Path) or (isinstance(rois, str) and rois.endswith(_ATLAS_ENDINGS)):
        if result.surface is None:
            raise ValueError(
                f"{rois}: an atlas needs the surface of the data to find its voxels, and these data have none; pass "
                f"boolean masks instead."
            )
        return read_masks(rois, result.surface, names=names)
    drawn = roi_masks(result.surface) if result.surface is not None else {}
    known = {**drawn, **result.rois}
    if not known:
        raise ValueError(
            "These data have no regions, and no surface with drawn areas; pass `rois`, a mapping of name to boolean "
            "mask."
        )
    chosen = list(known) if rois is None else [rois] if isinstance(rois, str) else list(rois)
    for name in chosen:
        if name not in known:
            raise ValueError(f"There is no region {name!r}; known are {', '.join(known)}.")
    return {name: known[name] for name in chosen}


def _checked_masks(masks: Mapping[str, Array], n_voxels: int) -> dict[str, Array]:
    return {str(name): mask_of(mask, name, n_voxels) for name, mask in masks.items()}


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
        Includes the regions of the file that have no voxel in the mask.

    Raises
    ------
    ValueError
        A file of another kind, on another grid, with labels that are not whole numbers, or with masks of the
        wrong length. OSError if it cannot be read.
    """
    path = Path(path)
    n_voxels = voxel_count(surface)
    if path.name.endswith((".nii", ".nii.gz")):
        return _label_volume(path, surface, names or {})
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            masks = {name: _over_voxels(file[name], surface) for name in file.files}
    elif path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(
                f"{path.name}: expected an object of region names, got a {type(content).__name__}."
            )
        masks = {name: _listed(name, entry, n_voxels, path) for name, entry in content.items()}
    else:
        raise ValueError(
            f"{path.name}: expected an atlas as {', '.join(_ATLAS_ENDINGS)}; convert it, or pass boolean masks."
        )
    return _checked_masks(masks, n_voxels)


def _over_voxels(mask: Array, surface: Surface) -> Array:
    """A mask as it is, or a mask volume on the surface's grid cut down to the surface's voxels."""
    if surface.mask != VERTICES and mask.shape == surface_mask(surface).shape:
        return mask[surface_mask(surface)]
    return mask


def _listed(name: str, entry: Any, n_voxels: int, path: Path) -> Array:
    """A mask from flags, or from the numbers of its voxels."""
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
    image: Any = nibabel.load(path)
    volume = np.asarray(image.dataobj).squeeze()
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
