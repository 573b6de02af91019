"""Statistics of the columns of an array: which are constant, means and deviations, correlations, means over folds.

Columns are features or voxels, rows are moments in time. Each statistic is defined here once, for the design matrix,
the ridge and the scores; `ridge/_fit.py` repeats two of them for tiles on a GPU, and tests hold them to these.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

Array = np.ndarray
# Columns are worked on in slabs of about this many values, so that their float64 copies stay in the cache: to ask the
# system for copies of a whole cortex takes longer than the sums.
SLAB_VALUES = 100_000


def slices(n: int, width: int) -> Iterator[slice]:
    """Consecutive slices of at most `width` that cover range(n)."""
    return (slice(start, min(start + width, n)) for start in range(0, n, width))


def slabs(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the columns of (n_rows, n_columns) values, with about `SLAB_VALUES` values in each."""
    return slices(shape[1], max(1, SLAB_VALUES // max(1, shape[0])))


# ---------------------------------------------------------------------- constant columns


def is_constant(low: Array, high: Array, dtype: Any) -> Array:
    """Which columns vary by rounding alone, from their least and largest values: bool.

    The limit is 8 eps of the values' type, relative to the largest: 8 to 16 steps of the floating point numbers there.
    A few sums and products (a detrended voxel to which its mean was added again) leave a constant up to that far from
    itself, and a correlation with what is left would be one with rounding errors.
    """
    # float64: the difference of two integers may not fit into their type
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    with np.errstate(invalid="ignore", over="ignore"):
        extent = high - low
        rounding = 8 * _eps(dtype) * np.maximum(np.abs(low), np.abs(high))
        return np.isfinite(extent) & (extent <= rounding)


def constant_columns(values: Array) -> Array:
    """`is_constant` of the columns of values (n_rows, n_columns): (n_columns,) bool."""
    return is_constant(values.min(axis=0), values.max(axis=0), values.dtype)


def may_be_constant(about_mean: Array, about_zero: Array, dtype: Any) -> Array:
    """Which columns `is_constant` could find, from their sums of squares about the mean and about 0.

    It saves a look at each value of all other columns: of n values within 8 eps of the largest, the one sum is at most
    (8 eps)^2 of the other. The limit is four times that, since both sums are rounded.
    """
    return ~(about_mean > max((16 * _eps(dtype)) ** 2, 1e-20) * about_zero)


def _eps(dtype: Any) -> float:
    return float(np.finfo(dtype if np.issubdtype(dtype, np.floating) else float).eps)


# ---------------------------------------------------------------------- means, deviations, correlations


def centred(values: Array) -> tuple[Array, Array, Array]:
    """Columns minus their means, their means, and their sums of squares about them, all float64.

    A constant column becomes exactly 0, with a sum of squares of 0; the sum of squares of a column with a value that is
    not finite is NaN. For one slab of columns: whole arrays go through `slabs`.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        means = values.mean(axis=0, dtype=float)
        about_mean = values - means
        squares = dot(about_mean, about_mean)
        doubtful = np.flatnonzero(may_be_constant(squares, squares + len(values) * means**2, values.dtype))
    if len(doubtful):
        constant = doubtful[constant_columns(values[:, doubtful])]
        about_mean[:, constant], squares[constant] = 0.0, 0.0
    return about_mean, means, squares


def dot(one: Array, other: Array) -> Array:
    """Sum over rows of the product of matching columns."""
    return np.einsum("ij,ij->j", one, other)


def moments(values: Array) -> tuple[Array, Array]:
    """Mean and standard deviation (of the population) of each column, float64.

    The deviation of a constant column is infinite: division by it gives a z-score of exactly 0, where division by
    rounding errors would give steps of 1.
    """
    means, deviations = np.empty((2, values.shape[1]))
    for part in slabs(values.shape):
        _, means[part], squares = centred(values[:, part])
        deviations[part] = np.where(squares == 0, np.inf, np.sqrt(squares / len(values)))
    return means, deviations


def unit_columns(values: Array) -> Array:
    """Columns with mean 0 and length 1, float64; NaN where they are constant or not finite. For one slab."""
    about_mean, _, squares = centred(values)
    with np.errstate(invalid="ignore"):
        return about_mean / np.sqrt(squares)


def pearson(one: Array, other: Array) -> Array:
    """Pearson correlation of matching columns: (n_columns,) float64, NaN where a side is constant or not finite."""
    r = np.empty(one.shape[1])
    for part in slabs(one.shape):
        a, _, squares_a = centred(one[:, part])
        b, _, squares_b = centred(other[:, part])
        with np.errstate(invalid="ignore"):
            # A factor at a time: the product of two lengths may be too large or too small for float64.
            r[part] = dot(a, b) / np.sqrt(squares_a) / np.sqrt(squares_b)
    return np.clip(r, -1.0, 1.0)


def mean_of_defined(values: Array) -> Array:
    """Mean over the first axis (folds) of the values that are finite; NaN where none is."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(defined, values, 0.0).sum(axis=0) / defined.sum(axis=0)
