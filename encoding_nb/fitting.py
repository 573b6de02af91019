"""One ridge fit, tile by tile: the order of its steps, on inputs that `ridge` has checked."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from . import side_by_side
from .held_out import choose, fold_groups, fold_scores, load_tile, shared_operators
from .problem import Array, Fit, Meter, Voxels, is_flat
from .refit import Refit
from .ridge_inputs import scan_steps
from .solvers import Operators

log = logging.getLogger(__name__)
# Weights that were asked for without a file may take this share of the free memory.
SHARE_IN_MEMORY = 0.5


@dataclass(frozen=True)
class RidgeResult:
    """What a ridge fit found. Entries by voxel are in the order of Y's columns.

    Attributes:
        alphas: (n_alphas,) the grid.
        best_alphas: (n_voxels,) chosen alpha; NaN for a voxel that has no fit.
        cv_scores: (n_voxels,) mean held-out score of the chosen alpha over the folds.
        all_cv_scores: (n_alphas, n_voxels) the same for every alpha, or None.
        weights: (n_columns, n_voxels) refit on all rows, or None; a memory map when written to a file.
        weights_on_disk: whether they are, because a path was given or because memory is too short for them (a
            temporary file, which goes with the array).
        predictions: (n_test_rows, n_voxels) for X_test, or None.
        correlations: (n_voxels,) of predictions with Y_test, or None.
        constant_voxels: numbers of voxels that do not vary over the rows of Y: alpha, scores and weights are
            NaN.
        skipped_voxels: numbers of voxels with NaN or infinite values, in Y or Y_test, that were left out:
            likewise NaN.
        unscored_voxels: numbers of voxels that vary over Y, but that no fold could score: they are constant in
            the test rows of every fold, or nothing that varies predicts them. Likewise NaN; with
            `single_alpha`, which others chose, only their cv_scores are.
        constant_test_voxels: numbers of voxels that do not vary over the rows of Y_test: fitted, but without
            a correlation.
        constant_columns: numbers of the columns of X that do not vary (fitted as they are).
    """

    alphas: Array
    best_alphas: Array
    cv_scores: Array
    all_cv_scores: Array | None = field(repr=False)
    weights: Array | None = field(repr=False)
    weights_on_disk: bool
    predictions: Array | None = field(repr=False)
    correlations: Array | None
    constant_voxels: Array
    skipped_voxels: Array
    unscored_voxels: Array
    constant_test_voxels: Array
    constant_columns: Array


def fit_steps(
    fit: Fit,
    *,
    keep_weights: bool,
    weights_path: str | Path | None,
    weights_memory: int | None,
    keep_predictions: bool,
    all_scores: bool,
) -> Generator[tuple[int, int], None, RidgeResult]:
    """Scan Y; build operators and score the tiles, per group of folds; refit. See `ridge.ridge_steps`.

    Weights that go to a file are written under a temporary name, so a stopped fit leaves no half file.
    """
    shape = (fit.X.shape[1], fit.Y.shape[1])
    if weights_path is None:
        weights = weights_array(shape, fit.dtype, weights_memory) if keep_weights else None
        return (yield from _fit_steps(fit, weights, keep_predictions, all_scores))
    target = Path(weights_path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        weights = np.lib.format.open_memmap(draft, mode="w+", dtype=fit.dtype, shape=shape)
        result = yield from _fit_steps(fit, weights, keep_predictions, all_scores)
        weights.flush()
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return replace(result, weights=np.load(target, mmap_mode="r"))


def shared_steps(fit: Fit) -> Generator[tuple[int, int], None, None]:
    """Fill `fit.derived` with what a fit of these features, folds and penalties finds there; Y is not looked at."""
    groups = fold_groups(fit)
    if len(groups) > 1:  # too large together, so that none would be kept
        return
    refit = Refit(fit, None, None, None)
    yield from shared_operators(fit, groups[0], refit, Meter(fit))
    if refit.by_operators:
        refit.prepare()


def _fit_steps(
    fit: Fit, weights: Array | None, keep_predictions: bool, all_scores: bool
) -> Generator[tuple[int, int], None, RidgeResult]:
    groups = fold_groups(fit)
    meter = Meter(fit)
    voxels = yield from _counted(scan_steps(fit), meter)
    refit = Refit(fit, voxels, weights, _empty_predictions(fit) if keep_predictions else None)
    # sums of scores over folds, and how many were defined
    totals = np.zeros((2, len(fit.alphas), fit.Y.shape[1]))
    # One pass over Y does both, unless the choice of alpha needs all voxels or the folds come in groups.
    one_pass = len(groups) == 1 and not fit.single_alpha
    for group in groups:
        operators = yield from shared_operators(fit, group, refit, meter)
        if one_pass and refit.needed:
            refit.prepare()
        last = refit if one_pass and refit.needed else None
        jobs = (_tile_steps(fit, tile, voxels, operators, totals, last) for tile in fit.tiles)
        for work in side_by_side.steps(jobs, fit.n_workers):
            yield meter.add(work)
        del operators
    scores = _mean(totals)
    scores[:, ~voxels.usable] = np.nan
    chosen, scored = _chosen(fit, scores), np.isfinite(scores).any(axis=0)
    fitted = voxels.usable & (scored.any() if fit.single_alpha else scored)
    if refit.needed and not one_pass:
        refit.prepare()
        jobs = (_refit_steps(fit, tile, voxels, refit, chosen, fitted) for tile in fit.tiles)
        for work in side_by_side.steps(jobs, fit.n_workers):
            yield meter.add(work)
    yield meter.total, meter.total
    best = scores[chosen, np.arange(len(chosen))]
    return RidgeResult(
        alphas=fit.alphas,
        best_alphas=np.where(fitted, fit.alphas[chosen], np.nan),
        cv_scores=best,
        all_cv_scores=scores if all_scores else None,
        weights=refit.weights,
        weights_on_disk=isinstance(refit.weights, np.memmap),
        predictions=refit.predictions,
        correlations=refit.correlations,
        constant_voxels=np.flatnonzero(voxels.constant),
        skipped_voxels=np.flatnonzero(voxels.broken),
        unscored_voxels=np.flatnonzero(voxels.usable & ~scored),
        constant_test_voxels=np.flatnonzero(voxels.constant_test),
        constant_columns=np.flatnonzero(is_flat(fit.X.min(axis=0), fit.X.max(axis=0), fit.X.dtype)),
    )


def _tile_steps(
    fit: Fit,
    tile: slice,
    voxels: Voxels,
    operators: dict[int, list[Operators]],
    totals: Array,
    refit: Refit | None,
) -> Generator[int, None, None]:
    """Add one tile's scores in the folds of `operators` to `totals`, and refit it where all are there; yields work."""
    loaded = load_tile(fit, tile, voxels)
    floor = _floor(fit, voxels.scale[tile])
    for number, of_fold in sorted(operators.items()):
        _add(fold_scores(fit, of_fold, number, loaded, floor), totals[:, :, tile])
        yield len(fit.alphas) * (tile.stop - tile.start)
    if refit is not None:
        scores = _mean(totals[:, :, tile])
        fitted = voxels.usable[tile] & np.isfinite(scores).any(axis=0)
        refit.run(tile, loaded.y, loaded.projected, choose(scores, fit.alphas, fit.dtype), fitted)
        yield tile.stop - tile.start


def _refit_steps(
    fit: Fit, tile: slice, voxels: Voxels, refit: Refit, chosen: Array, fitted: Array
) -> Generator[int, None, None]:
    """Refit one tile with the alphas that were chosen for it; yields work."""
    loaded = load_tile(fit, tile, voxels)
    refit.run(tile, loaded.y, loaded.projected, chosen[tile], fitted[tile])
    yield tile.stop - tile.start


def _counted(steps: Generator, meter: Meter) -> Generator[tuple[int, int], None, Any]:
    """Steps that count as no work: reading is little beside the fit."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value
        yield meter.add(0)


def weights_array(shape: tuple[int, int], dtype: np.dtype, limit: int | None) -> Array:
    """An empty array for weights; over `limit` bytes a memory map of a temporary file that goes with it.

    Raises:
        ValueError: the folder for temporary files has no room for it either.
    """
    import psutil

    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if limit is None:
        limit = int(SHARE_IN_MEMORY * psutil.virtual_memory().available)
    if size <= limit:
        return np.empty(shape, dtype)
    folder = tempfile.gettempdir()
    if (free := shutil.disk_usage(folder).free) < size:
        raise ValueError(
            f"The weights take {size / 1e9:.1f} GB, more than memory has to spare ({limit / 1e9:.1f} GB) or "
            f"{folder} has free ({free / 1e9:.1f} GB): pass weights_path=... on a larger disk, or fit fewer voxels."
        )
    log.warning("Weights of %.1f GB stand in a temporary file in %s, not in memory.", size / 1e9, folder)
    with tempfile.TemporaryFile(prefix="encoding_nb-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def _empty_predictions(fit: Fit) -> Array | None:
    return None if fit.X_test is None else np.empty((len(fit.X_test), fit.Y.shape[1]), fit.dtype)


def _floor(fit: Fit, scale: Array) -> Array:
    """The prediction floor, which counts in Y's units as they are fitted but for powers of two."""
    return np.full(len(scale), fit.prediction_floor) if fit.standardize_Y else fit.prediction_floor / scale


def _add(scores: Array, totals: Array) -> None:
    """Add a fold's scores (n_alphas, n_tile), where they are defined, to their sum and count."""
    defined = np.isfinite(scores)
    totals[0] += np.where(defined, scores, 0.0)
    totals[1] += defined


def _mean(totals: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return totals[0] / totals[1]


def _chosen(fit: Fit, scores: Array) -> Array:
    if not fit.single_alpha:
        return choose(scores, fit.alphas, fit.dtype)
    scored = np.isfinite(scores).all(axis=0)
    means = scores[:, scored].mean(axis=1, keepdims=True) if scored.any() else scores[:, :1]
    return np.repeat(choose(means, fit.alphas, fit.dtype), scores.shape[1])
