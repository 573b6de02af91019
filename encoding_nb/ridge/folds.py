"""Rows to train on and rows to score: cross-validation folds that respect time.

Neighbouring TRs resemble each other, so rows are held out in runs (chunks, contiguous fifths, whole stories),
never one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[Any]


class FoldError(ValueError):
    """Folds that cannot be; `argument` names the argument of `make_folds` that stands against them."""

    def __init__(self, argument: str, message: str) -> None:
        super().__init__(message)
        self.argument = argument


class Fold(NamedTuple):
    """Row numbers to train on and row numbers to score, both 1-D integer arrays."""

    train: Array
    test: Array


def make_folds(
    n_rows: int,
    *,
    folding_type: str = "chunked",
    n_folds: int = 5,
    chunk_length: int = 20,
    trim_size: int = 5,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> list[Fold]:
    """Split rows into folds that each row takes part in: scored once, but for trimming and timeseries.

    Args:
        n_rows: number of rows (TRs, all stories stacked).
        folding_type: one of
            "chunked": runs of `chunk_length` rows, dealt to the folds at random (`seed`);
            "chunked_contiguous": the same runs in order, so that a fold is one stretch of the recording;
            "chunked_trimmed": as "chunked"; `trim_size` rows at both ends of every run are not scored;
            "kfold": `n_folds` contiguous stretches;
            "kfold_trimmed": the same; `trim_size` rows at both ends of a stretch are not scored;
            "timeseries": train on the past, score the stretch that follows (the first stretch is never
                scored);
            "group": whole groups are held out, balanced by rows.
        n_folds: number of folds.
        chunk_length: rows in a run; the last run of the recording, or of a group, may be shorter.
        trim_size: rows that a trimmed type leaves unscored at each end. They are in no training set of that
            fold.
        groups: (n_rows,) label of each row's story. Needed by "group"; the chunked types, if given it, start
            a new run where the label changes; the others ignore it.
        seed: random state of the types that deal at random.

    Returns:
        `n_folds` folds with sorted row numbers.

    Raises:
        FoldError: unknown folding type; numbers that are not whole or out of range, also rows themselves where
            their number is meant; too few rows, runs or groups for the folds; a fold with fewer than two rows to
            score.
    """
    if not isinstance(folding_type, str) or folding_type not in FOLDING_TYPES:
        raise FoldError(
            "folding_type", f"folding_type must be one of {', '.join(FOLDING_TYPES)}; got {folding_type!r}."
        )
    if np.ndim(n_rows):
        raise FoldError(
            "n_rows",
            f"make_folds takes the number of rows, got rows of shape {np.shape(n_rows)}: pass len(X).",
        )
    _refuse_numbers(
        (
            ("n_rows", n_rows, 0),
            ("n_folds", n_folds, 2),
            ("chunk_length", chunk_length, 1),
            ("trim_size", trim_size, 0),
            ("seed", seed, 0),
        )
    )
    if n_rows < 2 * n_folds:
        raise FoldError(
            "n_folds",
            f"{n_folds} folds need at least {2 * n_folds} rows, got {n_rows}: "
            "use fewer folds, more stories or less trimming.",
        )
    labels = None if groups is None else np.asarray(groups)
    if labels is not None and labels.shape != (n_rows,):
        raise FoldError(
            "groups", f"groups must hold one label per row, shape ({n_rows},); got shape {labels.shape}."
        )
    made = FOLDING_TYPES[folding_type](
        n_rows,
        int(n_folds),
        chunk_length=min(int(chunk_length), n_rows),
        trim_size=min(int(trim_size), n_rows),
        groups=labels,
        seed=int(seed),
    )
    return _refuse_short(made, folding_type, chunk_length, trim_size)


def _refuse_numbers(given: Iterable[tuple[str, Any, int]]) -> None:
    for name, value, least in given:
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if not whole or value < least:
            raise FoldError(name, f"{name} must be {least} or more and a whole number, got {value!r}.")


def _refuse_short(made: list[Fold], folding_type: str, chunk_length: int, trim_size: int) -> list[Fold]:
    """The folds, if each has at least two rows to score: fewer have no correlation."""
    shortest = min(len(fold.test) for fold in made)
    if shortest >= 2:
        return made
    argument, advice = {
        "chunked": ("chunk_length", f"use another chunk_length than {chunk_length}, or fewer folds"),
        "chunked_contiguous": (
            "chunk_length",
            f"use another chunk_length than {chunk_length}, or fewer folds",
        ),
        "chunked_trimmed": (
            "chunk_length",
            f"use a trim_size ({trim_size}) well below half of chunk_length ({chunk_length})",
        ),
        "kfold_trimmed": (
            "n_folds",
            f"use fewer folds, or a trim_size ({trim_size}) well below half of a fold",
        ),
    }.get(folding_type, ("n_folds", "use fewer folds"))
    what = "Trimming leaves a fold with" if folding_type.endswith("trimmed") else "A fold would have"
    raise FoldError(
        argument, f"{what} {shortest} rows to score, and a correlation needs 2 or more: {advice}."
    )


def _from_labels(fold_of: Array, scored: Array | None = None) -> list[Fold]:
    """Folds from the fold number of each row; `scored` marks the rows that count when they are held out."""
    keep = np.ones(len(fold_of), dtype=bool) if scored is None else scored
    return [
        Fold(np.flatnonzero(fold_of != i), np.flatnonzero((fold_of == i) & keep))
        for i in range(fold_of.max() + 1)
    ]


def _runs(n_rows: int, chunk_length: int, groups: Array | None) -> Array:
    """Number of the run that each row belongs to: (n_rows,), rising from 0."""
    rows = np.arange(n_rows)
    if groups is None:
        return rows // chunk_length
    is_first = np.r_[True, groups[1:] != groups[:-1]]
    since = rows - np.maximum.accumulate(np.where(is_first, rows, 0))
    return np.cumsum(since % chunk_length == 0) - 1


def _inside(run_of: Array, trim_size: int) -> Array:
    """Which rows stand at least `trim_size` rows from both ends of their run: (n_rows,) bool."""
    rows = np.arange(len(run_of))
    first = np.searchsorted(run_of, run_of, side="left")
    last = np.searchsorted(run_of, run_of, side="right") - 1
    return (rows - first >= trim_size) & (last - rows >= trim_size)


def _deal(run_of: Array, n_folds: int, order: Array) -> Array:
    """Fold number of each row when the runs, in the given order, go to the folds in near-equal parts."""
    if len(order) < n_folds:
        raise FoldError(
            "chunk_length",
            f"{len(run_of)} rows make {len(order)} chunks, too few for {n_folds} folds: "
            "use a smaller chunk_length, fewer folds or more rows.",
        )
    fold_of_run = np.empty(len(order), dtype=int)
    for number, runs in enumerate(np.array_split(order, n_folds)):
        fold_of_run[runs] = number
    return fold_of_run[run_of]


def _chunked(n_rows: int, n_folds: int, *, chunk_length: int, groups: Array | None, seed: int, **_: Any):
    run_of = _runs(n_rows, chunk_length, groups)
    return _from_labels(_deal(run_of, n_folds, np.random.default_rng(seed).permutation(run_of[-1] + 1)))


def _chunked_contiguous(n_rows: int, n_folds: int, *, chunk_length: int, groups: Array | None, **_: Any):
    run_of = _runs(n_rows, chunk_length, groups)
    return _from_labels(_deal(run_of, n_folds, np.arange(run_of[-1] + 1)))


def _chunked_trimmed(
    n_rows: int, n_folds: int, *, chunk_length: int, trim_size: int, groups: Array | None, seed: int, **_: Any
):
    run_of = _runs(n_rows, chunk_length, groups)
    fold_of = _deal(run_of, n_folds, np.random.default_rng(seed).permutation(run_of[-1] + 1))
    return _from_labels(fold_of, _inside(run_of, trim_size))


def _stretches(n_rows: int, n_folds: int) -> Array:
    """Fold number of each row for contiguous stretches that differ by at most one row."""
    return np.repeat(np.arange(n_folds), [len(part) for part in np.array_split(np.arange(n_rows), n_folds)])


def _kfold(n_rows: int, n_folds: int, **_: Any) -> list[Fold]:
    return _from_labels(_stretches(n_rows, n_folds))


def _kfold_trimmed(n_rows: int, n_folds: int, *, trim_size: int, **_: Any) -> list[Fold]:
    fold_of = _stretches(n_rows, n_folds)
    return _from_labels(fold_of, _inside(fold_of, trim_size))


def _timeseries(n_rows: int, n_folds: int, **_: Any) -> list[Fold]:
    from sklearn.model_selection import TimeSeriesSplit

    return [Fold(train, test) for train, test in TimeSeriesSplit(n_folds).split(np.empty((n_rows, 1)))]


def _group(n_rows: int, n_folds: int, *, groups: Array | None, **_: Any) -> list[Fold]:
    from sklearn.model_selection import GroupKFold

    if groups is None:
        raise FoldError("groups", 'folding_type="group" needs groups, the story of each row.')
    n_groups = len(np.unique(groups))
    if n_groups < n_folds:
        most = f"at most {n_groups} folds" if n_groups > 1 else "more stories, or another folding_type"
        raise FoldError("n_folds", f"{n_groups} groups are too few for {n_folds} folds: use {most}.")
    return [
        Fold(train, test) for train, test in GroupKFold(n_folds).split(np.empty((n_rows, 1)), groups=groups)
    ]


FOLDING_TYPES: dict[str, Callable[..., list[Fold]]] = {
    "chunked": _chunked,
    "chunked_contiguous": _chunked_contiguous,
    "chunked_trimmed": _chunked_trimmed,
    "kfold": _kfold,
    "kfold_trimmed": _kfold_trimmed,
    "timeseries": _timeseries,
    "group": _group,
}


def check_folds(folds: Iterable[Any], n_rows: int) -> list[Fold]:
    """Given folds as integer arrays, or an error that names the fold.

    Args:
        folds: pairs of (train, test) row numbers, in a list or from a generator such as
            `KFold(5).split(X)`.
        n_rows: rows that there are.

    Raises:
        ValueError: no folds, something else than pairs, row numbers outside 0..n_rows-1 or repeated, an empty
            training set, fewer than two rows to score, or a row that is both trained on and scored.
    """
    if not isinstance(folds, Iterable) or isinstance(folds, (str, bytes)):
        raise ValueError(
            f"folds must be pairs of (train, test) row numbers, got {folds!r}: use make_folds({n_rows}), or "
            "list(KFold(5).split(X)) of a splitter of scikit-learn."
        )
    given = list(folds)
    if len(given) == 0:
        raise ValueError("folds is empty: make some with make_folds(n_rows).")
    return [_checked(number, _pair(number, fold), n_rows) for number, fold in enumerate(given)]


def _pair(number: int, fold: Any) -> Fold:
    try:
        train, test = fold
        return Fold(np.asarray(train), np.asarray(test))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Fold {number} must be a pair of (train, test) row numbers, got {fold!r}."
        ) from error


def _checked(number: int, fold: Fold, n_rows: int) -> Fold:
    for name, rows, least in (("train", fold.train, 1), ("test", fold.test, 2)):
        if rows.ndim != 1 or len(rows) < least or not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(
                f"Fold {number}: {name} must be a 1-D array of at least {least} row numbers, "
                f"got shape {rows.shape} of {rows.dtype}."
            )
        if rows.min() < 0 or rows.max() >= n_rows:
            raise ValueError(
                f"Fold {number}: {name} rows must be within 0..{n_rows - 1} (X has {n_rows} rows), "
                f"got {rows.min()}..{rows.max()}: make the folds for these rows, after trimming."
            )
        if len(np.unique(rows)) < len(rows):
            raise ValueError(f"Fold {number}: {name} names {len(rows) - len(np.unique(rows))} rows twice.")
    if len(both := np.intersect1d(fold.train, fold.test)):
        raise ValueError(f"Fold {number} scores {len(both)} rows that it also trains on, first {both[0]}.")
    return fold
