"""Rows to train on and rows to score: cross-validation folds that respect time.

Neighbouring TRs resemble each other, so rows are held out in runs (chunks, contiguous fifths, whole stories),
never one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._columns import Array
from .._validation import check_choice, check_whole


class FoldError(ValueError):
    """Folds that are not possible; `argument` names the argument of `make_folds` to change."""

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
    gap: int = 0,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> list[Fold]:
    """Split rows into folds; each row is scored once, except for trimming and timeseries.

    Parameters
    ----------
    n_rows : int
        Number of rows (TRs, all stories stacked).
    folding_type : str
        ``chunked``: runs of `chunk_length` rows, assigned to the folds at random (`seed`).
        ``chunked_contiguous``: the same runs in order, so that a fold is one stretch of the recording.
        ``chunked_trimmed``: as ``chunked``; `trim_size` rows at both ends of every run are not scored.
        ``kfold``: `n_folds` contiguous stretches.
        ``kfold_trimmed``: the same; `trim_size` rows at both ends of a stretch are not scored.
        ``timeseries``: train on the past, score the stretch that follows (the first stretch is never scored).
        ``group``: whole groups are held out, balanced by rows.
    n_folds : int
    chunk_length : int
        Rows in a run; the last run of the recording, or of a group, may be shorter.
    trim_size : int
        Rows that a trimmed type leaves unscored at each end. They are in no training set of that fold.
    gap : int
        Rows before and after each held-out stretch that this fold does not train on either; only rows of the same
        group. Slow waves of BOLD and of features make rows similar that are tens of seconds apart.
    groups : array, (n_rows,), optional
        Label of each row's story. ``group`` needs it; the chunked types start a new run where the label changes; a gap
        ends there; the others ignore it.
    seed : int
        Random seed of the types that assign runs at random.

    Returns
    -------
    list of `n_folds` `Fold`, with sorted row numbers

    Raises
    ------
    FoldError
        Unknown folding type; numbers that are not whole or out of range, also rows in place of their number; too few
        rows, runs or groups for the folds; a fold with fewer than two rows to score; a gap that leaves a fold fewer
        than two rows to train on.
    """
    _check("folding_type", check_choice, folding_type, "folding_type", FOLDING_TYPES)
    if np.ndim(n_rows):
        raise FoldError(
            "n_rows",
            f"make_folds takes the number of rows, got rows of shape {np.shape(n_rows)}: pass len(X).",
        )
    given = {"n_rows": n_rows, "n_folds": n_folds, "chunk_length": chunk_length}
    given |= {"trim_size": trim_size, "gap": gap}
    least = {"n_folds": 2, "chunk_length": 1}
    for name, value in (given | {"seed": seed}).items():
        _check(name, check_whole, value, name, least=least.get(name, 0))
    if n_rows < 2 * n_folds:
        raise FoldError(
            "n_folds",
            f"{n_folds} folds need at least {2 * n_folds} rows, got {n_rows}: "
            "use fewer folds, more stories or less trimming.",
        )
    labels = check_groups(groups, n_rows)
    made = FOLDING_TYPES[folding_type](
        n_rows,
        int(n_folds),
        chunk_length=min(int(chunk_length), n_rows),
        trim_size=min(int(trim_size), n_rows),
        groups=labels,
        seed=int(seed),
    )
    if gap:
        made = [_with_gap(fold, min(int(gap), n_rows), labels, n_rows) for fold in made]
        fewest = min(len(fold.train) for fold in made)
        if fewest < 2:
            raise FoldError(
                "gap",
                f"A gap of {gap} rows on both sides of the held-out rows leaves a fold {fewest} of {n_rows} rows to "
                f"train on: use a shorter gap, fewer trimmed rows or a longer recording.",
            )
    shortest = min(len(fold.test) for fold in made)
    if shortest < 2:  # which have no correlation
        chunked, trimmed = folding_type.startswith("chunked"), folding_type.endswith("trimmed")
        if trimmed:
            advice = f"a trim_size ({trim_size}) well below half of a run, or fewer folds"
        else:
            advice = f"another chunk_length than {chunk_length}, or fewer folds" if chunked else "fewer folds"
        raise FoldError(
            "chunk_length" if chunked else "n_folds",
            f"{'Trimming leaves' if trimmed else 'This makes'} a fold with {shortest} rows to score, and a correlation "
            f"needs 2 or more: use {advice}.",
        )
    return made


def _with_gap(fold: Fold, gap: int, groups: Array | None, n_rows: int) -> Fold:
    """The fold without the training rows within `gap` rows of the rows that it leaves out, in the same group."""
    left_out = np.ones(n_rows, bool)
    left_out[fold.train] = False
    near = np.zeros(n_rows, bool)
    labels = np.zeros(n_rows) if groups is None else groups
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        counted = np.concatenate([[0], np.cumsum(left_out[rows])])
        here = np.arange(len(rows))
        near[rows] = counted[np.minimum(here + gap + 1, len(rows))] > counted[np.maximum(here - gap, 0)]
    return Fold(fold.train[~near[fold.train]], fold.test)


def _check(argument: str, check: Callable[..., Any], *args: Any, **options: Any) -> None:
    """A check of `_validation` whose error names the argument."""
    try:
        check(*args, **options)
    except ValueError as error:
        raise FoldError(argument, str(error)) from None


def check_groups(groups: ArrayLike | None, n_rows: int) -> Array | None:
    """Labels of rows as an array, or None; a FoldError where there is not one for each row."""
    labels = None if groups is None else np.asarray(groups)
    if labels is not None and labels.shape != (n_rows,):
        raise FoldError(
            "groups", f"groups must hold one label per row, shape ({n_rows},); got shape {labels.shape}."
        )
    return labels


def _from_labels(fold_of: Array, run_of: Array, trim_size: int) -> list[Fold]:
    """Folds from the fold number of each row; `trim_size` rows at both ends of each run are not scored."""
    rows = np.arange(len(run_of))
    first = np.searchsorted(run_of, run_of, side="left")
    last = np.searchsorted(run_of, run_of, side="right") - 1
    scored = (rows - first >= trim_size) & (last - rows >= trim_size)
    return [
        Fold(np.flatnonzero(fold_of != i), np.flatnonzero((fold_of == i) & scored))
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


def _chunked(
    n_rows: int,
    n_folds: int,
    *,
    shuffled: bool = True,
    trimmed: bool = False,
    chunk_length: int,
    trim_size: int,
    groups: Array | None,
    seed: int,
) -> list[Fold]:
    run_of = _runs(n_rows, chunk_length, groups)
    n_runs = run_of[-1] + 1
    if n_runs < n_folds:
        raise FoldError(
            "chunk_length",
            f"{n_rows} rows make {n_runs} chunks, too few for {n_folds} folds: "
            "use a smaller chunk_length, fewer folds or more rows.",
        )
    order = np.random.default_rng(seed).permutation(n_runs) if shuffled else np.arange(n_runs)
    fold_of_run = np.empty(n_runs, dtype=int)
    for number, runs in enumerate(np.array_split(order, n_folds)):
        fold_of_run[runs] = number
    return _from_labels(fold_of_run[run_of], run_of, trim_size if trimmed else 0)


def _kfold(n_rows: int, n_folds: int, *, trimmed: bool = False, trim_size: int, **_: Any) -> list[Fold]:
    sizes = [len(part) for part in np.array_split(np.arange(n_rows), n_folds)]
    fold_of = np.repeat(np.arange(n_folds), sizes)
    return _from_labels(fold_of, fold_of, trim_size if trimmed else 0)


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
    splits = GroupKFold(n_folds).split(np.empty((n_rows, 1)), groups=groups)
    return [Fold(train, test) for train, test in splits]


FOLDING_TYPES: dict[str, Callable[..., list[Fold]]] = {
    "chunked": _chunked,
    "chunked_contiguous": partial(_chunked, shuffled=False),
    "chunked_trimmed": partial(_chunked, trimmed=True),
    "kfold": _kfold,
    "kfold_trimmed": partial(_kfold, trimmed=True),
    "timeseries": _timeseries,
    "group": _group,
}


def check_folds(folds: Iterable[Any], n_rows: int) -> list[Fold]:
    """Given folds as integer arrays, or an error that names the fold.

    Parameters
    ----------
    folds : pairs of (train, test) row numbers
        In a list, or from a generator such as ``KFold(5).split(X)``.
    n_rows : int
        Number of all rows.

    Returns
    -------
    list of `Fold`

    Raises
    ------
    ValueError
        No folds, anything but pairs, row numbers outside 0..n_rows-1 or repeated, an empty training set, fewer than
        two rows to score, or a row that is both trained on and scored.
    """
    if not isinstance(folds, Iterable) or isinstance(folds, (str, bytes)):
        raise ValueError(
            f"folds must be pairs of (train, test) row numbers, got {folds!r}: use make_folds({n_rows}), or "
            "list(KFold(5).split(X)) of a splitter of scikit-learn."
        )
    given = list(folds)
    if len(given) == 0:
        raise ValueError("folds is empty: make some with make_folds(n_rows).")
    return [_checked(number, fold, n_rows) for number, fold in enumerate(given)]


def _checked(number: int, given: Any, n_rows: int) -> Fold:
    try:
        train, test = given
        fold = Fold(np.asarray(train), np.asarray(test))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Fold {number} must be a pair of (train, test) row numbers, got {given!r}."
        ) from error
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
        if n_twice := len(rows) - len(np.unique(rows)):
            raise ValueError(f"Fold {number}: {name} names {n_twice} rows twice.")
    if len(both := np.intersect1d(fold.train, fold.test)):
        raise ValueError(f"Fold {number} scores {len(both)} rows that it also trains on, first {both[0]}.")
    return fold
