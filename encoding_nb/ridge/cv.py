"""Ridge regression with alphas chosen by cross-validation, plain and nested.

An alpha is the penalty alpha * ||w||^2 next to the sum of squared errors, as scikit-learn counts it. The alpha of the
Huth lab and of LITcoder is its square root: see `huth_alphas`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from inspect import signature
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _machine
from .._columns import Array, constant_columns, mean_of_defined, moments, slices
from .._files import new_file
from .._progress import Count, ignore
from .._validation import check_choice, check_whole, describe
from . import _arrays, _solvers
from ._fit import RidgeResult, solve, weights_array
from ._problem import Fit, read_responses, tile_width, workers_for
from .folds import Fold, check_folds, check_groups, make_folds


def check_options(
    on_nan: str = "raise",
    dtype: Any = np.float32,
    prediction_floor: float = 0.0,
    tile: int | None = None,
    **_: Any,
) -> None:
    """Refuse invalid options; the others of `ridge_cv` are checked where they are used."""
    check_choice(on_nan, "on_nan", ("raise", "skip"))
    if np.dtype(dtype) not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype must be float32 or float64, got {np.dtype(dtype)}.")
    if not (isinstance(prediction_floor, Real) and prediction_floor >= 0):
        raise ValueError(f"prediction_floor must be 0 or more, got {prediction_floor!r}.")
    if tile is not None:
        check_whole(tile, "tile", least=1)


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
    """Features (n_rows, n_columns) float64 and finite; else a ValueError that counts and locates the others."""
    array = _as_numbers(X, name)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be (rows, columns), one or more of each, got shape {array.shape}.")
    bad = ~np.isfinite(array)
    if bad.any():
        columns, rows = np.flatnonzero(bad.any(axis=0)), np.flatnonzero(bad.any(axis=1))
        raise ValueError(
            f"{name} must be finite, got {bad.sum()} NaN or infinite values in {len(columns)} of {array.shape[1]} "
            f"columns (first {columns[0]}) and {len(rows)} rows (first {rows[0]}): look at the features of that "
            "row's story."
        )
    return array


def check_responses(X: Array, Y: Any, x_name: str, y_name: str) -> None:
    """Refuse responses that are not numbers by rows and voxels, or whose rows are not those of the features."""
    expected = f"{y_name} must be an array (rows, voxels) of numbers"
    if hasattr(Y, "iloc"):  # a table gives columns by name, not by number
        raise ValueError(f"{expected}, got a table: pass {y_name}.to_numpy().")
    shape = tuple(getattr(Y, "shape", ()))
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{expected}, got {describe(Y)} of shape {shape}.")
    if getattr(getattr(Y, "dtype", None), "kind", "f") not in "biuf":
        raise ValueError(f"{expected}, got dtype {Y.dtype}: try {y_name}.astype(np.float32).")
    if len(X) != shape[0]:
        raise ValueError(
            f"{x_name} and {y_name} must have the same rows, got {x_name} {X.shape} and {y_name} {shape}: "
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
            raise ValueError(f"Y_test must have the {Y.shape[1]} voxels of Y, got shape {Y_test.shape}.")
    return test


def ridge_cv(
    X: ArrayLike,
    Y: Any,
    *,
    alphas: ArrayLike,
    folds: Iterable[Any],
    X_test: ArrayLike | None = None,
    Y_test: Any = None,
    single_alpha: bool = False,
    use_corr: bool = True,
    normalpha: bool = False,
    prediction_floor: float = 0.0,
    standardize_X: bool = False,
    standardize_Y: bool = False,
    return_weights: bool = False,
    weights_path: str | Path | None = None,
    weights_memory: int | None = None,
    return_predictions: bool = True,
    return_all_scores: bool = False,
    on_nan: str = "raise",
    tile: int | None = None,
    dtype: Any = np.float32,
    device: str = "cpu",
    progress: Count | None = None,
) -> RidgeResult:
    """Choose alphas by cross-validation, refit on all rows, predict the test rows.

    The model has no intercept: X and Y should have mean 0, as z-scored stories have, or set `standardize_X` and
    `standardize_Y`.

    Parameters
    ----------
    X : array, (n_rows, n_columns)
        Features, one row per TR.
    Y : array, (n_rows, n_voxels)
        Responses; anything with `.shape` and `[:, start:stop]` (array, memmap, h5py data set).
    alphas : array, (n_alphas,)
        Positive, in scikit-learn's convention (`huth_alphas` converts LITcoder's).
    folds : pairs of row numbers
        Inner folds, from `make_folds` or your own, also from a generator. The refit uses all rows, also those that are
        in no fold.
    X_test : array, (n_test_rows, n_columns), optional
        Rows to predict with the refit.
    Y_test : array, (n_test_rows, n_voxels), optional
        Responses to correlate the predictions with.
    single_alpha : bool
        One alpha for all voxels, by the mean score over voxels.
    use_corr : bool
        Select by correlation; False selects by R2.
    normalpha : bool
        Alphas are in units of the largest eigenvalue of X'X over the rows that are fitted: each fold's training
        rows, then all rows. With `alphas=huth_alphas(a)` this is LITcoder's `normalpha`.
    prediction_floor : float
        Added to the standard deviation of held-out predictions when alphas are compared by correlation, in units of Y
        as it is fitted. 0 is the plain correlation; with 1e-8, LITcoder's value, an alpha so large that predictions
        vanish scores 0 instead of the correlation of a vanishing signal.
    standardize_X, standardize_Y : bool
        z-score by mean and standard deviation of the rows of X and Y, the test rows by the same numbers. Predictions
        are in the units of Y, weights in those of z-scored values.
    return_weights : bool
        Keep the refit's weights.
    weights_path : path, optional
        Write the weights to this .npy file and return them as a memory map.
    weights_memory : int, bytes, optional
        Largest weights to hold in memory; larger ones become a memory map of a temporary file, and the result says
        so. None: half of the free memory.
    return_predictions : bool
        False keeps only the correlations.
    return_all_scores : bool
        Keep the scores of every alpha.
    on_nan : "raise" or "skip"
        Refuse voxels with NaN or infinite values in Y or Y_test, or leave them out, scored NaN.
    tile : int, voxels, optional
        Voxels that are read and scored together; None for tiles of up to about 64 MB. On the CPU, as many tiles are
        worked on at once as BLAS may use threads, with BLAS at one thread in the whole process meanwhile.
    dtype : float32 or float64
        Type of the products with Y.
    device : "cpu" or "cuda"
        Where products and inverses are computed; "cuda" uses torch.
    progress : function, optional
        Called with (done, total) after each step, in units that take about equal times, in the caller's thread. An
        exception from it, such as `Cancelled`, ends the fit and reaches the caller.

    Returns
    -------
    RidgeResult. Scores are means over the folds in which the voxel varies. Among alphas that tie within rounding, the
    largest is chosen.

    Raises
    ------
    ValueError
        Before any fitting, where shapes, folds, alphas or options do not fit together, values are not finite or beyond
        float32, or weights fit neither into memory nor onto the disk.
    """
    check_options(on_nan, dtype, prediction_floor, tile)
    X = check_features(X, "X")
    check_responses(X, Y, "X", "Y")
    test = check_test(X, Y, X_test, Y_test)
    if standardize_X:
        mean, spread = moments(X)
        X, test = (X - mean) / spread, None if test is None else (test - mean) / spread
    n_workers = workers_for(*Y.shape) if device == "cpu" else 1
    fit = Fit(
        X=X,
        Y=Y,
        X_test=test,
        Y_test=Y_test,
        alphas=check_alphas(alphas),
        rows=[_solvers.fold_rows(*fold, len(X)) for fold in check_folds(folds, len(X))],
        single_alpha=single_alpha,
        use_corr=use_corr,
        normalpha=normalpha,
        prediction_floor=prediction_floor,
        skip_nan=on_nan == "skip",
        standardize_Y=standardize_Y,
        dtype=np.dtype(dtype),
        xp=_arrays.arrays_on(device),
        tile=tile or tile_width(Y.shape[0], Y.shape[1], n_workers),
        n_workers=n_workers,
    )
    results = partial(
        solve, fit, predictions=return_predictions, all_scores=return_all_scores, progress=progress or ignore
    )
    shape = (X.shape[1], Y.shape[1])
    if weights_path is None:
        return results(weights=weights_array(shape, fit.dtype, weights_memory) if return_weights else None)
    with new_file(Path(weights_path)) as draft:
        weights = np.lib.format.open_memmap(draft, mode="w+", dtype=fit.dtype, shape=shape)
        with open(draft, "r+b") as file:
            _machine.reserve(file.fileno(), draft.stat().st_size)
        found = results(weights=weights)
        weights.flush()
    return replace(found, weights=np.load(weights_path, mmap_mode="r"))


def huth_alphas(a: ArrayLike, *, largest_singular_value: float = 1.0) -> Array:
    """Alphas in this package's convention from those of LITcoder and the Huth lab.

    Their ridge damps singular values by S / (S^2 + a^2) where scikit-learn has S / (S^2 + alpha), so alpha = a^2; with
    their `normalpha`, alpha = (a * S_max)^2. Their normalpha takes S_max of each fold's training rows: for the same,
    leave `largest_singular_value` at 1 and pass `normalpha=True` to `ridge_cv`.
    """
    return (np.asarray(a, dtype=float) * largest_singular_value) ** 2


# ---------------------------------------------------------------------- nested cross-validation

# Options that nested cross-validation sets for each fit, or that have no place in its result.
ONE_FIT_OPTIONS = {"X_test", "Y_test", "folds", "weights_path", "return_all_scores"}
# Voxel numbers of a result that are collected from the fits of all outer folds.
VOXEL_LISTS = ("constant_voxels", "skipped_voxels", "unscored_voxels", "constant_test_voxels")


@dataclass(frozen=True)
class NestedResult:
    """Result of `nested_cv`. Entries by voxel are in the order of Y's columns.

    Attributes
    ----------
    predictions : (n_rows, n_voxels), of each row from the fold that held it out, in the units of Y (see `restore`); NaN
        in rows that no fold scores; None where they were not wanted
    correlations : (n_voxels,), mean over the outer folds in which the voxel varies
    fold_correlations : (n_outer_folds, n_voxels)
    fold_alphas : (n_outer_folds, n_voxels), chosen alphas
    weights : (n_columns, n_voxels), mean over the outer folds, or None; a memory map where memory is short
    folds : the outer folds
    constant_voxels : numbers of voxels that are constant over the training rows of some outer fold
    skipped_voxels : numbers of voxels with NaN or infinite values that were left out
    unscored_voxels : numbers of voxels that no inner fold of some outer fold could score
    constant_test_voxels : numbers of voxels that are constant over the held-out rows of some outer fold
    constant_columns : numbers of the columns of X that are constant
    """

    predictions: Array | None = field(repr=False)
    correlations: Array
    fold_correlations: Array = field(repr=False)
    fold_alphas: Array = field(repr=False)
    weights: Array | None = field(repr=False)
    folds: tuple[Fold, ...] = field(repr=False)
    constant_voxels: Array
    skipped_voxels: Array
    unscored_voxels: Array
    constant_test_voxels: Array
    constant_columns: Array


class RowsOf:
    """Some rows of responses, read by columns; z-scored by an outer fold's training rows where `parts` are given."""

    def __init__(self, Y: Any, rows: Array, parts: Sequence[Part] | None = None) -> None:
        """Take the rows numbered `rows` of Y (all rows, n_voxels)."""
        self.Y, self.rows, self.parts = Y, rows, parts
        self.shape = (len(rows), Y.shape[1])

    def __getitem__(self, index: tuple[slice, slice]) -> Array:
        """All of these rows, in a slice of columns."""
        block = np.asarray(self.Y[:, index[1]])
        return block[self.rows] if self.parts is None else z_scored(block, self.parts)[self.rows]


class Part(NamedTuple):
    """The rows of one group, and those of them whose mean and standard deviation z-score them all."""

    rows: Array
    measured: Array


LEAST_OWN = 20  # rows; the deviation of a few rows of BOLD, which are similar, is far too small


def fold_parts(train: Array, n_rows: int, groups: Array | None = None) -> list[Part]:
    """By what rows an outer fold z-scores: each group by the rows of it that the fold trains on.

    A group of which the fold trains on fewer than 20 rows is z-scored by all of its own rows, as a held-out story is;
    a single group always by the rows that the fold trains on.
    """
    is_train = np.zeros(n_rows, bool)
    is_train[train] = True
    labels = np.zeros(n_rows, int) if groups is None else groups
    parts = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        own = rows[is_train[rows]]
        enough = len(own) >= LEAST_OWN or (len(rows) == n_rows and len(own))
        parts.append(Part(rows, own if enough else rows))
    return parts


def z_scored(values: Array, parts: Sequence[Part], *, scale: bool = True) -> Array:
    """Values (n_rows, n_columns) z-scored part by part, or without `scale` centred.

    A column that is constant over `measured` rows becomes 0 when it is scaled.
    """
    out = np.empty(values.shape, np.promote_types(values.dtype, np.float32))
    for part in parts:
        mean, spread = moments(values[part.measured])
        out[part.rows] = (values[part.rows] - mean) / (spread if scale else 1.0)
    return out


def _restored(values: Array, Y: Array, rows: Array, parts: Sequence[Part]) -> Array:
    """Predictions (len(rows), n_columns) of z-scored responses, in the units of Y (all rows, n_columns)."""
    out = np.empty_like(values)
    place = np.full(len(Y), -1)
    place[rows] = np.arange(len(rows))
    for part in parts:
        here = place[part.rows]
        here = here[here >= 0]
        mean, spread = moments(Y[part.measured])
        out[here] = values[here] * np.where(np.isinf(spread), 0.0, spread) + mean
    return out


def nested_cv(
    X: ArrayLike,
    Y: Any,
    *,
    alphas: ArrayLike,
    outer_folds: Iterable[Any],
    inner_folds: Callable[[Array], Iterable[Any]] | Sequence[Iterable[Any]] | None = None,
    folding_type: str = "chunked",
    n_inner_folds: int = 5,
    chunk_length: int = 20,
    trim_size: int = 5,
    groups: ArrayLike | None = None,
    seed: int = 0,
    restore: bool = True,
    progress: Count | None = None,
    **options: Any,
) -> NestedResult:
    """Predict every row from a fit that has not seen its outer fold; alphas by inner folds.

    Parameters
    ----------
    X : array, (n_rows, n_columns)
        Features.
    Y : array, (n_rows, n_voxels)
        Responses, also a memory map or HDF5 data set.
    alphas : array, (n_alphas,)
        As for `ridge_cv`.
    outer_folds : pairs of row numbers
        Hold out stories with `make_folds(..., folding_type="group")`.
    inner_folds : function, list of folds or None
        Folds of positions in the (n_train,) row numbers that an outer fold trains on: a function from these numbers to
        the folds, or a list with the folds of each outer fold; None makes them with the following options, which are
        those of `make_folds`.
    folding_type, n_inner_folds, chunk_length, trim_size, seed
        Of the inner folds.
    groups : array, (n_rows,), optional
        Story of each row, for the inner folds and for z-scoring.
    restore : bool
        Predictions are in the units of Y; False leaves them in those of z-scored responses, with `standardize_Y`.
    progress : function, optional
        Called with (done, total) after each step, as by `ridge_cv`.
    options
        Any of `ridge_cv` except those of a single fit (X_test, Y_test, folds, weights_path, return_all_scores).
        `standardize_X` and `standardize_Y` use each outer fold's training rows, of each group by itself; a group of
        which a fold trains on fewer than 20 rows is z-scored by all of its own rows. `standardize_X="center"` only
        subtracts the means: a column that varies in held-out rows alone would be blown up by its small deviation in
        the training rows.

    Returns
    -------
    NestedResult

    Raises
    ------
    ValueError
        As `ridge_cv`, before any fitting, for options of a single fit, and for a list of inner folds whose length is
        not that of `outer_folds`; messages about inner folds count rows of the outer fold's training set.
    """
    if refused := sorted(ONE_FIT_OPTIONS & set(options)):
        raise ValueError(
            f"nested_cv fits once for each outer fold, so it does not take {', '.join(refused)}: "
            "leave it out, or call ridge_cv for one fit."
        )
    # All that the first fit would refuse, before Y is read.
    signature(ridge_cv).bind_partial(**options)  # a TypeError for an option that it does not have
    check_options(**options)
    check_alphas(alphas)
    _arrays.arrays_on(options.get("device", "cpu"))
    X = check_features(X, "X")
    check_responses(X, Y, "X", "Y")
    outer = check_folds(outer_folds, len(X))
    labels = check_groups(groups, len(X))
    if inner_folds is None:
        inner = [
            make_folds(
                len(fold.train),
                folding_type=folding_type,
                n_folds=n_inner_folds,
                chunk_length=chunk_length,
                trim_size=trim_size,
                groups=None if labels is None else labels[fold.train],
                seed=seed,
            )
            for fold in outer
        ]
    elif callable(inner_folds):
        inner = [inner_folds(fold.train) for fold in outer]
    else:
        inner = list(inner_folds) if np.iterable(inner_folds) and not isinstance(inner_folds, str) else None
        if inner is None or len(inner) != len(outer):
            got = repr(inner_folds) if inner is None else f"a list of {len(inner)}"
            raise ValueError(
                f"inner_folds must hold one list of folds for each of the {len(outer)} outer folds, got {got}: pass "
                "such a list, a function from an outer fold's training rows to its inner folds, or None."
            )
    fits = [(fold, check_folds(folds, len(fold.train))) for fold, folds in zip(outer, inner, strict=True)]
    return _nested(X, Y, fits, labels, restore, {"alphas": alphas, **options}, progress or ignore)


def _nested(
    X: Array,
    Y: Any,
    fits: list[tuple[Fold, list[Fold]]],
    groups: Array | None,
    restore: bool,
    options: dict[str, Any],
    progress: Count,
) -> NestedResult:
    z_score_X = options.pop("standardize_X", False)
    z_score_Y = options.pop("standardize_Y", False)
    tiles = list(slices(Y.shape[1], tile_width(*Y.shape)))
    # All rows first: values in the rows that a later fold trains on must not end the work half way.
    read_responses(Y, tiles, "Y", lambda _: progress(0, 1), skip_nan=options.get("on_nan") == "skip")
    dtype = np.dtype(options.get("dtype", np.float32))
    predictions = np.full(Y.shape, np.nan, dtype) if options.get("return_predictions", True) else None
    weights = None
    if options.get("return_weights"):
        weights = weights_array((X.shape[1], Y.shape[1]), dtype, options.get("weights_memory"))
        weights[:] = 0
    results = []
    for number, (fold, inner) in enumerate(fits):

        def tell(done: float, total: float, number: int = number) -> None:
            progress(number * total + done, len(fits) * total)

        parts = fold_parts(fold.train, len(X), groups)
        in_Y = parts if z_score_Y else None
        features = z_scored(X, parts, scale=z_score_X != "center") if z_score_X else X
        result = ridge_cv(
            features[fold.train],
            RowsOf(Y, fold.train, in_Y),
            X_test=features[fold.test],
            Y_test=RowsOf(Y, fold.test, in_Y),
            folds=inner,
            progress=tell,
            **options,
        )
        for tile in tiles:
            if predictions is not None:
                found = result.predictions[:, tile]
                if z_score_Y and restore:
                    found = _restored(found, np.asarray(Y[:, tile]), fold.test, parts)
                predictions[fold.test, tile] = found
            if weights is not None:
                weights[:, tile] += result.weights[:, tile] / len(fits)
        results.append(replace(result, weights=None, predictions=None))
    correlations = np.stack([result.correlations for result in results])
    return NestedResult(
        predictions=predictions,
        correlations=mean_of_defined(correlations),
        fold_correlations=correlations,
        fold_alphas=np.stack([result.best_alphas for result in results]),
        weights=weights,
        folds=tuple(fold for fold, _ in fits),
        constant_columns=np.flatnonzero(constant_columns(X)),
        **{
            name: np.unique(np.concatenate([getattr(result, name) for result in results]))
            for name in VOXEL_LISTS
        },
    )
