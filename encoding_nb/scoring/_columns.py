"""What scores and the permutation test share: checks, slabs and moments of the columns of responses."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]
# Columns are worked on in slabs of about this many values, so that their float64 copies stay in cache.
SLAB_VALUES = 150_000


def checked_alternative(alternative: str) -> str:
    """The alternative, if it is one."""
    if alternative not in ("two-sided", "greater", "less"):
        raise ValueError(f'alternative must be "two-sided", "greater" or "less", got {alternative!r}.')
    return alternative


def checked_whole(name: str, value: Any, *, least: int) -> int:
    """The value, if it is a whole number and no less than the least."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be {least} or more and a whole number, got {value!r}.")
    return int(value)


def checked_flags(
    values: ArrayLike,
    name: str = "significant",
    advice: str = "pass a run's result.significant, or fdr(pvalues)[0]",
) -> Array:
    """A mask as booleans, if it holds True and False (or 1 and 0) alone; p-values as a mask would say the reverse."""
    flags = np.asarray(values)
    if flags.dtype != bool and not (flags.dtype.kind in "iu" and np.isin(flags, (0, 1)).all()):
        raise ValueError(
            f"{name} must be flags, True or False for each voxel, got {flags.dtype} such as "
            f"{flags.ravel()[:3].tolist()}: {advice}."
        )
    return flags.astype(bool)


def pair(Y: ArrayLike, Y_hat: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays, if they can be compared row by row."""
    Y, Y_hat = np.asarray(Y), np.asarray(Y_hat)
    for name, values in (("Y", Y), ("Y_hat", Y_hat)):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be numbers, got dtype {values.dtype}.")
    if Y.shape != Y_hat.shape or Y.ndim != 2:
        raise ValueError(f"Y and Y_hat must be (rows, voxels) of one shape, got {Y.shape} and {Y_hat.shape}.")
    if len(Y) < 2:
        raise ValueError(f"Scores need at least 2 rows, got {len(Y)}.")
    return Y, Y_hat


def slabs(shape: tuple[int, ...], n_values: int | None = None) -> Iterator[slice]:
    """Slices of columns with about `n_values` values each, `SLAB_VALUES` by default."""
    width = max(1, (n_values or SLAB_VALUES) // max(1, shape[0]))
    return (slice(start, min(start + width, shape[1])) for start in range(0, shape[1], width))


def is_flat(values: Array) -> Array:
    """Which columns vary by no more than the rounding of their dtype: (n_columns,) bool."""
    # float64: a difference of two integers may not fit into their own type
    low, high = values.min(axis=0).astype(float), values.max(axis=0).astype(float)
    eps = np.finfo(values.dtype if np.issubdtype(values.dtype, np.floating) else float).eps
    with np.errstate(invalid="ignore"):
        return high - low <= 4 * eps * np.maximum(np.abs(low), np.abs(high))


def centred(values: Array) -> Array:
    """Columns with mean 0, float64."""
    with np.errstate(invalid="ignore"):
        return values - values.mean(axis=0, dtype=float)


def dot(a: Array, b: Array) -> Array:
    """Sum over rows of the product of two columns."""
    return np.einsum("ij,ij->j", a, b)


def unit_columns(values: Array) -> Array:
    """Columns with mean 0 and length 1, float64; NaN where they do not vary or are not finite."""
    about_mean = centred(values)
    with np.errstate(invalid="ignore", divide="ignore"):
        return about_mean / np.where(is_flat(values), np.nan, np.sqrt(dot(about_mean, about_mean)))
