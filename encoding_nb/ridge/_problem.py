"""One ridge problem: the checked inputs of a fit, what follows from the features alone, and its voxels."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._machine import n_threads
from .._progress import Count
from . import _solvers
from ._solvers import Rows

Array = NDArray[Any]
# A tile is the part of Y that is read, scored and refitted together.
TILE_BYTES = 64 * 2**20
# Fits of fewer responses than this are over before threads for their tiles would be worth their start.
THREADED_VALUES = 2**20
# Projections of a tile on the eigenbasis, one of each fold, are held at once where they take no more.
PROJECTION_BYTES = 192 * 2**20
# Operators of the folds, and those of the test rows, are each left for the next fit of the same X up to this size,
# where its caller keeps what is derived.
KEPT_BYTES = 500_000_000


@dataclass(frozen=True)
class Fit:
    """The checked inputs of one fit, named as in `ridge.ridge_cv`, and what is derived from X alone."""

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
    derived: dict[str, tuple[Hashable, Any]] | None = None
    # Y may be anything that can be sliced, such as a file's data set: by one thread at a time.
    reading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def once(self, name: str, key: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, or what a fit of the same X has left in `derived` for this name and key.

        One value a name: making the next frees the last, so what is kept does not grow.
        """
        if self.derived is None:
            return make()
        known, value = self.derived.get(name, (None, None))
        if name not in self.derived or known != key:
            self.derived.pop(name, None)
            value = make()
            self.derived[name] = (key, value)
        return value

    @cached_property
    def dual(self) -> bool:
        """Fewer training rows than columns: work with XX' rather than X'X."""
        return bool(np.mean([len(rows.train) for rows in self.rows]) <= self.X.shape[1])

    @cached_property
    def small(self) -> list[bool]:
        """Folds of a primal fit that train on few rows, as the first of a time series: dual each by itself.

        Few rows know the eigenbasis of all rows badly, and float32 products in it would lose digits.
        """
        k = self.X.shape[1]
        sizes = [(len(rows.train), len(rows.out)) for rows in self.rows]
        return [not self.dual and (train <= k or (train < out and train <= 2 * k)) for train, out in sizes]

    @cached_property
    def features(self) -> Any:
        """X where the products are made, float64."""
        return self.xp.put(self.X, float)

    @cached_property
    def gram(self) -> Any:
        """XX' (n_rows, n_rows), float64."""
        return self.once("gram", None, lambda: self.features @ self.features.T)

    @cached_property
    def eigen(self) -> tuple[Any, Any, Any]:
        """Eigenvalues and eigenvectors Q of X'X, and XQ."""
        return self.once("eigen", None, lambda: _solvers.eigen_basis(self.features, self.xp))

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
        """Whether the rows that the folds leave out are all rows, each once: then the folds' projections add up.

        Not where a tile's projections of all folds would take much memory.
        """
        if len(self.rows) * self.X.shape[1] * self.tile * self.dtype.itemsize > PROJECTION_BYTES:
            return False
        out = np.concatenate([rows.out for rows in self.rows])
        return len(out) == len(self.X) and len(np.unique(out)) == len(out)

    @cached_property
    def tiles(self) -> list[slice]:
        """Slices of voxels."""
        return _solvers.slices(self.Y.shape[1], self.tile)

    def read(self, tile: slice, voxels: Voxels) -> Array:
        """Responses (n_rows, n_tile) as they are fitted; voxels that are not usable are zero."""
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
    """What the responses say of each voxel before the fit; arrays are (n_voxels,).

    Attributes:
        constant, broken: bool, does not vary over the rows of Y; holds NaN or infinite values.
        constant_test: bool, does not vary over the rows of Y_test.
        offset, scale: a response y is fitted as (y - offset) / scale. The mean and the standard deviation
            where Y is z-scored; else 0 and 1, or a power of two for a voxel so large or small that float32
            would lose the squares of its predictions (dividing by it is exact).
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


def is_flat(low: Array, high: Array, dtype: np.dtype) -> Array:
    """Which columns vary by no more than the rounding of their dtype, from their least and largest value."""
    # float64: a difference of two integers may not fit into their own type
    low, high = low.astype(float), high.astype(float)
    return (high - low) <= 4 * _rounding(dtype) * np.maximum(np.abs(low), np.abs(high))


def may_be_flat(about_mean: Array, about_zero: Array, dtype: np.dtype) -> Array:
    """Which columns `is_flat` could say yes to, from their sums of squares about the mean and about 0.

    Of n values that lie within 4 eps of the largest, the one sum is at most (4 eps)^2 of the other, but for the
    rounding of both sums. It saves a look at each value of all the others.
    """
    return ~(about_mean > max(64 * _rounding(dtype) ** 2, 1e-20) * about_zero)


@lru_cache
def _rounding(dtype: np.dtype) -> float:
    return float(np.finfo(dtype if np.issubdtype(dtype, np.floating) else float).eps)


class Meter:
    """Counts work done, in units that stand for about equal times, and tells it."""

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


class Reading(NamedTuple):
    """What one pass over responses found: flat and broken (n_voxels,) bool, largest |value|, mean, deviation."""

    flat: Array
    broken: Array
    size: Array
    mean: Array
    spread: Array


def read_responses(
    Y: Any,
    tiles: Iterable[slice],
    name: str,
    tell: Callable[[int], None],
    *,
    skip_nan: bool,
    moments: bool = False,
) -> Reading:
    """Read responses once, a tile of voxels at a time; `mean` and `spread` are 0 and 1 unless `moments`.

    `tell(0)` is called after each tile: reading counts as no work, as it is little beside the fit.

    Raises:
        ValueError: values are not finite, and skipping them was not asked for.
    """
    n_voxels = Y.shape[1]
    flat, broken = np.zeros((2, n_voxels), bool)
    size, mean, spread = np.zeros(n_voxels), np.zeros(n_voxels), np.ones(n_voxels)
    n_bad, bad_rows = 0, np.zeros(Y.shape[0], bool)
    for tile in tiles:
        block = np.asarray(Y[:, tile])
        low, high = block.min(axis=0), block.max(axis=0)
        broken[tile] = ~(np.isfinite(low) & np.isfinite(high))
        with np.errstate(invalid="ignore"):
            flat[tile] = is_flat(low, high, block.dtype) & ~broken[tile]
        size[tile] = np.maximum(np.abs(low.astype(float)), np.abs(high.astype(float)))
        if moments:
            with np.errstate(invalid="ignore"):
                mean[tile], spread[tile] = column_moments(block)
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
    return Reading(flat, broken, size, mean, spread)


def scan(fit: Fit, tell: Callable[[int], None]) -> Voxels:
    """Read Y and Y_test, and say of each voxel whether and in what units it is fitted; calls `tell(0)` for each tile.

    Raises:
        ValueError: values that are not finite, where skipping them was not asked for, or that float32 cannot
            hold.
    """
    found = read_responses(fit.Y, fit.tiles, "Y", tell, skip_nan=fit.skip_nan, moments=fit.standardize_Y)
    broken, flat_test = found.broken, np.zeros(fit.Y.shape[1], bool)
    if fit.Y_test is not None:
        test = read_responses(fit.Y_test, fit.tiles, "Y_test", tell, skip_nan=fit.skip_nan)
        broken, flat_test = broken | test.broken, test.flat
    constant = found.flat & ~broken
    usable = ~(constant | broken)
    size = np.where(usable, found.size, 1.0)
    _refuse_beyond(size, fit.dtype)
    scale = np.where(usable, found.spread, 1.0) if fit.standardize_Y else _powers_of_two(size)
    return Voxels(constant, broken, flat_test & ~broken, np.where(usable, found.mean, 0.0), scale)


def _powers_of_two(size: Array) -> Array:
    """1 for the usual sizes, else the power of two just above."""
    exponent = np.frexp(size)[1]
    return np.ldexp(1.0, np.where(np.abs(exponent) > USUAL_EXPONENT, exponent, 0))


def _refuse_beyond(size: Array, dtype: np.dtype) -> None:
    beyond = np.abs(np.frexp(size)[1]) > LAST_EXPONENT
    if dtype == np.float32 and beyond.any():
        raise ValueError(
            f"Y must lie within float32, with voxels of sizes between 1e-36 and 1e36; got {beyond.sum()} others, "
            f"first {_first(beyond)}, up to {size[beyond][0]:.3g}: rescale them, or pass dtype=np.float64."
        )


def _first(mask: Array) -> str:
    numbers = np.flatnonzero(mask)
    return ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")


def column_moments(train: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of each column, float64; the deviation of a flat column is infinity.

    Dividing by infinity makes it exactly zero, where dividing by its rounding noise would make it steps of
    one.
    """
    flat = is_flat(train.min(axis=0), train.max(axis=0), train.dtype)
    return train.mean(axis=0, dtype=float), np.where(flat, np.inf, train.std(axis=0, dtype=float))
