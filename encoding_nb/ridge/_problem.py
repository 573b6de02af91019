"""The inputs of one ridge fit, what follows from its features alone, and a first look at its responses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np

from .._columns import Array, is_constant, moments, slices
from .._machine import n_threads
from .._progress import Count
from . import _solvers
from ._solvers import Rows

# A tile is the part of Y that is read, scored and refitted together.
TILE_BYTES = 64 * 2**20
# Fits of fewer responses than this end before threads for their tiles would be worth their start.
THREADED_VALUES = 2**20
# Projections of a tile on the eigenbasis, one of each fold, are held at once where they take no more.
PROJECTION_BYTES = 192 * 2**20


@dataclass(frozen=True)
class Fit:
    """The checked inputs of one fit, named as in `ridge.ridge_cv`, and what follows from X alone."""

    X: Array
    Y: Any
    X_test: Array | None
    Y_test: Any
    alphas: Array
    rows: list[Rows]
    single_alpha: bool
    use_corr: bool
    normalpha: bool
    prediction_floor: float
    skip_nan: bool
    standardize_Y: bool
    dtype: np.dtype
    xp: Any
    tile: int
    n_workers: int = 1
    # Y may be anything that can be sliced, such as a file's data set: one thread at a time reads it.
    reading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @cached_property
    def dual(self) -> bool:
        """Fewer training rows than columns: work with XX' instead of X'X."""
        return bool(np.mean([len(rows.train) for rows in self.rows]) <= self.X.shape[1])

    def is_small(self, rows: Rows) -> bool:
        """Whether a fold of a primal fit has few training rows, such as the first of a time series: solved as a dual.

        The eigenbasis of all rows describes few rows badly, and float32 products in it would lose digits.
        """
        k, train, out = self.X.shape[1], len(rows.train), len(rows.out)
        return not self.dual and (train <= k or (train < out and train <= 2 * k))

    @cached_property
    def features(self) -> Any:
        """X where the products are computed, float64."""
        return self.xp.put(self.X, float)

    @cached_property
    def gram(self) -> Any:
        """XX' (n_rows, n_rows), float64."""
        return self.features @ self.features.T

    @cached_property
    def eigen(self) -> tuple[Any, Any, Any]:
        """Eigenvalues and eigenvectors Q of X'X, and XQ, float64."""
        eigenvalues, Q = self.xp.eigh(self.features.T @ self.features)
        return eigenvalues.clip(0.0), Q, self.features @ Q

    @cached_property
    def projector(self) -> Any:
        """XQ in the dtype of the products."""
        return self.xp.put(self.eigen[2], self.dtype)

    @cached_property
    def inverse_at(self) -> Any:
        """Function from a penalty to (XX' + penalty I)^-1."""
        return _solvers.last_inverse(self.gram, self.xp)

    def top_eigenvalue(self, train: Array | None) -> float:
        """Largest eigenvalue of X'X over the rows of `train`, or over all rows (None)."""
        if self.dual:
            gram = self.gram if train is None else self.gram[train][:, train]
            return _solvers.largest_eigenvalue(self.xp.get(gram))
        if train is None:
            return float(self.xp.get(self.eigen[0]).max())
        some = self.features[train]
        return _solvers.largest_eigenvalue(self.xp.get(some.T @ some))

    @cached_property
    def penalties(self) -> Array:
        """(n_folds + 1, n_alphas) ridge penalty of each fold, and of the refit in the last row."""
        trains = [*(rows.train for rows in self.rows), None]
        # Features that are all zero predict nothing at any penalty but 0, which has no inverse.
        scale = [(self.top_eigenvalue(train) or 1.0) if self.normalpha else 1.0 for train in trains]
        return np.outer(scale, self.alphas)

    @cached_property
    def hard(self) -> Array:
        """(n_folds + 1, n_alphas) bool: penalties too small for the fast identities."""
        return self.penalties < _solvers.HARD_RATIO * self.top_eigenvalue(None)

    @cached_property
    def partition(self) -> bool:
        """Whether the folds leave out all rows, each once: then the projections of the folds add up to the whole.

        False where the projections of all folds of a tile would take much memory.
        """
        if len(self.rows) * self.X.shape[1] * self.tile * self.dtype.itemsize > PROJECTION_BYTES:
            return False
        out = np.concatenate([rows.out for rows in self.rows])
        return len(out) == len(self.X) and len(np.unique(out)) == len(out)

    @cached_property
    def tiles(self) -> list[slice]:
        """Slices of voxels."""
        return list(slices(self.Y.shape[1], self.tile))

    def read(self, tile: slice, voxels: Voxels) -> Array:
        """Responses (n_rows, n_tile) as they are fitted; voxels that cannot be fitted are zero."""
        with self.reading:
            block = np.array(self.Y[:, tile])
        block[:, ~voxels.usable[tile]] = 0
        if self.standardize_Y:
            return (block - voxels.offset[tile]) / voxels.scale[tile]
        odd = voxels.scale[tile] != 1
        if odd.any():
            block = block.astype(np.promote_types(block.dtype, np.float32), copy=False)
            block[:, odd] = block[:, odd] / voxels.scale[tile][odd]
        return block


@dataclass(frozen=True)
class Voxels:
    """Which voxels can be fitted, and in which units.

    Attributes
    ----------
    constant, broken : (n_voxels,) bool, constant over the rows of Y; with NaN or infinite values
    constant_test : (n_voxels,) bool, constant over the rows of Y_test
    offset, scale : (n_voxels,), a response y is fitted as (y - offset) / scale. The mean and the standard deviation
        where Y is z-scored; else 0 and 1, or a power of two for a voxel so large or small that float32 would lose the
        squares of its predictions (division by it is exact)
    """

    constant: Array
    broken: Array
    constant_test: Array
    offset: Array
    scale: Array

    @cached_property
    def usable(self) -> Array:
        """Voxels that can be fitted."""
        return ~(self.constant | self.broken)


def tile_width(n_rows: int, n_voxels: int, n_workers: int = 1) -> int:
    """Voxels in a tile: as many tiles as keep all workers busy to the end, and not many more bytes for more workers."""
    width = int(np.clip(TILE_BYTES // (4 * n_rows), 64, 2048))
    if n_workers > 2:
        width = max(64, 2 * width // n_workers)
    rounds = max(1, -(-n_voxels // (width * n_workers)))
    return max(1, -(-n_voxels // (rounds * n_workers)))


def workers_for(n_rows: int, n_voxels: int) -> int:
    """Threads that tiles of responses of this shape are worth, on the CPU."""
    return n_threads() if n_rows * n_voxels >= THREADED_VALUES else 1


class Meter:
    """Counts work done, in units that take about equal times, and reports it."""

    def __init__(self, fit: Fit, progress: Count) -> None:
        """Estimate the total for a fit."""
        self.progress = progress
        n, n_folds, n_alphas = len(fit.X), len(fit.rows), len(fit.alphas)
        # An operator costs about as much as scoring this many voxels with it.
        self.build = max(1, int(4 * n / n_folds) if not fit.dual else 2 * n // n_folds)
        self.done = 0
        self.total = self.build * n_folds * n_alphas
        self.total += sum((n_folds * n_alphas + 1) * (tile.stop - tile.start) for tile in fit.tiles)

    def add(self, work: int) -> None:
        """Count `work`, and call `progress(done, total)`."""
        self.done = min(self.done + work, self.total)
        self.progress(self.done, self.total)


# Voxels with values beyond 2^20, or all below 2^-20, are scaled before float32 squares them; float32 itself
# ends at 2^128.
USUAL_EXPONENT, LAST_EXPONENT = 20, 120


def read_responses(
    Y: Any,
    tiles: Iterable[slice],
    name: str,
    tell: Callable[[int], None],
    *,
    skip_nan: bool,
    z_score: bool = False,
) -> tuple[Array, Array, Array, Array, Array]:
    """Read responses once, a tile of voxels at a time: which are constant, which are not finite, and their numbers.

    `tell(0)` is called after each tile: reading counts as no work, since it takes little time compared with the fit.

    Returns
    -------
    constant, broken : (n_voxels,) bool
    size, mean, deviation : (n_voxels,), largest |value|, and for `z_score` the moments; else 0 and 1

    Raises
    ------
    ValueError
        Values are not finite, and `skip_nan` is False.
    """
    n_voxels = Y.shape[1]
    constant, broken = np.zeros((2, n_voxels), bool)
    size, mean, spread = np.zeros(n_voxels), np.zeros(n_voxels), np.ones(n_voxels)
    n_bad, bad_rows = 0, np.zeros(Y.shape[0], bool)
    for tile in tiles:
        block = np.asarray(Y[:, tile])
        low, high = block.min(axis=0), block.max(axis=0)
        broken[tile] = ~(np.isfinite(low) & np.isfinite(high))
        constant[tile] = is_constant(low, high, block.dtype) & ~broken[tile]
        size[tile] = np.maximum(np.abs(low.astype(float)), np.abs(high.astype(float)))
        if z_score:
            mean[tile], spread[tile] = moments(block)
        if broken[tile].any():
            bad = ~np.isfinite(block)
            n_bad += int(bad.sum())
            bad_rows |= bad.any(axis=1)
        tell(0)
    if broken.any() and not skip_nan:
        raise ValueError(
            f"{name} must be finite, got {n_bad} NaN or infinite values in {broken.sum()} of {n_voxels} voxels, "
            f"first {_first(broken)}, and {bad_rows.sum()} rows, first {bad_rows.argmax()}: "
            f'clean them, or pass on_nan="skip" to leave those voxels out.'
        )
    return constant, broken, size, mean, spread


def scan(fit: Fit, tell: Callable[[int], None]) -> Voxels:
    """Read Y and Y_test: which voxels can be fitted, and in which units; calls `tell(0)` for each tile.

    Raises
    ------
    ValueError
        Values that are not finite, where `on_nan` is "raise", or that float32 cannot hold.
    """
    look = partial(read_responses, tiles=fit.tiles, tell=tell, skip_nan=fit.skip_nan)
    constant, broken, size, mean, spread = look(fit.Y, name="Y", z_score=fit.standardize_Y)
    constant_test = np.zeros(fit.Y.shape[1], bool)
    if fit.Y_test is not None:
        constant_test, broken_test, *_ = look(fit.Y_test, name="Y_test")
        broken |= broken_test
    usable = ~(constant | broken)
    size = np.where(usable, size, 1.0)
    exponent = np.frexp(size)[1]
    beyond = np.abs(exponent) > LAST_EXPONENT
    if fit.dtype == np.float32 and beyond.any():
        raise ValueError(
            f"Y must lie within float32, with voxels of sizes between 1e-36 and 1e36; got {beyond.sum()} others, "
            f"first {_first(beyond)}, up to {size[beyond].max():.3g}: rescale them, or pass dtype=np.float64."
        )
    powers = np.ldexp(1.0, np.where(np.abs(exponent) > USUAL_EXPONENT, exponent, 0))
    scale = np.where(usable, spread, 1.0) if fit.standardize_Y else powers
    return Voxels(constant & ~broken, broken, constant_test & ~broken, np.where(usable, mean, 0.0), scale)


def _first(mask: Array) -> str:
    numbers = np.flatnonzero(mask)
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
