"""What `ridge` refuses before any fitting, and its inputs as arrays."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .problem import Array, Fit, Voxels, is_flat

# Voxels with values beyond 2^20, or all below 2^-20, are scaled before float32 squares them; float32 itself
# ends at 2^128.
USUAL_EXPONENT, LAST_EXPONENT = 20, 120


def check_options(on_nan: str, dtype: Any, prediction_floor: float, tile: int | None) -> None:
    """Refuse options that cannot be."""
    if on_nan not in ("raise", "skip"):
        raise ValueError(f'on_nan must be "raise" or "skip", got {on_nan!r}.')
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}.")
    if not (isinstance(prediction_floor, Real) and prediction_floor >= 0):
        raise ValueError(f"prediction_floor must be 0 or more, got {prediction_floor!r}.")
    if tile is not None and not (isinstance(tile, Integral) and tile >= 1):
        raise ValueError(f"tile must be 1 voxel or more and a whole number, got {tile!r}.")


def check_alphas(alphas: ArrayLike) -> Array:
    """The grid (n_alphas,) float64, positive and finite; else a ValueError."""
    grid = np.atleast_1d(_as_numbers(alphas, "alphas"))
    if grid.ndim != 1 or grid.size == 0 or not np.all(np.isfinite(grid) & (grid > 0)):
        raise ValueError(
            f"alphas must be a list of positive numbers, got {np.array2string(grid, threshold=10)}: "
            "try np.logspace(0, 6, 10)."
        )
    return grid


def _as_numbers(values: Any, name: str) -> Array:
    """float64, or a ValueError that names the argument; numpy's own does not."""
    try:
        return np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be numbers, got others ({error}).") from error


def check_features(X: ArrayLike, name: str) -> Array:
    """Features (n_rows, n_columns) float64 and finite; else a ValueError that counts and places the others."""
    array = _as_numbers(X, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(
            f"{name} must be (rows, columns) with at least one of each, got shape {array.shape}."
        )
    bad = ~np.isfinite(array)
    if bad.any():
        columns = np.flatnonzero(bad.any(axis=0))
        raise ValueError(
            f"{name} must be finite, got {bad.sum()} NaN or infinite values in {len(columns)} of "
            f"{array.shape[1]} columns (first {columns[0]}) and {bad.any(axis=1).sum()} rows "
            f"(first {bad.any(axis=1).argmax()}): "
            "look at the features of that row's story."
        )
    return array


def check_responses(X: Array, Y: Any, x_name: str, y_name: str) -> None:
    """Refuse responses that are no numbers by rows and voxels, or with other rows than the features."""
    if not hasattr(Y, "shape") or len(Y.shape) != 2 or Y.shape[1] == 0:
        raise ValueError(
            f"{y_name} must be an array (rows, voxels), got {getattr(Y, 'shape', type(Y).__name__)}."
        )
    if hasattr(Y, "iloc"):  # a table gives columns by name, not by number
        raise ValueError(f"{y_name} must be an array (rows, voxels), got a table: pass {y_name}.to_numpy().")
    if getattr(getattr(Y, "dtype", None), "kind", "f") not in "biuf":
        raise ValueError(f"{y_name} must be numbers, got dtype {Y.dtype}: try {y_name}.astype(np.float32).")
    if len(X) != Y.shape[0]:
        raise ValueError(
            f"{x_name} and {y_name} must have the same rows, got {x_name} {X.shape} and "
            f"{y_name} {tuple(Y.shape)}: "
            "check the trimming of features and responses, story by story."
        )


def check_test(X: Array, Y: Any, X_test: ArrayLike | None, Y_test: Any) -> Array | None:
    """Test rows as an array, or None; a ValueError where they do not match the training rows' columns and voxels."""
    if X_test is None:
        if Y_test is not None:
            raise ValueError("Y_test needs X_test: the rows to predict.")
        return None
    test = check_features(X_test, "X_test")
    if test.shape[1] != X.shape[1]:
        raise ValueError(f"X_test must have the {X.shape[1]} columns of X, got shape {test.shape}.")
    if Y_test is not None:
        check_responses(test, Y_test, "X_test", "Y_test")
        if Y_test.shape[1] != Y.shape[1]:
            raise ValueError(
                f"Y_test must have the {Y.shape[1]} voxels of Y, got shape {tuple(Y_test.shape)}."
            )
    return test


class Reading(NamedTuple):
    """What one pass over responses found: flat and broken (n_voxels,) bool, largest |value|, mean, deviation."""

    flat: Array
    broken: Array
    size: Array
    mean: Array
    spread: Array


def read_steps(
    Y: Any, tiles: Iterable[slice], name: str, *, skip_nan: bool, moments: bool = False
) -> Generator[None, None, Reading]:
    """Read responses once, a tile of voxels a step; `mean` and `spread` are 0 and 1 unless `moments`.

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
        yield
    if broken.any() and not skip_nan:
        raise ValueError(
            f"{name} must be finite, got {n_bad} NaN or infinite values in {broken.sum()} of {n_voxels} voxels, "
            f"first {_first(broken)}, and {bad_rows.sum()} rows, first {bad_rows.argmax()}: "
            f'clean them, or pass on_nan="skip" to leave those voxels out.'
        )
    return Reading(flat, broken, size, mean, spread)


def scan_steps(fit: Fit) -> Generator[None, None, Voxels]:
    """Read Y and Y_test, and say of each voxel whether and in what units it is fitted.

    Raises:
        ValueError: values that are not finite, where skipping them was not asked for, or that float32 cannot
            hold.
    """
    found = yield from read_steps(fit.Y, fit.tiles, "Y", skip_nan=fit.skip_nan, moments=fit.standardize_Y)
    broken, flat_test = found.broken, np.zeros(fit.Y.shape[1], bool)
    if fit.Y_test is not None:
        test = yield from read_steps(fit.Y_test, fit.tiles, "Y_test", skip_nan=fit.skip_nan)
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


class RowsOf:
    """Some rows of responses, read by columns."""

    def __init__(self, Y: Any, rows: Array) -> None:
        """Take the rows numbered `rows` of Y (all rows, n_voxels)."""
        self.Y, self.rows = Y, rows
        self.shape = (len(rows), Y.shape[1])

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        """All of these rows, in a slice of columns."""
        return np.asarray(self.Y[:, index[1]])[self.rows]
