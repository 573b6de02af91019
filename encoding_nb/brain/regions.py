"""Regions of interest: masks from the subject's drawing, an atlas file or arrays, and scores by region."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import check_choice, check_result, mask_of, parse_json, shorten
from ..assembly import Array, Surface
from ..scoring import LEAST_CEILING, normalized_correlation, region_metrics
from .surfaces import roi_masks, surface_grid, surface_mask, voxel_count
from .volumes import axes_onto, read_volume, turned

if TYPE_CHECKING:
    from pandas import DataFrame

# masks by name, names of areas, or an atlas file
Regions = Mapping[str, Array] | Sequence[str] | str | Path

VALUES = ("score", "ceiling", "share")

_ATLAS_ENDINGS = (".nii", ".nii.gz", ".npz", ".json")
_OTHER_ENDINGS = (".gii", ".gii.gz", ".annot", ".label", ".mgh", ".mgz", ".npy", ".img", ".hdr")
_ROUNDING = 1e-3  # by which a label stored as a decimal number may differ from a whole number
_KEYS = {"mean": "mean_score", "median": "median_score", "count": "n_voxels"}


def roi_table(
    result: Any,
    rois: Regions | None = None,
    *,
    values: Array | str = "score",
    names: Mapping[int, str] | None = None,
) -> DataFrame:
    """Scores by region, best median first. The name of the columns says by what test voxels are significant.

    Parameters
    ----------
    result : Result
        Its scores, its significant voxels, its surface and its masks.
    rois : mapping of name to mask, names, or path of an atlas, optional
        Boolean masks, (n_voxels,) each; names of some of the result's or the drawn areas; or an atlas
        file as in `read_masks`. None takes the masks of the data set, else the drawn areas.
    values : "score", "ceiling", "share", or array, (n_voxels,)
        What to summarise: the scores, the noise ceilings, the scores as a share of the ceilings (see `values_of`), or
        values of your own, such as the scores in one story.
    names : mapping of label to name, optional
        For an atlas of numbered labels.

    Returns
    -------
    DataFrame, index "region"; columns "mean", "median" (of the voxels with a finite value, NaN if there is
    none), "count" (all voxels) and "significant" (how many of them are; absent if they are not tested). For noise
    ceilings and shares also "above_chance": how many voxels have a noise ceiling above chance. Regions may overlap.
    `columns.name` is `result.test_name`, or "not tested".

    Raises
    ------
    ValueError
        An unknown name (the known are listed), a mask or `values` of the wrong length, no regions available, or no
        noise ceilings.
    """
    from pandas import DataFrame

    check_result(result, "roi_table")
    scores = values_of(result, values) if isinstance(values, str) else np.asarray(values)
    if scores.shape != np.shape(result.scores):
        raise ValueError(
            f"roi_table: expected {len(result.scores)} values, one per voxel of the result, got shape {scores.shape}."
        )
    masks = region_masks(result, rois, names=names)
    metrics = region_metrics(scores, result.significant, masks)
    columns: dict[str, list[Any]] = {
        column: [metrics[f"{name}/{key}"] for name in masks] for column, key in _KEYS.items()
    }
    # also those without a finite value: `values` may lack some
    if result.significant is not None:
        columns["significant"] = _counts(masks, np.asarray(result.significant, bool))
    if isinstance(values, str) and values != "score":
        columns["above_chance"] = _counts(masks, result.noise_ceiling >= chance_ceiling(result))
    table = DataFrame(columns, index=list(masks))
    table.index.name, table.columns.name = "region", result.test_name.split(":")[0]
    return table.sort_values("median", ascending=False, kind="stable")


def _counts(masks: Mapping[str, Array], flags: Array) -> list[int]:
    return [int((mask & flags).sum()) for mask in masks.values()]


def values_of(result: Any, which: str, story: str | None = None) -> Array:
    """(n_voxels,) the scores of a result, its noise ceilings, or the scores as a share of these.

    Parameters
    ----------
    result : Result
    which : "score", "ceiling" or "share"
        A share is r / ceiling, and NaN where the ceiling is not above chance (`chance_ceiling`). Ceilings are
        estimates, so that single voxels can exceed them.
    story : str, optional
        One of the held-out stories.

    Raises
    ------
    ValueError
        Another `which`, or no noise ceiling.
    """
    check_choice(which, "values", VALUES)
    scores = result.scores if story is None else result.story_scores[story]
    if which == "score":
        return np.asarray(scores)
    ceiling = result.noise_ceiling if story is None else result.story_noise_ceiling.get(story)
    if ceiling is None:
        raise ValueError(
            f"{result.subject}: no noise ceiling, because {'no held-out story' if story is None else story} has "
            f"{'repeats' if story is None else 'no repeats'}; choose values='score'."
        )
    if which == "ceiling":
        return np.asarray(ceiling)
    return normalized_correlation(scores, ceiling, floor=chance_ceiling(result, story))


def chance_ceiling(result: Any, story: str | None = None) -> float:
    """The least noise ceiling that is above chance: `Result.chance_ceiling`, or that of one story."""
    if story is None:
        return result.chance_ceiling
    return max(LEAST_CEILING, float(result.story_chance_ceiling.get(story, 0.0)))


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
    if isinstance(rois, Path) or (isinstance(rois, str) and rois.endswith(_ATLAS_ENDINGS + _OTHER_ENDINGS)):
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
        A NIfTI volume of whole-number labels (0: none) with the voxels of the transform's reference image, in any
        orientation, which the affines tell; an `.npz` of one boolean array per region, (n_voxels,) or a volume
        (z, y, x) stored as the reference is; or a `.json` object of region names, each with the numbers of its
        voxels (from 0) or with one true or false per voxel. Voxels are in the order of `surface_mask`;
        `voxel_order` converts from nilearn's.
    surface : Surface
    names : mapping of label to name, optional
        For a NIfTI file; labels without a name are called "label 7", and labels of the same name make one region.

    Returns
    -------
    dict of name to bool array, (n_voxels,)
        Includes the regions of the file that have no voxel in the mask.

    Raises
    ------
    ValueError
        A file of another kind; a volume with other voxels, more than one volume, or no affine; labels that are not
        whole numbers; masks of the wrong length; `names` that fit none of the labels. OSError if it cannot be read.

    Warns
    -----
    UserWarning
        The reference image has no affine: then the volume's array is taken as it is.
    """
    path = Path(path).expanduser()
    if path.name.endswith((".nii", ".nii.gz")):
        return _label_volume(path, surface, _label_names(names or {}))
    if names:
        raise ValueError(
            f"{path.name}: names are for a NIfTI volume of labels; the regions of this file have names."
        )
    n_voxels = voxel_count(surface)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            masks = {name: _over_voxels(file[name], name, surface, path) for name in file.files}
    elif path.suffix == ".json":
        try:
            content = parse_json(path.read_text(encoding="utf-8"), object_pairs_hook=partial(_once, path))
        except ValueError as error:
            problem = (
                str(error) if path.name in str(error) else f"{path.name}: cannot be read as JSON ({error})."
            )
            raise ValueError(problem) from None
        if not isinstance(content, dict):
            raise ValueError(
                f"{path.name}: expected an object of region names, got a {type(content).__name__}."
            )
        masks = {name: _listed(name, entry, n_voxels, path) for name, entry in content.items()}
    else:
        raise ValueError(
            f"{path.name}: expected an atlas as {', '.join(_ATLAS_ENDINGS)}; convert it, or pass boolean masks. GIFTI "
            f"files have values per vertex: pass these as boolean masks over the vertices of a vertex_surface."
        )
    return _checked_masks(masks, n_voxels)


def _once(path: Path, entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """The entries of a JSON object, whose names must differ."""
    found = dict(entries)
    if len(found) < len(entries):
        counts = Counter(name for name, _ in entries)
        raise ValueError(
            f"{path.name}: the region {max(counts, key=counts.__getitem__)!r} is there twice; rename one."
        )
    return found


def _over_voxels(mask: Array, name: str, surface: Surface, path: Path) -> Array:
    """A mask as it is, or a mask volume on the surface's grid cut down to the surface's voxels."""
    if mask.ndim != 3:
        return mask
    expected = surface_mask(surface)
    if mask.shape != expected.shape:
        raise ValueError(
            f"{path.name}, region {name!r}: expected a volume (z, y, x) of shape {expected.shape}, got {mask.shape}; "
            f"transpose a volume (x, y, z) that is stored as the reference image is."
        )
    return mask[expected]


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
    if len(np.unique(array)) < len(array):  # 0 and 1 for each voxel would be taken for voxels 0 and 1
        raise ValueError(
            f"{path.name}, region {name!r}: expected the number of each voxel once, got some again; for one flag per "
            f"voxel, write true and false instead of 1 and 0."
        )
    mask[array] = True
    return mask


def _label_names(names: Mapping[Any, str]) -> dict[int, str]:
    """Names by whole number; a JSON file has its numbers as text."""
    try:
        numbers = {label: float(label) for label in names}
        if all(number.is_integer() for number in numbers.values()):
            return {int(number): str(names[label]) for label, number in numbers.items()}
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"names: expected a name for each whole-number label, such as {{1: 'V1'}}, got {shorten(str(names))}."
    )


def _label_volume(path: Path, surface: Surface, names: Mapping[int, str]) -> dict[str, Array]:
    mask = surface_mask(surface)
    volume, grid = read_volume(path), surface_grid(surface)
    axes = axes_onto(
        volume,
        grid,
        f"resample it: nilearn.image.resample_to_img({path.name!r}, {str(grid.path)!r}, interpolation='nearest').",
    )
    labels = turned(_whole_numbers(volume.values(), path), axes).T
    in_cortex = labels[mask]
    finite = np.isfinite(in_cortex)
    if not finite.all():
        raise ValueError(
            f"{path.name}: expected a label for every voxel of the mask, got NaN or infinity in {int((~finite).sum())} "
            f"of {finite.size}; write 0 where there is no region."
        )
    found = [int(label) for label in np.unique(labels[np.isfinite(labels)]) if label != 0]
    if names and not names.keys() & set(found):
        raise ValueError(
            f"{path.name}: expected labels {shorten(', '.join(map(str, names)))}, which names gives, got "
            f"{shorten(', '.join(map(str, found))) or 'none'}; check that the names are of this atlas."
        )
    masks: dict[str, Array] = {}
    for label in found:
        name = names.get(label, f"label {label}")
        masks[name] = (in_cortex == label) | masks.get(name, False)
    return masks


def _whole_numbers(values: Array, path: Path) -> Array:
    """Labels as they are if they are integers; else rounded, if they are close to whole numbers."""
    if values.dtype.kind in "biu":
        return values
    if values.dtype.kind != "f":
        raise ValueError(f"{path.name}: expected whole-number labels, got values of type {values.dtype}.")
    whole, finite = np.rint(values), np.isfinite(values)
    wrong = values[finite][np.abs(values[finite] - whole[finite]) > _ROUNDING]
    if wrong.size:
        raise ValueError(
            f"{path.name}: expected whole-number labels, got some such as {wrong[0]:.6g}; resample with nearest "
            f"neighbours."
        )
    largest, exact = float(np.abs(whole[finite]).max(initial=0)), 2 / float(np.finfo(values.dtype).eps)
    if largest > exact:
        raise ValueError(
            f"{path.name}: labels up to {largest:.0f} are stored as {values.dtype}, which is exact only up to "
            f"{exact:.0f}, so some regions may have become one; save its source with integer labels."
        )
    return whole
