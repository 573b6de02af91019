"""From features on TRs to the rows of a design matrix: FIR delays, trimming, z-scores.

Plain array functions. Rows are moments in time (TRs), columns are features.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

Array = np.ndarray


# ---------------------------------------------------------------------- delays


def add_delays(X: Array, delays: Sequence[int], *, circular: bool = False) -> Array:
    """Copies of `X` shifted in time, side by side: a finite impulse response model's columns.

    Parameters
    ----------
    X : array, (n_trs, n_features)
    delays : ints, TRs
        Row t of a copy holds row t - delay of `X`; a negative delay looks ahead.
    circular : bool
        Rows pushed out at one end come in at the other; otherwise 0 comes in.

    Returns
    -------
    array, (n_trs, len(delays) * n_features): all columns of the first delay, then all of the second, ...
    """
    X = np.asarray(X)
    if X.ndim != 2:
        raise ValueError(f"add_delays: expected X as (n_trs, n_features), got shape {X.shape}.")
    delays = list(delays) if np.iterable(delays) else [delays]
    if len(delays) == 0 or not all(_whole(delay) for delay in delays):
        raise ValueError(
            f"add_delays: expected one or more whole numbers of TRs, got {delays}; try [1, 2, 3, 4]."
        )
    n_trs, n_features = X.shape
    delayed = np.zeros((n_trs, len(delays), n_features), dtype=X.dtype)
    for column, delay in enumerate(int(delay) for delay in delays):
        if circular:
            delayed[:, column] = np.roll(X, delay, axis=0)
        elif delay >= 0:
            delayed[delay:, column] = X[: max(n_trs - delay, 0)]
        else:
            delayed[:delay, column] = X[-delay:]
    return delayed.reshape(n_trs, -1)


def _whole(value: Any) -> bool:
    try:
        return not isinstance(value, (bool, str)) and int(value) == value
    except (TypeError, ValueError, OverflowError):  # NaN, infinity, or no number
        return False


# ---------------------------------------------------------------------- trimming


@dataclass(frozen=True)
class Trimming:
    """Which rows of features and of targets (BOLD) are used, as Python slices in TRs.

    A start or an end below 0 counts from the last row; an end of None is the last row. Training and test
    stories have their own numbers; features and targets must come out with equally many rows.
    """

    train_features_start: int = 0
    train_features_end: int | None = None
    train_targets_start: int = 0
    train_targets_end: int | None = None
    test_features_start: int = 0
    test_features_end: int | None = None
    test_targets_start: int = 0
    test_targets_end: int | None = None

    def __post_init__(self) -> None:
        """Refuse anything but whole numbers; those of numpy become plain ones, which JSON can hold."""
        for field in fields(self):
            value = getattr(self, field.name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole and not (value is None and field.name.endswith("_end")):
                raise ValueError(f"Trimming: expected {field.name} as a whole number of TRs, got {value!r}.")
            if whole:
                object.__setattr__(self, field.name, int(value))

    def slices(self, *, test: bool) -> tuple[slice, slice]:
        """The slice of a story's features and the slice of its targets."""
        part = "test" if test else "train"
        return tuple(  # type: ignore[return-value]
            slice(getattr(self, f"{part}_{what}_start"), getattr(self, f"{part}_{what}_end"))
            for what in ("features", "targets")
        )

    def features(self, X: Array, *, test: bool) -> Array:
        """The rows of `X` (n_trs, ...) that are used."""
        return X[self.slices(test=test)[0]]

    def targets(self, Y: Any, *, test: bool) -> Array:
        """The rows of `Y` (n_rows, ...) that are used; read from a lazy array as one slice."""
        return Y[self.slices(test=test)[1]]

    def row_counts(self, n_trs: int, n_rows: int, *, test: bool) -> tuple[int, int]:
        """Rows left of `n_trs` rows of features and of `n_rows` rows of targets."""
        features, targets = self.slices(test=test)
        return len(range(*features.indices(n_trs))), len(range(*targets.indices(n_rows)))

    def check(self, story: str, n_trs: int, n_rows: int, *, test: bool) -> int:
        """Rows of the story that remain, or a ValueError when none do or features and targets disagree."""
        n_features, n_targets = self.row_counts(n_trs, n_rows, test=test)
        if n_features == n_targets > 0:
            return n_features
        features, targets = self.slices(test=test)
        problem = "leaves no rows" if 0 in (n_features, n_targets) else "leaves different numbers of rows"
        raise ValueError(
            f"{story} ({'test' if test else 'training'} story): trimming {problem}: features "
            f"{_text(features)} of {n_trs} TRs gives {n_features}, targets {_text(targets)} of {n_rows} rows "
            f"gives {n_targets}; features and targets must keep the same TRs."
        )


def _text(rows: slice) -> str:
    return f"[{rows.start}:{'' if rows.stop is None else rows.stop}]"


TRIMMINGS: dict[str, Trimming] = {
    "none": Trimming(),
    # features come on a grid from 10 s before the sound to 10 s after the published, trimmed responses
    "lebel": Trimming(
        train_features_start=10,
        train_features_end=-5,
        test_features_start=50,
        test_features_end=-5,
        test_targets_start=40,
    ),
    # one story is both; its first 20 s hold the scanner's onset and features whose delays reach before it
    "alice": Trimming(
        train_features_start=10, train_targets_start=10, test_features_start=10, test_targets_start=10
    ),
}


# ---------------------------------------------------------------------- standardising

STANDARDIZED_VALUES = 60_000


def constant_columns(X: Array) -> Array:
    """(n_columns,) bool: columns without variance, up to the rounding of their own numbers."""
    X = np.asarray(X)
    if len(X) == 0:
        return np.ones(X.shape[1:], dtype=bool)
    return np.ptp(X, axis=0) <= _rounding(X.dtype) * np.abs(X).max(axis=0)


def _rounding(dtype: np.dtype) -> float:
    """How far apart the values of a constant column may lie, in units of its largest."""
    return 8 * float(np.finfo(dtype if dtype.kind == "f" else np.float64).eps)


def standardize(X: Array, *, name: str = "standardize", quiet: bool = False) -> Array:
    """Each column with mean 0 and standard deviation 1 (of the population) over its rows.

    Parameters
    ----------
    X : array, (n_rows, n_columns)
    name : str
        Stands in the warning, for example the story.
    quiet : bool
        No warning, for a caller that reports `constant_columns` itself.

    Returns
    -------
    array, (n_rows, n_columns). A column without variance becomes 0 and is counted in a warning; a column
    with a value that is not finite becomes NaN.

    Raises
    ------
    ValueError
        X of another shape, or not of numbers.
    """
    X = np.asarray(X)
    if X.ndim != 2 or X.dtype.kind not in "biuf":
        raise ValueError(
            f"standardize: expected numbers as (n_rows, n_columns), got {X.dtype} of shape {X.shape}; a single column "
            f"is X[:, None]."
        )
    scores = np.empty(X.shape, X.dtype if X.dtype == np.float64 else np.float32)
    constant = np.empty(X.shape[1], dtype=bool)
    # Some columns at a time: asking the system for float64 copies of a whole cortex takes longer than the sums.
    width = max(1, STANDARDIZED_VALUES // max(1, len(X)))
    rounding = _rounding(X.dtype)
    for part in (slice(start, start + width) for start in range(0, X.shape[1], width)):
        columns = X[:, part]
        mean = columns.mean(axis=0, dtype=np.float64)
        about_mean = columns - mean
        spread = np.sqrt(np.einsum("ij,ij->j", about_mean, about_mean) / len(X))
        # What spreads far beyond the rounding of its mean varies; only the others are looked at value by value.
        doubtful = np.flatnonzero(~(spread > max(2 * rounding, 1e-10) * np.abs(mean)))
        flat = np.zeros(len(mean), dtype=bool)
        flat[doubtful] = constant_columns(columns[:, doubtful])
        spread[flat] = 1.0
        about_mean[:, flat] = 0.0
        np.divide(about_mean, spread, out=scores[:, part], casting="same_kind")
        constant[part] = flat
    if constant.any() and not quiet:
        warnings.warn(
            f"{name}: {int(constant.sum())} of {constant.size} columns have no variance and become 0.",
            stacklevel=2,
        )
    return scores
