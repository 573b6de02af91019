"""One ridge fit, tile by tile: a first look at Y, operators of the folds, scores of every alpha, refit.

Between its products, one core centres, sums and copies a tile, and the other cores would wait for it: a quarter of a
fit's time on two cores. With a tile for each core none waits, and a product in one thread uses as much of its core as
one in many threads does.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from .. import _machine
from .._columns import Array, constant_columns, is_constant, may_be_constant, pearson, slices
from .._progress import Cancelled, Count
from . import _solvers
from ._problem import Fit, Meter, Voxels, scan
from ._solvers import Operators


class Refit:
    """Weights and test predictions of a tile, given each voxel's alpha. Fills the arrays of the result."""

    def __init__(self, fit: Fit, voxels: Voxels, weights: Array | None, predictions: Array | None) -> None:
        """Take the arrays to fill: weights (n_columns, n_voxels), predictions (n_test, n_voxels), or None."""
        self.fit, self.voxels, self.weights, self.predictions = fit, voxels, weights, predictions
        self.correlations = np.full(fit.Y.shape[1], np.nan) if fit.Y_test is not None else None
        self.operators: dict[int, Any] = {}
        self.test: Any = None

    @property
    def needed(self) -> bool:
        """Whether anything beyond the alphas is wanted."""
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

    def add_operator(self, j: int) -> None:
        """Keep the operator (n_test, n_rows) of alpha j, while the folds hold the inverse that it needs."""
        if j not in self.operators:
            inverse = self.fit.inverse_at(float(self.fit.penalties[-1, j]))
            self.operators[j] = self.fit.xp.put(self.cross @ inverse, self.fit.dtype)

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
            return _solvers.dual_basis(fit.features, fit.gram, penalties, fit.dtype, fit.xp)
        gains = 1.0 / (fit.xp.get(fit.eigen[0]) + penalties[:, None])
        return _solvers.Basis(fit.projector, fit.eigen[1], fit.xp.put(gains, fit.dtype))

    def prepare(self) -> None:
        """Compute what the tiles share, as far as the folds have not done so."""
        fit = self.fit
        if self.by_operators:
            for j in range(len(fit.alphas)):
                self.add_operator(j)
            return
        if fit.X_test is not None:
            self.test = fit.xp.put(fit.xp.put(fit.X_test, float) @ self.basis.right, fit.dtype)
        # The float64 half is no longer needed; weights are not differences of it, so float32 is enough for them.
        right = None if self.weights is None else fit.xp.put(self.basis.right, fit.dtype)
        self.basis = self.basis._replace(right=right)

    def run(self, tile: slice, y: Any, projected: Any, chosen: Array, fitted: Array) -> None:
        """Fill the tile's weights, predictions and correlations; NaN where not `fitted` (n_tile,)."""
        xp = self.fit.xp
        if self.by_operators:
            predicted = self._by_operators(y, chosen)
        else:
            inputs = projected if self.basis.left is self.fit.projector else xp.product(self.basis.left.T, y)
            coefficients = self.basis.gains[chosen].T * inputs
            predicted = None if self.test is None else xp.get(xp.product(self.test, coefficients))
            if self.weights is not None:
                weights = xp.get(xp.product(self.basis.right, coefficients))
                weights[:, ~fitted] = np.nan
                units = 1.0 if self.fit.standardize_Y else self.voxels.scale[tile]
                self.weights[:, tile] = _times(weights, units)
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
        scale = self.voxels.scale[tile]
        if self.correlations is not None:
            # Correlated before predictions return to Y's units, which may be too large or small to square.
            with self.fit.reading:
                measured = np.asarray(self.fit.Y_test[:, tile])
            r = pearson(_times(measured, 1 / scale), predicted)
            self.correlations[tile] = np.where(self.voxels.constant_test[tile], np.nan, r)
        if self.predictions is not None:
            offset = self.voxels.offset[tile] if self.fit.standardize_Y else None
            predicted = _times(predicted, scale)
            self.predictions[:, tile] = predicted if offset is None else predicted + offset


def _times(values: Array, scale: Array | float) -> Array:
    """Columns times their scales; the array itself where all are 1, as they usually are."""
    return values if np.all(scale == 1) else values * scale


# ---------------------------------------------------------------------- operators of the folds

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


def build_operators(fit: Fit, group: list[int], refit: Refit, meter: Meter) -> dict[int, list[Operators]]:
    """Held-out operators of the folds in `group`, by fold number; also those of the refit, on the way."""
    xp, gram_of = fit.xp, None
    settled: dict[tuple[int, bool], list[tuple[int, Any, float]]] = {}

    def keep(number: int, j: int, matrix: Any, on_rows: bool) -> None:
        found = settled.setdefault((number, on_rows), [])
        found.append((j, *_solvers.settle(matrix, fit.use_corr, fit.dtype, xp)))
        meter.add(meter.build)

    # Alphas outermost in the dual: there the folds share one inverse per alpha.
    pairs = [(j, number) for j in range(len(fit.alphas)) for number in group if not fit.hard[number, j]]
    for j, number in pairs if fit.dual else sorted(pairs, key=itemgetter(1)):
        rows, penalty = fit.rows[number], float(fit.penalties[number, j])
        small = fit.is_small(rows)
        if small:
            matrix = _solvers.small_operator(fit.X, rows, penalty, xp)
        elif fit.dual:
            matrix = _solvers.dual_operator(fit.gram, rows, penalty, fit.inverse_at, not fit.normalpha, xp)
        else:
            if gram_of != number:
                gram_of, gram = number, _solvers.train_gram(fit.eigen[2], rows)
            matrix = _solvers.primal_operator(fit.eigen[2], fit.eigen[0], rows, penalty, gram, xp)
        keep(number, j, matrix, fit.dual or small)
        del matrix  # or it would be held while the next is computed
        if refit.by_operators:
            refit.add_operator(j)
    for number in group:
        which = np.flatnonzero(fit.hard[number]).tolist()
        matrices = _solvers.hard_operators(fit.X, fit.rows[number], fit.penalties[number, which])
        for j, matrix in zip(which, matrices, strict=True):
            keep(number, j, xp.put(matrix, float), True)
    operators: dict[int, list[Operators]] = {number: [] for number in group}
    while settled:  # taken out as they are stacked, so that the operators are not held twice
        (number, on_rows), parts = settled.popitem()
        which, matrices, scales = zip(*parts, strict=True)
        operators[number].append(Operators(np.array(which), xp.stack(matrices), np.array(scales), on_rows))
    return operators


# ---------------------------------------------------------------------- scores


class Tile(NamedTuple):
    """Responses of some voxels, where the products are computed, and their projections on the eigenbasis.

    Attributes
    ----------
    block : (n_rows, n_tile) as they are fitted, in a dtype that keeps them
    dtype : type in which they were read; its rounding decides what is constant
    y : block in the dtype of the products
    projected : (n_columns, n_tile) (XQ)'y; None in the dual
    left_out : the same for the rows that each fold leaves out; None in the dual, and where these do not add up to all
        rows
    """

    block: Any
    dtype: np.dtype
    y: Any
    projected: Any = None
    left_out: list[Any] | None = None


def load_tile(fit: Fit, tile: slice, voxels: Voxels) -> Tile:
    """Read a tile and project it; each row is projected once where each is left out once."""
    read, product = fit.read(tile, voxels), fit.xp.product
    block = fit.xp.put(read, np.promote_types(read.dtype, np.float32))
    loaded = Tile(block, read.dtype, fit.xp.put(block, fit.dtype))
    if fit.dual:
        return loaded
    if not fit.partition:
        return loaded._replace(projected=product(fit.projector.T, loaded.y))
    left_out = [product(fit.projector[rows.out].T, loaded.y[rows.out]) for rows in fit.rows]
    return loaded._replace(projected=sum(left_out[1:], start=left_out[0]), left_out=left_out)


def held_out_rows(fit: Fit, tile: Tile, test: Array) -> tuple[Any, Array, Array]:
    """A fold's measurements (n_voxels, n_test), and two sums of squares of them, each (n_voxels,) float64.

    The measurements are centred for correlation. The sums are of the values as they are and about their mean; the
    latter is NaN where a voxel is constant. As `_columns.centred`, transposed, and on a GPU, too.
    """
    xp, rows = fit.xp, tile.block[test]
    found = xp.empty(rows.shape[::-1], dtype=tile.y.dtype)
    raw, about_mean = np.empty((2, rows.shape[1]))
    for part in slices(rows.shape[1], xp.columns_at_once):
        measured = xp.turned(rows[:, part])
        means = measured.mean(1)
        centred = measured - means[:, None]
        found[part] = centred if fit.use_corr else measured
        squares = xp.get(xp.vecdot(centred, centred))
        raw[part] = squares + len(test) * xp.get(means) ** 2
        doubtful = np.flatnonzero(may_be_constant(squares, raw[part], tile.dtype))
        if len(doubtful):
            low, high = xp.extent(measured[doubtful])
            constant = is_constant(low, high, tile.dtype)
            squares[doubtful[constant]] = np.nan
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

    Beyond the largest eigenvalue all alphas make the same predictions, and float32 would choose by its rounding.
    """
    order = np.argsort(-alphas, kind="stable")
    ranked = np.nan_to_num(scores[order], nan=-np.inf)
    return order[np.argmax(ranked >= ranked.max(axis=0) - 8 * np.finfo(dtype).eps, axis=0)]


# ---------------------------------------------------------------------- tiles in threads

Tell = Callable[[int], None]
Job = Callable[[Tell], None]
THREAD_NAME = "encoding_nb-tile"


def run_jobs(jobs: list[Job], n_workers: int, tell: Tell) -> None:
    """Run jobs in `n_workers` threads; one after another in this thread for one worker.

    Also in this thread where BLAS cannot be held at one thread. A job takes a function, which it calls with each piece
    of work that it has done; `tell(work)` is then called in this thread. An exception of a job or of `tell` stops all
    jobs at their next piece of work, and is raised here when their threads have ended.
    """
    if min(n_workers, len(jobs)) > 1:
        with _machine.blas_limited(1) as limited:
            if limited:
                _in_threads(jobs, n_workers, tell)
                return
    for job in jobs:
        job(tell)


def _in_threads(jobs: list[Job], n_workers: int, tell: Tell) -> None:
    reports: queue.SimpleQueue = queue.SimpleQueue()  # of pieces of work, and of jobs that have ended
    stop = threading.Event()
    # Looked for here: several threads that list libraries at once may block each other.
    by_thread = _machine.blas_by_thread()

    def report(work: int) -> None:
        reports.put(work)
        if stop.is_set():  # the fit was cancelled, or another job failed
            raise Cancelled

    def work_on(job: Job) -> None:
        with by_thread.limit(limits=1):
            job(report)

    pool = ThreadPoolExecutor(n_workers, thread_name_prefix=THREAD_NAME)
    found = None
    try:
        for job in jobs:
            pool.submit(copy_context().run, work_on, job).add_done_callback(reports.put)
        n_left = len(jobs)
        while n_left:
            found = reports.get()
            if isinstance(found, Future):
                found.result()
                n_left -= 1
            else:
                tell(found)
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)
        # An error refers to the frames that it passed, so a frame that refers to it would keep the fit in memory.
        del found
        while not reports.empty():
            reports.get()


# ---------------------------------------------------------------------- the fit

log = logging.getLogger(__name__)
# Weights without a file may take this share of the free memory.
SHARE_IN_MEMORY = 0.5


@dataclass(frozen=True)
class RidgeResult:
    """Result of a ridge fit. Entries by voxel are in the order of Y's columns.

    Attributes
    ----------
    alphas : (n_alphas,), the grid
    best_alphas : (n_voxels,), chosen alpha; NaN for a voxel without a fit
    cv_scores : (n_voxels,), mean held-out score of the chosen alpha over the folds
    all_cv_scores : (n_alphas, n_voxels), the same for every alpha, or None
    weights : (n_columns, n_voxels), refit on all rows, or None; a memory map where they are in a file
    weights_on_disk : bool, whether they are in a file: at `weights_path`, or a temporary one where memory is too short
        for them, which is deleted with the array
    predictions : (n_test_rows, n_voxels) for X_test, or None
    correlations : (n_voxels,) of predictions with Y_test, or None
    constant_voxels : numbers of voxels that are constant over the rows of Y: alpha, scores and weights are NaN
    skipped_voxels : numbers of voxels with NaN or infinite values, in Y or Y_test, that were left out: also NaN
    unscored_voxels : numbers of voxels that vary over Y, but that no fold could score: they are constant in the test
        rows of every fold, or no column that varies predicts them. Also NaN; with `single_alpha`, which the other
        voxels chose, only their cv_scores are
    constant_test_voxels : numbers of voxels that are constant over the rows of Y_test: fitted, but without a
        correlation
    constant_columns : numbers of the columns of X that are constant (fitted as they are)
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
    fit: Fit, *, weights: Array | None, predictions: bool, all_scores: bool, progress: Count
) -> RidgeResult:
    """Look at Y; build operators and score the tiles, per group of folds; refit. See `ridge.ridge_cv`.

    `weights` (n_columns, n_voxels) is filled, unless it is None.
    """
    groups, meter, n_voxels = fold_groups(fit), Meter(fit, progress), fit.Y.shape[1]
    voxels = scan(fit, meter.add)
    keep = predictions and fit.X_test is not None
    refit = Refit(fit, voxels, weights, np.empty((len(fit.X_test), n_voxels), fit.dtype) if keep else None)
    # sums of scores over folds, and how many were defined
    totals = np.zeros((2, len(fit.alphas), n_voxels))
    # One pass over Y does both, unless the choice of alpha needs all voxels or the folds come in groups.
    one_pass = len(groups) == 1 and not fit.single_alpha
    last = refit if one_pass and refit.needed else None
    for group in groups:
        operators = build_operators(fit, group, refit, meter)
        if last is not None:
            last.prepare()
        score = partial(_score_tile, fit, voxels, operators, totals, last)
        run_jobs([partial(score, tile) for tile in fit.tiles], fit.n_workers, meter.add)
        del operators, score
    scores = _mean_over_folds(totals)
    scores[:, ~voxels.usable] = np.nan
    chosen, scored = _chosen(fit, scores), np.isfinite(scores).any(axis=0)
    fitted = voxels.usable & (scored.any() if fit.single_alpha else scored)
    if refit.needed and not one_pass:
        refit.prepare()
        refit_tile = partial(_refit_tile, fit, voxels, refit, chosen, fitted)
        run_jobs([partial(refit_tile, tile) for tile in fit.tiles], fit.n_workers, meter.add)
    progress(meter.total, meter.total)
    return RidgeResult(
        alphas=fit.alphas,
        best_alphas=np.where(fitted, fit.alphas[chosen], np.nan),
        cv_scores=scores[chosen, np.arange(n_voxels)],
        all_cv_scores=scores if all_scores else None,
        weights=weights,
        weights_on_disk=isinstance(weights, np.memmap),
        predictions=refit.predictions,
        correlations=refit.correlations,
        constant_voxels=np.flatnonzero(voxels.constant),
        skipped_voxels=np.flatnonzero(voxels.broken),
        unscored_voxels=np.flatnonzero(voxels.usable & ~scored),
        constant_test_voxels=np.flatnonzero(voxels.constant_test),
        constant_columns=np.flatnonzero(constant_columns(fit.X)),
    )


def _score_tile(
    fit: Fit,
    voxels: Voxels,
    operators: dict[int, list[Operators]],
    totals: Array,
    refit: Refit | None,
    tile: slice,
    tell: Tell,
) -> None:
    """Add one tile's scores in the folds of `operators` to `totals`, and refit it where these are all; tells work."""
    loaded, of_tile = load_tile(fit, tile, voxels), totals[:, :, tile]
    # The prediction floor counts in Y's units as they are fitted, apart from powers of two.
    floor = fit.prediction_floor if fit.standardize_Y else fit.prediction_floor / voxels.scale[tile]
    for number, of_fold in operators.items():
        scores = fold_scores(fit, of_fold, number, loaded, floor)
        defined = np.isfinite(scores)
        of_tile[0] += np.where(defined, scores, 0.0)
        of_tile[1] += defined
        tell(len(fit.alphas) * (tile.stop - tile.start))
    if refit is not None:
        scores = _mean_over_folds(of_tile)
        fitted = voxels.usable[tile] & np.isfinite(scores).any(axis=0)
        refit.run(tile, loaded.y, loaded.projected, choose(scores, fit.alphas, fit.dtype), fitted)
        tell(tile.stop - tile.start)


def _refit_tile(
    fit: Fit, voxels: Voxels, refit: Refit, chosen: Array, fitted: Array, tile: slice, tell: Tell
) -> None:
    """Refit one tile with the alphas that were chosen for it; tells work."""
    loaded = load_tile(fit, tile, voxels)
    refit.run(tile, loaded.y, loaded.projected, chosen[tile], fitted[tile])
    tell(tile.stop - tile.start)


def _mean_over_folds(totals: Array) -> Array:
    """`_columns.mean_of_defined` from the sum over folds and the number of folds with a score."""
    with np.errstate(invalid="ignore"):
        return totals[0] / totals[1]


def _chosen(fit: Fit, scores: Array) -> Array:
    if not fit.single_alpha:
        return choose(scores, fit.alphas, fit.dtype)
    scored = np.isfinite(scores).all(axis=0)
    means = scores[:, scored].mean(axis=1, keepdims=True) if scored.any() else scores[:, :1]
    return np.repeat(choose(means, fit.alphas, fit.dtype), scores.shape[1])


def weights_array(shape: tuple[int, int], dtype: np.dtype, limit: int | None) -> Array:
    """An empty array for weights; a memory map of a temporary file, deleted with it, where it takes over `limit` bytes.

    Raises
    ------
    ValueError
        The folder for temporary files has no room for it either.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if limit is None:
        limit = int(SHARE_IN_MEMORY * _machine.free_memory())
    if size <= limit:
        return np.empty(shape, dtype)
    advice = "pass weights_path=... on a larger disk, or fit fewer voxels"
    return _machine.temporary_array(shape, dtype, "The weights", advice)
