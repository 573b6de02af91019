"""From features on TRs to the rows of a design matrix: FIR delays, trimming, z-scores.

Plain array functions. Rows are moments in time (TRs), columns are features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .. import _progress
from .._columns import Array, centred, slabs

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
    except (TypeError, ValueError, OverflowError):  # NaN, infinity, or not a number
        return False


# ---------------------------------------------------------------------- trimming


@dataclass(frozen=True)
class Trimming:
    """Which rows of features and of targets (BOLD) are used, as Python slices in TRs.

    A start or an end below 0 counts from the end; an end of None keeps all rows up to the last. Training and test
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
        """Refuse anything but whole numbers; numpy's become plain ones, which JSON can hold."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name.endswith("_end"):
                continue
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
                raise ValueError(f"Trimming: expected {field.name} as a whole number of TRs, got {value!r}.")
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

    def check(self, story: str, n_trs: int, n_rows: int, *, test: bool) -> int:
        """Rows of the story that remain, or a ValueError when none do or features and targets disagree."""
        features, targets = self.slices(test=test)
        n_features, n_targets = len(range(n_trs)[features]), len(range(n_rows)[targets])
        if n_features == n_targets > 0:
            return n_features
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
    # the grid of features starts 10 s before the sound and ends 10 s after the published, trimmed responses
    "lebel": Trimming(
        train_features_start=10,
        train_features_end=-5,
        test_features_start=50,
        test_features_end=-5,
        test_targets_start=40,
    ),
    # the length of the longest delay: the data set's first 10 volumes are discarded already, and speech starts at row 0
    "alice": Trimming(
        train_features_start=4, train_targets_start=4, test_features_start=4, test_targets_start=4
    ),
}


# ---------------------------------------------------------------------- slow waves


def slow_waves(n_rows: int, tr: float, period: float) -> Array:
    """Discrete cosines with periods of `period` seconds and longer, without the constant one.

    Wave k of n rows is cos(pi k (i + 1/2) / n), of period 2 n tr / k (the discrete cosine transform of type 2, as in
    SPM and nilearn).

    Parameters
    ----------
    n_rows : int
    tr, period : float, seconds

    Returns
    -------
    array, (n_rows, n_waves), orthonormal columns; none where even the slowest wave is faster

    Raises
    ------
    ValueError
        Numbers that are not above 0.
    """
    for name, value in (("n_rows", n_rows), ("tr", tr), ("period", period)):
        if not value > 0:
            raise ValueError(f"slow_waves: expected {name} above 0, got {value!r}.")
    # the small term keeps a wave whose period is `period` exactly in spite of rounding
    n_waves = min(int(2 * n_rows * tr / period + 1e-9), n_rows - 1)
    angles = np.pi / n_rows * np.outer(np.arange(n_rows) + 0.5, np.arange(1, n_waves + 1))
    return np.sqrt(2 / n_rows) * np.cos(angles)


def high_pass(X: Array, *, tr: float, period: float) -> Array:
    """Columns without their `slow_waves`; their means stay.

    Parameters
    ----------
    X : array, (n_rows, n_columns)
    tr : float, seconds
    period : float, seconds; 128 is usual for fMRI

    Returns
    -------
    array, (n_rows, n_columns), float32, or float64 of float64; a column with a value that is not finite becomes NaN

    Raises
    ------
    ValueError
        As `slow_waves`.
    """
    X = np.asarray(X)
    waves = slow_waves(len(X), tr, period)
    out = np.empty(X.shape, X.dtype if X.dtype == np.float64 else np.float32)
    for part in slabs(X.shape):
        values = X[:, part].astype(float)
        out[:, part] = values - waves @ (waves.T @ values)
    return out


def slow_share(X: Array, *, tr: float, period: float) -> Array:
    """Share of each column's variance in its `slow_waves`: (n_columns,), NaN where a column is constant."""
    about_mean, _, squares = centred(np.asarray(X, float))
    slow = np.square(slow_waves(len(X), tr, period).T @ about_mean).sum(axis=0)
    return slow / np.where(squares == 0, np.nan, squares)


# ---------------------------------------------------------------------- standardising


def standardize(X: Array, *, name: str = "standardize", quiet: bool = False) -> Array:
    """Each column with mean 0 and standard deviation 1 (of the population) over its rows.

    Parameters
    ----------
    X : array, (n_rows, n_columns)
    name : str
        Begins the warning, for example the name of the story.
    quiet : bool
        No warning about constant columns.

    Returns
    -------
    array, (n_rows, n_columns). A constant column becomes 0 and is counted in a warning; a column with a value that
    is not finite becomes NaN.

    Raises
    ------
    ValueError
        X of another shape, without rows, or not of numbers.
    """
    X = np.asarray(X)
    if X.ndim != 2 or len(X) == 0 or X.dtype.kind not in "biuf":
        raise ValueError(
            f"standardize: expected numbers as (n_rows, n_columns), got {X.dtype} of shape {X.shape}; a single column "
            f"is X[:, None]."
        )
    scores = np.empty(X.shape, X.dtype if X.dtype == np.float64 else np.float32)
    constant = np.empty(X.shape[1], dtype=bool)
    for part in slabs(X.shape):
        about_mean, _, squares = centred(X[:, part])
        constant[part] = squares == 0
        squares[squares == 0] = len(X)  # a deviation of 1, so that 0 stays 0
        np.divide(about_mean, np.sqrt(squares / len(X)), out=scores[:, part], casting="same_kind")
    if constant.any() and not quiet:
        _progress.warn(
            f"{name}: {int(constant.sum())} of {constant.size} columns have no variance and become 0.",
            stacklevel=2,
        )
    return scores
