"""Held-out operators of the folds, and the scores of every alpha that they give."""

from __future__ import annotations

from collections.abc import Generator
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np

from . import problem, solvers
from .problem import Array, Fit, Meter, Voxels, is_flat, may_be_flat
from .refit import Refit
from .solvers import Operators

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


def shared_operators(
    fit: Fit, group: list[int], refit: Refit, meter: Meter
) -> Generator[tuple[int, int], None, dict[int, list[Operators]]]:
    """`build_operators`, or what a fit of the same X, folds and penalties has left of it."""
    if fit.derived is None or len(group) < len(fit.rows):  # the latter where they are too large together
        return (yield from build_operators(fit, group, refit, meter))
    digest = sha256()
    for part in (*(part for rows in fit.rows for part in (rows.train, rows.test)), fit.penalties):
        digest.update(f"{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    key = (digest.digest(), fit.use_corr, fit.dtype)
    known, operators = fit.derived.pop("held-out operators", (None, None))
    if known != key:
        operators = None  # freed before the next are built
        operators = yield from build_operators(fit, group, refit, meter)
    else:
        yield meter.add(meter.build * len(fit.rows) * len(fit.alphas))
    if sum(part.matrices.nbytes for parts in operators.values() for part in parts) <= problem.KEPT_BYTES:
        fit.derived["held-out operators"] = (key, operators)
    return operators


def build_operators(
    fit: Fit, group: list[int], refit: Refit, meter: Meter
) -> Generator[tuple[int, int], None, dict[int, list[Operators]]]:
    """Held-out operators of the folds in `group`, by fold number; and, in passing, those of the refit."""
    settled: dict[int, list] = {number: [] for number in group}
    # Alphas outermost in the dual: there the folds share one inverse per alpha.
    pairs = [(j, number) for j in range(len(fit.alphas)) for number in group if not fit.hard[number, j]]
    for j, number in pairs if fit.dual else sorted(pairs, key=lambda pair: pair[1]):
        settled[number].append((j, *_settled(fit, _operator(fit, number, j))))
        refit.add_operator(j)
        yield meter.add(meter.build)
    operators = {}
    for number in group:
        # Taken out as it is stacked, so that the operators are not held twice.
        if parts := settled.pop(number):
            operators[number] = [_stacked(parts, fit.dual or fit.small[number], fit)]
    for number in group:
        if fit.hard[number].any():
            operators.setdefault(number, []).append(_hard(fit, number))
            yield meter.add(meter.build * int(fit.hard[number].sum()))
    return operators


def _operator(fit: Fit, number: int, j: int) -> Any:
    rows, penalty = fit.rows[number], float(fit.penalties[number, j])
    if fit.small[number]:
        return solvers.small_operator(fit.X, rows, penalty, fit.xp)
    if fit.dual:
        return solvers.dual_operator(fit.gram, rows, penalty, fit.inverse_at, not fit.normalpha, fit.xp)
    return solvers.primal_operator(fit.eigen[2], fit.eigen[0], rows, penalty, fit.xp)


def _hard(fit: Fit, number: int) -> Operators:
    which = np.flatnonzero(fit.hard[number])
    matrices = solvers.hard_operators(fit.X, fit.rows[number], fit.penalties[number, which])
    settled = [_settled(fit, fit.xp.put(matrix, float)) for matrix in matrices]
    return _stacked([(j, *pair) for j, pair in zip(which, settled, strict=True)], True, fit)


def _settled(fit: Fit, matrix: Any) -> tuple[Any, float]:
    return solvers.settle(matrix, fit.use_corr, fit.dtype, fit.xp)


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
    found = xp.empty(rows.shape[::-1], tile.y)
    raw, about_mean = np.empty((2, rows.shape[1]))
    for part in solvers.slices(rows.shape[1], xp.columns_at_once):
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


def fold_scores(fit: Fit, operators: list[Operators], number: int, tile: Tile, floor: Array) -> Array:
    """Held-out score of every alpha for the voxels of a tile: (n_alphas, n_tile), NaN where undefined.

    number is the fold's; floor (n_tile,) is `prediction_floor` in the units of the tile.
    """
    rows = fit.rows[number]
    measured, raw, about_mean = held_out_rows(fit, tile, rows.test)
    crossed, squared = np.empty((2, len(fit.alphas), tile.block.shape[1]))
    for part in operators:
        inputs = tile.y[rows.train] if part.on_rows else train_projection(fit, number, tile)
        crossed[part.alphas], squared[part.alphas] = solvers.ridge_sums(part, inputs, measured, fit.xp)
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
