"""One ridge fit, tile by tile: scan, operators of the folds, scores of every alpha, refit.

Between its products a tile is centred, summed and copied by one core, for which the others would wait: a
quarter of a fit's time on two cores. One tile a core leaves nobody waiting, and a product of one thread takes
as much of its core as one of many does.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from hashlib import sha256
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._machine import blas_by_thread, blas_limited
from .._progress import Count
from . import _problem, _solvers
from ._problem import Array, Fit, Meter, Voxels, is_flat, may_be_flat, scan
from ._solvers import Operators


class Refit:
    """Weights and test predictions of a tile, given each voxel's alpha. Fills the arrays of the result."""

    def __init__(self, fit: Fit, voxels: Voxels, weights: Array | None, predictions: Array | None) -> None:
        """Take the arrays to fill: weights (n_columns, n_voxels), predictions (n_test, n_voxels), or None."""
        self.fit, self.voxels, self.weights, self.predictions = fit, voxels, weights, predictions
        self.correlations = np.full(fit.Y.shape[1], np.nan) if fit.Y_test is not None else None
        self.test: Any = None

    @property
    def needed(self) -> bool:
        """Whether anything was asked for beyond the alphas."""
        return self.weights is not None or self.fit.X_test is not None

    @cached_property
    def by_operators(self) -> bool:
        """Fewer rows than columns and no weights wanted: one operator per alpha, and no decomposition."""
        if not self.fit.dual or self.weights is not None or self.fit.X_test is None:
            return False
        # Near the hard penalties the entries of an operator cancel, and float32 loses the fifth digit.
        return bool(
            (self.fit.penalties[-1] >= 100 * _solvers.HARD_RATIO * self.fit.top_eigenvalue(None)).all()
        )

    @cached_property
    def operators(self) -> dict[int, Any]:
        """{number of an alpha: operator (n_test, n_rows)}; a fit of equal rows and alphas finds small ones again."""
        fit = self.fit
        if len(fit.alphas) * len(fit.X_test) * len(fit.X) * fit.dtype.itemsize > _problem.KEPT_BYTES:
            return {}
        key = (fit.penalties[-1].tobytes(), fit.dtype, sha256(np.ascontiguousarray(fit.X_test)).digest())
        return fit.once("test operators", key, dict)

    def add_operator(self, j: int) -> None:
        """Keep the operator (n_test, n_rows) of alpha j, while the folds hold the inverse that it needs."""
        if j not in self.operators:
            fit = self.fit
            inverse = fit.inverse_at(float(fit.penalties[-1, j]))
            self.operators[j] = fit.xp.put(self.cross @ inverse, fit.dtype)

    @cached_property
    def cross(self) -> Any:
        """Test rows by training rows, X_test X', float64."""
        return self.fit.xp.put(self.fit.X_test, float) @ self.fit.features.T

    @cached_property
    def basis(self) -> _solvers.Basis:
        """Decomposition of all rows for the refit."""
        fit, penalties = self.fit, self.fit.penalties[-1]
        if fit.hard[-1].any():
            return _solvers.svd_basis(fit.X, penalties, fit.dtype, fit.xp)
        if fit.dual:
            return _solvers.dual_basis(fit.features, penalties, fit.dtype, fit.xp)
        gains = 1.0 / (fit.xp.get(fit.eigen[0]) + penalties[:, None])
        return _solvers.Basis(fit.projector, fit.eigen[1], fit.xp.put(gains, fit.dtype))

    def prepare(self) -> None:
        """Whatever the tiles share and the folds have not left behind."""
        fit = self.fit
        if self.by_operators:
            for j in range(len(fit.alphas)):
                self.add_operator(j)
        elif fit.X_test is not None:
            self.test = fit.xp.put(fit.xp.put(fit.X_test, float) @ self.basis.right, fit.dtype)
        if not self.by_operators:
            # The float64 half has done its work; weights are not differences of it, so float32 does for them.
            right = None if self.weights is None else fit.xp.put(self.basis.right, fit.dtype)
            self.basis = self.basis._replace(right=right)

    def run(self, tile: slice, y: Any, projected: Any, chosen: Array, fitted: Array) -> None:
        """Fill the tile's weights, predictions and correlations; NaN where not `fitted` (n_tile,)."""
        scale, product = self.voxels.scale[tile], self.fit.xp.product
        if self.by_operators:
            predicted = self._by_operators(y, chosen)
        else:
            inputs = projected if self.basis.left is self.fit.projector else product(self.basis.left.T, y)
            coefficients = self.basis.gains[chosen].T * inputs
            predicted = None if self.test is None else self.fit.xp.get(product(self.test, coefficients))
            if self.weights is not None:
                weights = self.fit.xp.get(product(self.basis.right, coefficients))
                weights[:, ~fitted] = np.nan
                self.weights[:, tile] = weights if self.fit.standardize_Y else _times(weights, scale)
        if predicted is not None:
            predicted[:, ~fitted] = np.nan
            self._score(tile, predicted)

    def _by_operators(self, y: Any, chosen: Array) -> Array:
        # Voxels of one alpha are brought together once, so that each alpha is one product.
        order, xp = np.argsort(chosen, kind="stable"), self.fit.xp
        sorted_y = xp.take(y, order)
        ends = np.searchsorted(chosen[order], np.arange(len(self.fit.alphas) + 1))
        parts = [slice(a, b) for a, b in pairwise(ends)]
        found = [xp.get(xp.product(self.operators[j], sorted_y[:, part])) for j, part in enumerate(parts)]
        return np.take(np.concatenate(found, axis=1), np.argsort(order), axis=1)

    def _score(self, tile: slice, predicted: Array) -> None:
        scale, voxels = self.voxels.scale[tile], self.voxels
        if self.correlations is not None:
            # Correlated before it is brought back to Y's units, which may be too large or small to square.
            with self.fit.reading:
                measured = np.asarray(self.fit.Y_test[:, tile])
            measured = _times(measured, 1 / scale)
            r = correlate(measured, predicted)
            self.correlations[tile] = np.where(voxels.constant_test[tile], np.nan, r)
        if self.predictions is not None:
            predicted = _times(predicted, scale)
            self.predictions[:, tile] = (
                predicted + voxels.offset[tile] if self.fit.standardize_Y else predicted
            )


def _times(values: Array, scale: Array) -> Array:
    """Columns times their scales; the array itself where all are 1, as they mostly are."""
    return values if (scale == 1).all() else values * scale


def correlate(measured: Array, predicted: Array) -> Array:
    """Pearson correlation of the columns, NaN where the prediction does not vary."""
    a, b = measured.T.astype(float, order="C"), predicted.T.astype(float, order="C")
    flat = is_flat(b.min(axis=1), b.max(axis=1), predicted.dtype)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.vecdot(a, b) / np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    return np.where(flat, np.nan, np.clip(r, -1.0, 1.0))


# Operators of as many folds as fit here are held at once; more folds mean more passes over Y.
OPERATOR_BYTES = 1_500_000_000


def fold_groups(fit: Fit) -> list[list[int]]:
    """Fold numbers in groups whose operators fit into memory together."""
    groups: list[list[int]] = [[]]
    limit = room = max(OPERATOR_BYTES, fit.xp.spare_bytes())
    for number, rows in enumerate(fit.rows):
        width = len(rows.train) if fit.dual else fit.X.shape[1]
        size = len(fit.alphas) * len(rows.test) * width * fit.dtype.itemsize
        if groups[-1] and size > room:
            groups.append([])
            room = limit
        groups[-1].append(number)
        room -= size
    return groups


def shared_operators(fit: Fit, group: list[int], refit: Refit, meter: Meter) -> dict[int, list[Operators]]:
    """`build_operators`, or what a fit of the same X, folds and penalties has left of it."""
    if fit.derived is None or len(group) < len(fit.rows):  # the latter where they are too large together
        return build_operators(fit, group, refit, meter)
    digest = sha256()
    for part in (*(part for rows in fit.rows for part in (rows.train, rows.test)), fit.penalties):
        digest.update(f"{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    key = (digest.digest(), fit.use_corr, fit.dtype)
    known, operators = fit.derived.pop("held-out operators", (None, None))
    if known != key:
        operators = None  # freed before the next are built
        operators = build_operators(fit, group, refit, meter)
    else:
        meter.add(meter.build * len(fit.rows) * len(fit.alphas))
    if sum(part.matrices.nbytes for parts in operators.values() for part in parts) <= _problem.KEPT_BYTES:
        fit.derived["held-out operators"] = (key, operators)
    return operators


def build_operators(fit: Fit, group: list[int], refit: Refit, meter: Meter) -> dict[int, list[Operators]]:
    """Held-out operators of the folds in `group`, by fold number; and, in passing, those of the refit."""
    xp, settled, gram_of = fit.xp, {number: [] for number in group}, None
    # Alphas outermost in the dual: there the folds share one inverse per alpha.
    pairs = [(j, number) for j in range(len(fit.alphas)) for number in group if not fit.hard[number, j]]
    for j, number in pairs if fit.dual else sorted(pairs, key=itemgetter(1)):
        rows, penalty = fit.rows[number], float(fit.penalties[number, j])
        if fit.small[number]:
            matrix = _solvers.small_operator(fit.X, rows, penalty, xp)
        elif fit.dual:
            matrix = _solvers.dual_operator(fit.gram, rows, penalty, fit.inverse_at, not fit.normalpha, xp)
        else:
            if gram_of != number:
                gram_of, gram = number, _solvers.train_gram(fit.eigen[2], rows)
            matrix = _solvers.primal_operator(fit.eigen[2], fit.eigen[0], rows, penalty, gram, xp)
        settled[number].append((j, *_solvers.settle(matrix, fit.use_corr, fit.dtype, xp)))
        del matrix  # or it would be held while the next is made
        if refit.by_operators:
            refit.add_operator(j)
        meter.add(meter.build)
    operators = {}
    for number in group:
        # Taken out as it is stacked, so that the operators are not held twice.
        if parts := settled.pop(number):
            operators[number] = [_stacked(parts, fit.dual or fit.small[number], fit)]
    for number in group:
        if fit.hard[number].any():
            operators.setdefault(number, []).append(_hard(fit, number))
            meter.add(meter.build * int(fit.hard[number].sum()))
    return operators


def _hard(fit: Fit, number: int) -> Operators:
    xp, which = fit.xp, np.flatnonzero(fit.hard[number])
    matrices = _solvers.hard_operators(fit.X, fit.rows[number], fit.penalties[number, which])
    settled = [_solvers.settle(xp.put(m, float), fit.use_corr, fit.dtype, xp) for m in matrices]
    return _stacked([(j, *pair) for j, pair in zip(which, settled, strict=True)], True, fit)


def _stacked(parts: list[tuple[int, Any, float]], on_rows: bool, fit: Fit) -> Operators:
    which, matrices, scales = zip(*parts, strict=True)
    return Operators(np.array(which), fit.xp.stack(matrices), np.array(scales), on_rows)


# --- scores ----------------------------------------------------------------------------------------------


class Tile(NamedTuple):
    """Responses of some voxels, where the products are made, and (primal) their projections on the eigenbasis.

    Attributes:
        block: (n_rows, n_tile) as they are fitted, in a dtype that keeps them.
        dtype: they were read in, whose rounding says what varies.
        y: block in the dtype of the products.
        projected: (n_columns, n_tile) (XQ)'y; None in the dual.
        left_out: the same of the rows that each fold leaves out; None in the dual, and where the folds share
            rows, so that these do not add up to the whole.
    """

    block: Any
    dtype: np.dtype
    y: Any
    projected: Any
    left_out: list[Any] | None


def load_tile(fit: Fit, tile: slice, voxels: Voxels) -> Tile:
    """Read a tile and project it; each row is projected once where each is left out once."""
    read = fit.read(tile, voxels)
    block = fit.xp.put(read, np.promote_types(read.dtype, np.float32))
    y = fit.xp.put(block, fit.dtype)
    if fit.dual:
        return Tile(block, read.dtype, y, None, None)
    if not fit.partition:
        return Tile(block, read.dtype, y, fit.xp.product(fit.projector.T, y), None)
    left_out = [fit.xp.product(fit.projector[rows.out].T, y[rows.out]) for rows in fit.rows]
    return Tile(block, read.dtype, y, sum(left_out[1:], start=left_out[0]), left_out)


def held_out_rows(fit: Fit, tile: Tile, test: Array) -> tuple[Any, Array, Array]:
    """A fold's measurements (n_voxels, n_test), and two sums of squares of them, each (n_voxels,) float64.

    The measurements are centred for correlation. The sums are of the values as they are and about their mean;
    the latter is NaN where they do not vary.
    """
    xp, rows = fit.xp, tile.block[test]
    found = xp.empty(rows.shape[::-1], tile.y.dtype)
    raw, about_mean = np.empty((2, rows.shape[1]))
    for part in _solvers.slices(rows.shape[1], xp.columns_at_once):
        measured = xp.turned(rows[:, part])
        means = measured.mean(1)
        centred = measured - means[:, None]
        found[part] = centred if fit.use_corr else measured
        squares = xp.get(xp.vecdot(centred, centred))
        raw[part] = squares + len(test) * xp.get(means) ** 2
        doubtful = np.flatnonzero(may_be_flat(squares, raw[part], tile.dtype))
        if len(doubtful):
            flat = is_flat(*xp.extent(measured[doubtful]), tile.dtype)
            squares[doubtful[flat]] = np.nan
        about_mean[part] = squares
    return found, raw, about_mean


def fold_scores(fit: Fit, operators: list[Operators], number: int, tile: Tile, floor: Array | float) -> Array:
    """Held-out score of every alpha for the voxels of a tile: (n_alphas, n_tile), NaN where undefined.

    number is the fold's; floor, (n_tile,) or one for all, is `prediction_floor` in the units of the tile.
    """
    rows = fit.rows[number]
    measured, raw, about_mean = held_out_rows(fit, tile, rows.test)
    crossed, squared = np.empty((2, len(fit.alphas), tile.block.shape[1]))
    for part in operators:
        inputs = tile.y[rows.train] if part.on_rows else train_projection(fit, number, tile)
        crossed[part.alphas], squared[part.alphas] = _solvers.ridge_sums(part, inputs, measured, fit.xp)
    with np.errstate(invalid="ignore", divide="ignore"):
        if not fit.use_corr:
            return 1 - (raw - 2 * crossed + squared) / about_mean
        # r = cov / (sd_y sd_p), with the floor added to sd_p.
        sd = np.sqrt(squared / len(rows.test))
        return crossed / (len(rows.test) * np.sqrt(about_mean / len(rows.test)) * (sd + floor))


def train_projection(fit: Fit, number: int, tile: Tile) -> Any:
    """(XQ)'Y over a fold's training rows (n_columns, n_tile), from the fewer of train and left-out rows."""
    rows = fit.rows[number]
    if len(rows.train) <= len(rows.out):
        return fit.xp.product(fit.projector[rows.train].T, tile.y[rows.train])
    if tile.left_out is not None:
        return tile.projected - tile.left_out[number]
    return tile.projected - fit.xp.product(fit.projector[rows.out].T, tile.y[rows.out])


def choose(scores: Array, alphas: Array, dtype: np.dtype) -> Array:
    """Index of the best alpha of each column of scores (n_alphas, n); of those within rounding, the largest.

    Beyond the largest eigenvalue all alphas predict alike, and there float32 would choose by its rounding.
    """
    order = np.argsort(-alphas, kind="stable")
    ranked = np.nan_to_num(scores[order], nan=-np.inf)
    return order[np.argmax(ranked >= ranked.max(axis=0) - 8 * np.finfo(dtype).eps, axis=0)]


# --- tiles side by side -----------------------------------------------------------------------------------

Tell = Callable[[int], None]
Job = Callable[[Tell], None]


class _Stopped(BaseException):
    """Ends a job at its next piece of work, because the fit was cancelled or another job failed."""


def run_jobs(jobs: list[Job], n_workers: int, tell: Tell) -> None:
    """Run jobs in `n_workers` threads; one after another in this thread for one worker.

    Also in this thread where BLAS cannot be held at one thread. A job is given a function, and calls it with each
    piece of work that it has done; `tell(work)` is then called in this thread. What a job or `tell` raises stops all
    jobs at their next piece of work, and is raised here when their threads have ended.
    """
    if min(n_workers, len(jobs)) > 1:
        with blas_limited(1) as had:
            if had:
                _in_threads(jobs, n_workers, tell)
                return
    for job in jobs:
        job(tell)


def _in_threads(jobs: list[Job], n_workers: int, tell: Tell) -> None:
    waiting = [partial(copy_context().run, job) for job in reversed(jobs)]
    reports, stop = queue.SimpleQueue(), threading.Event()
    # Looked for here: several threads that list libraries at once may block each other.
    own = blas_by_thread()
    threads = [
        threading.Thread(
            target=_work, args=(waiting, reports, stop, own), name="encoding_nb-tile", daemon=True
        )
        for _ in range(min(n_workers, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        at_work = len(threads)
        while at_work:
            found = reports.get()
            if isinstance(found, BaseException):
                try:
                    raise found
                finally:
                    del found  # or this frame and the error would hold each other, and the fit's arrays
            if found is None:
                at_work -= 1
            else:
                tell(found)
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()
        while not reports.empty():  # or an error that nobody gets would hold itself, and the fit's arrays
            reports.get()


def _work(waiting: list[Job], reports: queue.SimpleQueue, stop: threading.Event, own: Any) -> None:
    """Run waiting jobs in this thread; reports each piece of work, an error, and None at the end."""

    def tell(work: int) -> None:
        reports.put(work)
        if stop.is_set():
            raise _Stopped

    try:
        with own.limit(limits=1):
            while not stop.is_set():
                try:
                    job = waiting.pop()
                except IndexError:
                    break
                job(tell)
    except _Stopped:
        pass
    except BaseException as error:  # noqa: BLE001 - raised again by `_in_threads`
        reports.put(error)
    reports.put(None)


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


def solve(
    fit: Fit,
    *,
    keep_weights: bool,
    weights_path: str | Path | None,
    weights_memory: int | None,
    keep_predictions: bool,
    all_scores: bool,
    progress: Count,
) -> RidgeResult:
    """Scan Y; build operators and score the tiles, per group of folds; refit. See `ridge.ridge_cv`.

    Weights that go to a file are written under a temporary name, so a stopped fit leaves no half file.
    """
    shape = (fit.X.shape[1], fit.Y.shape[1])
    if weights_path is None:
        weights = weights_array(shape, fit.dtype, weights_memory) if keep_weights else None
        return _solve(fit, weights, keep_predictions, all_scores, progress)
    target = Path(weights_path)
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        weights = np.lib.format.open_memmap(draft, mode="w+", dtype=fit.dtype, shape=shape)
        result = _solve(fit, weights, keep_predictions, all_scores, progress)
        weights.flush()
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return replace(result, weights=np.load(target, mmap_mode="r"))


def _solve(
    fit: Fit, weights: Array | None, keep_predictions: bool, all_scores: bool, progress: Count
) -> RidgeResult:
    groups, meter, n_voxels = fold_groups(fit), Meter(fit, progress), fit.Y.shape[1]
    voxels = scan(fit, meter.add)
    keep_predictions = keep_predictions and fit.X_test is not None
    predictions = np.empty((len(fit.X_test), n_voxels), fit.dtype) if keep_predictions else None
    refit = Refit(fit, voxels, weights, predictions)
    # sums of scores over folds, and how many were defined
    totals = np.zeros((2, len(fit.alphas), n_voxels))
    # One pass over Y does both, unless the choice of alpha needs all voxels or the folds come in groups.
    one_pass = len(groups) == 1 and not fit.single_alpha
    last = refit if one_pass and refit.needed else None
    for group in groups:
        operators = shared_operators(fit, group, refit, meter)
        if last is not None:
            last.prepare()
        run_jobs(
            [partial(_score_tile, fit, tile, voxels, operators, totals, last) for tile in fit.tiles],
            fit.n_workers,
            meter.add,
        )
        del operators
    scores = _mean(totals)
    scores[:, ~voxels.usable] = np.nan
    chosen, scored = _chosen(fit, scores), np.isfinite(scores).any(axis=0)
    fitted = voxels.usable & (scored.any() if fit.single_alpha else scored)
    if refit.needed and not one_pass:
        refit.prepare()
        run_jobs(
            [partial(_refit_tile, fit, tile, voxels, refit, chosen, fitted) for tile in fit.tiles],
            fit.n_workers,
            meter.add,
        )
    progress(meter.total, meter.total)
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


def _score_tile(
    fit: Fit,
    tile: slice,
    voxels: Voxels,
    operators: dict[int, list[Operators]],
    totals: Array,
    refit: Refit | None,
    tell: Tell,
) -> None:
    """Add one tile's scores in the folds of `operators` to `totals`, and refit it where all are there; tells work."""
    loaded, of_tile = load_tile(fit, tile, voxels), totals[:, :, tile]
    # The prediction floor counts in Y's units as they are fitted but for powers of two.
    floor = fit.prediction_floor if fit.standardize_Y else fit.prediction_floor / voxels.scale[tile]
    for number, of_fold in sorted(operators.items()):
        scores = fold_scores(fit, of_fold, number, loaded, floor)
        defined = np.isfinite(scores)
        of_tile[0] += np.where(defined, scores, 0.0)
        of_tile[1] += defined
        tell(len(fit.alphas) * (tile.stop - tile.start))
    if refit is not None:
        scores = _mean(of_tile)
        fitted = voxels.usable[tile] & np.isfinite(scores).any(axis=0)
        refit.run(tile, loaded.y, loaded.projected, choose(scores, fit.alphas, fit.dtype), fitted)
        tell(tile.stop - tile.start)


def _refit_tile(
    fit: Fit, tile: slice, voxels: Voxels, refit: Refit, chosen: Array, fitted: Array, tell: Tell
) -> None:
    """Refit one tile with the alphas that were chosen for it; tells work."""
    loaded = load_tile(fit, tile, voxels)
    refit.run(tile, loaded.y, loaded.projected, chosen[tile], fitted[tile])
    tell(tile.stop - tile.start)


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


def _mean(totals: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return totals[0] / totals[1]


def _chosen(fit: Fit, scores: Array) -> Array:
    if not fit.single_alpha:
        return choose(scores, fit.alphas, fit.dtype)
    scored = np.isfinite(scores).all(axis=0)
    means = scores[:, scored].mean(axis=1, keepdims=True) if scored.any() else scores[:, :1]
    return np.repeat(choose(means, fit.alphas, fit.dtype), scores.shape[1])
