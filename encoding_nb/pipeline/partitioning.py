"""Variance partitioning: what each feature space explains, by banded ridge.

Banded ridge gives every feature space its own penalty, so that a space of hundreds of columns does not dominate
one of four (Nunez-Elizalde, Huth and Gallant 2019, NeuroImage 197:482). Held-out rows answer two questions. How much
of the joint R2 is due to each space: the product measure, whose shares sum to the joint R2 (Pratt 1987; Dupre la Tour
et al. 2022, NeuroImage 264:119728). And what does a space explain that no other space does: joint R2 minus the R2 of
a model without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from .. import _progress, ridge, scoring
from .._columns import dot, mean_of_defined, slices
from .._progress import Count, ignore
from .._validation import check_whole
from ..assembly import Array, Assembly, Surface, check_assembly
from ..ridge import RowsOf, fold_parts, z_scored
from ..settings import Settings, SettingsError, check_settings
from .matrices import design_matrices
from .plan import Plan, plan_run
from .result import TEST_NAMES

N_ITER = 30  # see `partition`
# R2 in the inner folds; ten times as much can still be missing from the unique R2 of a space.
STILL_RISING = 0.0003
BATCH_BYTES = 256_000_000  # responses and predictions of the voxels that are fitted together
RANGE = 1000.0  # of the ratio of two bands' weights
ROUNDING = 1e-6  # a ratio whose score is better by less is not better


@dataclass(frozen=True, eq=False)
class Shares:
    """What the spaces explain in the held-out rows of one fit; arrays are (n_voxels,), NaN where not fitted.

    Attributes
    ----------
    joint, split, alone, unique, gain : see `PartitionResult`
    squares : sum of squares of the held-out rows, which R2 is a share of
    """

    joint: Array
    split: Mapping[str, Array]
    alone: Mapping[str, Array]
    unique: Mapping[str, Array]
    gain: Mapping[str, Array]
    squares: Array


@dataclass(frozen=True, eq=False)
class PartitionResult:
    """Variance of the held-out rows by feature space; arrays are (n_voxels,), NaN where not fitted.

    Compare spaces by `unique`. For a space that has no more to do with the BOLD than with BOLD shifted in time, its
    mean is at 0 or just below; the mean of `gain` can be above 0 (five folds of one recording, 768 columns joined with
    word rate: unique R2 -.005 with white noise and -.02 to -.04 with shifted BOLD; gain in r up to +.03 with a gap of
    80 s around the held-out rows, +.06 without one). A unique share is a lower bound: what two spaces can both explain
    belongs to neither of them. `split` divides such variance between them.

    Attributes
    ----------
    names : the feature spaces
    joint : R2 of banded ridge on all spaces. R2 is the share of the squared distance of the held-out rows from the
        mean of the training rows that a model removes. With nested cross-validation the squares of all outer folds
        are summed before they are divided, because the null of unique R2 is nearer to 0 that way: on the average over
        shifts of one recording's BOLD -.023, where the mean of the folds' R2 has -.034, or -.037 with squared
        distances from each fold's own mean
    split : {space: share of the joint R2}, by the product measure; they sum to `joint`
    alone : {space: R2 of a model of this space only}
    unique : {space: joint R2 minus the R2 of a model without this space}
    gain : {space: correlation of the joint prediction minus that of a model without this space}, mean over the outer
        folds. A prediction that is constant counts as a correlation of 0
    folds : the same of each outer fold; of one fit with a train/test split
    selected : bool, the voxels of the summary, (n_voxels,) or with nested cross-validation (n_folds, n_voxels); chosen
        without the held-out rows, or given
    convergence : (n_iter,), mean over voxels and folds of the best R2 that the joint model reaches in the inner folds
        with the ratios so far
    significant : voxels whose joint prediction is significant, by `settings.significance` (FDR over the fitted
        voxels); None where it is not tested, see `test_name`
    subject, surface, rois, voxel_names, simulated : the assembly's
    """

    settings: Settings
    names: tuple[str, ...]
    folds: tuple[Shares, ...] = field(repr=False)
    selected: Array
    convergence: Array
    significant: Array | None
    subject: str
    surface: Surface | None = None
    rois: Mapping[str, Array] = field(default_factory=dict)
    voxel_names: tuple[str, ...] | None = None
    simulated: bool = False

    @cached_property
    def joint(self) -> Array:
        """(n_voxels,)."""
        return self._pooled([fold.joint for fold in self.folds])

    @cached_property
    def split(self) -> dict[str, Array]:
        """{space: (n_voxels,)}."""
        return {name: self._pooled([fold.split[name] for fold in self.folds]) for name in self.names}

    @cached_property
    def alone(self) -> dict[str, Array]:
        """{space: (n_voxels,)}."""
        return {name: self._pooled([fold.alone[name] for fold in self.folds]) for name in self.names}

    @cached_property
    def unique(self) -> dict[str, Array]:
        """{space: (n_voxels,)}."""
        return {name: self._pooled([fold.unique[name] for fold in self.folds]) for name in self.names}

    @cached_property
    def gain(self) -> dict[str, Array]:
        """{space: (n_voxels,)}."""
        return {
            name: mean_of_defined(np.stack([fold.gain[name] for fold in self.folds])) for name in self.names
        }

    def _pooled(self, values: Sequence[Array]) -> Array:
        """R2 (n_voxels,) of all held-out rows from that of each fold."""
        return pooled(np.stack(values), np.stack([fold.squares for fold in self.folds]))

    @property
    def test_name(self) -> str:
        """Where `significant` comes from, for captions; or why it is None."""
        if self.significant is None:
            return 'not tested: use shift_test(..., statistic="r2")'
        return TEST_NAMES[self.settings.significance]

    def median(self, what: str, name: str) -> float:
        """Median over the selected voxels of a space's "unique", "gain", "split" or "alone", mean over the folds.

        In each fold over the voxels that were selected without the rows that it holds out.
        """
        chosen = np.broadcast_to(self.selected, (len(self.folds), self.selected.shape[-1]))
        values = [getattr(fold, what)[name][mask] for fold, mask in zip(self.folds, chosen, strict=True)]
        found = [np.median(each[np.isfinite(each)]) for each in values if np.isfinite(each).any()]
        return float(np.mean(found)) if found else float("nan")

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name} {self.median('unique', name):.3f} (gain in r {self.median('gain', name):.3f})"
            for name in self.names
        )
        n_selected = np.atleast_2d(self.selected).sum(axis=1).mean()
        tested = (
            self.test_name
            if self.significant is None
            else f"{int(self.significant.sum())} significant ({self.test_name})"
        )
        return (
            f"PartitionResult({self.subject}: {int(np.isfinite(self.joint).sum())} voxels fitted, {tested}; "
            f"median unique R2 in the {n_selected:.0f} selected: {parts})"
        )


def pooled(values: Array, squares: Array) -> Array:
    """R2 (n_voxels,) of the rows of all folds, from R2 and sums of squares of each: both (n_folds, n_voxels)."""
    defined = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        total = np.where(defined, values * squares, 0.0).sum(axis=0)
        return total / np.where(defined, squares, 0.0).sum(axis=0)


# ---------------------------------------------------------------------- the rows of each fit


class FitRows(NamedTuple):
    """The rows of one fit: to train on, held out, and the folds of the former that choose penalties.

    X, X_test are arrays (rows, columns); Y, Y_test anything with `.shape` and `[:, start:stop]`.
    """

    X: Array
    Y: Any
    X_test: Array
    Y_test: Any
    folds: Sequence[ridge.Fold]


def fit_rows(plan: Plan, X: Array, Y: Any, X_test: Array | None, Y_test: Any) -> Iterator[FitRows]:
    """The rows of every fit of a plan: one with a train/test split, else one for each outer fold.

    An outer fold's responses are z-scored story by story by the rows that it trains on, and its features, which are
    z-scored by story, are centred by these rows.
    """
    if X_test is not None:
        yield FitRows(X, Y, X_test, Y_test, plan.inner_folds[0])
        return
    for fold, inner in zip(plan.outer_folds, plan.inner_folds, strict=True):
        parts = fold_parts(fold.train, len(X), plan.groups)
        scored = z_scored(X, parts, scale=False)  # its columns are z-scored by story
        train, held = RowsOf(Y, fold.train, parts), RowsOf(Y, fold.test, parts)
        yield FitRows(scored[fold.train], train, scored[fold.test], held, inner)


def _batches(fit: FitRows, n_predicted: int = 1) -> Iterator[slice]:
    """Slices of voxels that are fitted together."""
    n_rows = len(fit.X) + (2 + 2 * n_predicted) * len(fit.X_test)
    return slices(fit.Y.shape[1], max(1, BATCH_BYTES // (4 * n_rows)))


# ---------------------------------------------------------------------- banded ridge


class BandedFit(NamedTuple):
    """Result of `banded_ridge`.

    Attributes
    ----------
    predictions : (n_test_rows, n_voxels) float32; NaN for a voxel without a fit
    cv_scores : (n_iter, n_voxels), mean R2 over the folds with each ratio, at its best alpha
    """

    predictions: Array
    cv_scores: Array


def banded_ridge(
    X: Array,
    Y: Array,
    X_test: Array,
    bands: Sequence[Array],
    *,
    alphas: Sequence[float],
    folds: Sequence[ridge.Fold],
    n_iter: int = N_ITER,
    seed: int = 0,
    tell: Count = ignore,
    **options: Any,
) -> BandedFit:
    """Predictions of banded ridge: each voxel takes the ratio of the bands' penalties, and the alpha, of the best R2.

    The penalty of a band is alpha divided by the band's weight: its columns are multiplied by the square root of the
    weight, and ridge with one penalty is fitted. That is himalaya's GroupRidgeCV, in a fifth of its time.

    Parameters
    ----------
    X, X_test : arrays, (n_rows, n_columns) and (n_test_rows, n_columns)
    Y : array, (n_rows, n_voxels)
    bands : arrays of column numbers; the columns of no band are left out
    alphas : the grid of penalties, in scikit-learn's convention
    folds : folds of the rows of X, which choose alphas and ratios
    n_iter, seed : number and random seed of the ratios to try, see `band_weights`
    tell : called with (done, total) after each ratio
    options : of `ridge.ridge_cv`, such as device
    """
    columns, widths = np.concatenate(bands), [len(band) for band in bands]
    X, X_test = X[:, columns], X_test[:, columns]
    predictions = np.full((len(X_test), Y.shape[1]), np.nan, np.float32)
    best, scores = np.full(Y.shape[1], -np.inf), []
    ratios = band_weights(len(bands), n_iter, seed=seed)
    for number, weights in enumerate(ratios, start=1):
        scale = np.repeat(np.sqrt(weights), widths)
        fitted = ridge.ridge_cv(
            X * scale, Y, X_test=X_test * scale, alphas=alphas, folds=folds, use_corr=False, **options
        )
        better = fitted.cv_scores > best + ROUNDING
        best[better] = fitted.cv_scores[better]
        predictions[:, better] = fitted.predictions[:, better]
        scores.append(fitted.cv_scores)
        tell(number, len(ratios))
    return BandedFit(predictions, np.stack(scores))


def banded_scores(
    plan: Plan,
    X: Array,
    Y: Any,
    X_test: Array | None,
    Y_test: Any,
    bands: Sequence[Array],
    *,
    n_iter: int = N_ITER,
    seed: int = 0,
    progress: Count = ignore,
) -> Array:
    """R2 of banded ridge on held-out rows: (n,) for the n columns of Y; NaN where a column has no variance.

    Parameters
    ----------
    plan : Plan
        Its folds, stories and alphas.
    X, X_test : arrays, (n_rows, n_columns) and (n_test_rows, n_columns)
        As in `DesignMatrices`: X_test and Y_test are None with nested cross-validation, whose R2 is that of all
        held-out rows (`PartitionResult.joint`).
    Y, Y_test : (n_rows, n) and (n_test_rows, n), anything with `.shape` and `[:, start:stop]`
        Read in batches of columns, so that any number of shifted copies of BOLD fits into memory.
    bands : arrays of column numbers of X
        One for each feature space of the model; the columns of no band are left out. One band is plain ridge.
    n_iter, seed : number and random seed of the ratios to try, see `band_weights`
    progress : function
        Called with (done, total) after each ratio; an exception from it ends the work.
    """
    scores, squares = [], []
    n_fits, n_columns = max(1, len(plan.outer_folds)), Y.shape[1]
    for number, fit in enumerate(fit_rows(plan, X, Y, X_test, Y_test)):
        found = np.empty((2, fit.Y.shape[1]))
        for batch in _batches(fit):
            held, Y_batch = (np.asarray(values[:, batch]) for values in (fit.Y_test, fit.Y))

            def tell(done: float, total: float, batch: slice = batch, number: int = number) -> None:
                fitted = batch.start + done / total * (batch.stop - batch.start)
                progress(number * n_columns + fitted, n_fits * n_columns)

            options = _options(plan.settings, fit.folds, n_iter=n_iter, seed=seed, tell=tell)
            predicted = banded_ridge(fit.X, Y_batch, fit.X_test, bands, **options).predictions
            found[:, batch] = explained(held, predicted)
        scores.append(found[0])
        squares.append(found[1])
    return pooled(np.stack(scores), np.stack(squares))


def _options(settings: Settings, folds: Sequence[ridge.Fold], **own: Any) -> dict[str, Any]:
    """Keyword arguments of `banded_ridge`: `own`, and the settings of a run that it takes over."""
    return {
        "alphas": settings.alpha_grid,
        "folds": folds,
        "normalpha": settings.normalpha,
        "device": "cuda" if settings.device == "cuda" else "cpu",
        **own,
    }


def band_weights(n_bands: int, n_iter: int, *, seed: int = 0) -> Array:
    """Ratios of the bands' variances to try: (n_iter, n_bands) float32, each row summing to 1.

    First each band (almost) by itself, then all bands equally. Then one band after the other has the largest weight,
    and the others have 1 down to 1 / 1000 of it: evenly spread over the logarithms by an additive recurrence with the
    generalised golden ratio (Roberts 2018, "The unreasonable effectiveness of quasirandom sequences"), which starts at
    random. Twenty such ratios of two bands reach what needs 75 random ones of Dirichlet distributions, as himalaya
    draws them: the former leave no gaps. The first rows do not depend on how many follow.
    """
    if n_bands == 1:
        return np.ones((1, 1), np.float32)
    n_others, golden = n_bands - 1, 2.0
    for _ in range(60):  # the root of x^(n_others + 1) = x + 1
        golden = (1 + golden) ** (1 / (n_others + 1))
    steps = golden ** -np.arange(1.0, n_bands)
    starts = np.random.default_rng(seed).random((n_bands, n_others))
    spread = []
    for i in range(n_iter):
        largest, round_ = i % n_bands, i // n_bands
        others = RANGE ** -((starts[largest] + round_ * steps) % 1)
        spread.append(np.insert(others, largest, 1.0))
    weights = np.vstack([np.eye(n_bands), np.ones(n_bands), *spread])[: max(n_iter, n_bands + 1)]
    # A weight of 0 has no logarithm; 1e-6 has the same effect.
    weights = np.maximum(weights, 1e-6)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def explained(Y: Array, Y_hat: Array) -> tuple[Array, Array]:
    """R2 of predictions, and the sum of squares of the measurements, both (n_voxels,).

    R2 is 1 - sum (y - y_hat)^2 / sum y^2, against a prediction of 0, the mean of the z-scored training rows. NaN where
    the measurement is 0 throughout.
    """
    Y, Y_hat = Y.astype(float), Y_hat.astype(float)
    squares = dot(Y, Y)
    with np.errstate(invalid="ignore"):
        return 1 - dot(Y - Y_hat, Y - Y_hat) / np.where(squares == 0, np.nan, squares), squares


def product_measure(Y: Array, parts: Sequence[Array] | Array) -> list[Array]:
    """Shares of the parts of a prediction in its R2: arrays (n_voxels,) that sum to the R2 of their sum (`explained`).

    With y_hat = sum of p_k: R2 = sum_k <p_k, 2 y - y_hat> / <y, y> (the product measure; formula of Dupre la Tour et
    al. 2022, NeuroImage 264:119728).
    """
    Y = Y.astype(float)
    rest = 2 * Y - np.sum(parts, axis=0, dtype=float)
    squares = dot(Y, Y)
    return [dot(part, rest) / np.where(squares == 0, np.nan, squares) for part in parts]


# ---------------------------------------------------------------------- the partition


def partition(
    assembly: Assembly,
    settings: Settings,
    *,
    voxels: Array | None = None,
    n_iter: int = N_ITER,
    memory: Any = None,
) -> PartitionResult:
    """Partition the variance of held-out rows between the feature spaces of `settings`.

    Parameters
    ----------
    assembly
    settings : Settings
        With `joined_with`, e.g. `Settings(joined_with=("wordrate",))`; with a train/test split, or nested
        cross-validation, also of one story.
    voxels : bool array (n_voxels,) or voxel numbers, optional
        Which to fit and to summarise. By default those that ridge with one penalty for all spaces predicts within the
        training rows, since a voxel that nothing predicts has no variance to partition: the square root of its R2 in
        the inner folds, tested as a correlation in white noise, passes a false discovery rate of `settings.fdr_q`.
        This is a rule of selection and no claim about a voxel. It does not look at the held-out rows, so the choice
        does not raise what is found there. Each outer fold of nested cross-validation selects by its own training
        rows, and the voxels of all selections are fitted in every fold.
    n_iter : int
        How many ratios of the bands' penalties banded ridge tries, see `band_weights`. On the demo's areas of truth,
        mean unique R2 with 30 is within .001 of that with 200 random ones for layer 4 and word rate, and within .0015
        of that with 75 for three spaces (20 miss .006 there). `PartitionResult.convergence` shows whether they are
        enough.
    memory : joblib.Memory, optional
        As for `run`.

    Raises
    ------
    SettingsError
        Fewer than two spaces, or the first problem that `check` finds.
    ValueError
        Before any work: voxels that are neither a mask nor numbers, an `n_iter` below 1. Later: no voxel to fit.
    TypeError
        `assembly` is not an Assembly, or `settings` not a Settings.

    Warns
    -----
    UserWarning
        The joint model still improved with the last quarter of the ratios.
    """
    check_assembly(assembly, "partition")
    check_settings(settings, "partition")
    plan = plan_run(assembly, settings, memory=memory)
    if not settings.joined_with:
        raise SettingsError(
            "joined_with",
            f'Variance partitioning needs at least two feature spaces, got "{settings.modality}" alone; '
            f'try joined_with=("wordrate",).',
        )
    check_whole(n_iter, "n_iter", least=1)
    given = None if voxels is None else _mask(voxels, assembly)
    data = design_matrices(plan)
    rows = (data.X, data.Y, data.X_test, data.Y_test)
    if given is None:
        selected = np.stack([predicted_voxels(fit, settings) for fit in fit_rows(plan, *rows)])
    else:
        selected = np.tile(given, (max(1, len(plan.outer_folds)), 1))
    chosen = np.flatnonzero(selected.any(axis=0))
    if not len(chosen):
        raise ValueError(
            f"{assembly.subject}: no voxel is predicted within the training rows, so there is no variance to "
            f"partition; choose voxels with voxels=..., or try another layer."
        )
    Y, Y_test = (None if values is None else np.ascontiguousarray(values[:, chosen]) for values in rows[1::2])
    fitted = [
        _fit_shares(fit, data.columns, settings, n_iter)
        for fit in fit_rows(plan, data.X, Y, data.X_test, Y_test)
    ]
    convergence = np.mean([each.best for each in fitted], axis=0)
    _warn_unless_converged(convergence)

    def everywhere(values: Array) -> Array:
        out = np.full(assembly.n_voxels, np.nan)
        out[chosen] = values
        return out

    significant = None
    if plan.test and settings.significance != "shift":
        significant = np.zeros(assembly.n_voxels, bool)
        significant[chosen] = _significant(Y_test, fitted[0].predictions, settings)
    return PartitionResult(
        settings=settings,
        names=tuple(data.columns),
        folds=tuple(_mapped(everywhere, each.shares) for each in fitted),
        selected=selected[0] if plan.test else selected,
        convergence=convergence,
        significant=significant,
        subject=assembly.subject,
        surface=assembly.surface,
        rois=assembly.rois,
        voxel_names=assembly.voxel_names,
        simulated=assembly.simulated,
    )


def predicted_voxels(fit: FitRows, settings: Settings) -> Array:
    """(n_voxels,) bool: those that ridge with one penalty for all spaces predicts within the rows of `fit.X`.

    The square root of the mean R2 in the inner folds is tested as a correlation in white noise, with FDR. Mean
    correlations would be lenient: of the demo's voxels that hold only noise they select 32 %, R2 3 %, and R2 still
    99 % of the others.
    """
    fitted = ridge.ridge_cv(fit.X, fit.Y, use_corr=False, **_options(settings, fit.folds))
    n_scored = len(np.unique(np.concatenate([fold.test for fold in fit.folds])))
    r = np.sqrt(np.clip(fitted.cv_scores, 0.0, 1.0))
    return scoring.fdr(scoring.correlation_pvalues(r, n_scored, alternative="greater"), q=settings.fdr_q)[0]


class _Fitted(NamedTuple):
    """Shares of one fit over the fitted voxels, its mean best score after each ratio, and its joint predictions."""

    shares: Shares
    best: Array
    predictions: Array


def _fit_shares(fit: FitRows, columns: Mapping[str, Array], settings: Settings, n_iter: int) -> _Fitted:
    options = _options(settings, fit.folds, n_iter=n_iter, seed=settings.seed)
    batches = [
        _batch_shares(fit, batch, columns, options) for batch in _batches(fit, n_predicted=len(columns))
    ]
    each, scores, predictions = zip(*batches, strict=True)
    best = np.maximum.accumulate(np.concatenate(scores, axis=1), axis=0)
    shares = _mapped(lambda *parts: np.concatenate(parts), *each)
    return _Fitted(shares, mean_of_defined(best.T), np.concatenate(predictions, axis=1))


def _batch_shares(
    fit: FitRows, batch: slice, columns: Mapping[str, Array], options: dict[str, Any]
) -> tuple[Shares, Array, Array]:
    """Shares of some voxels, their scores in the inner folds (n_iter, n), and their joint predictions."""
    Y, held = (np.asarray(values[:, batch]) for values in (fit.Y, fit.Y_test))
    names = list(columns)

    def predicted(spaces: Sequence[str]) -> Array:
        bands = [columns[name] for name in spaces]
        return banded_ridge(fit.X, Y, fit.X_test, bands, **options).predictions

    # The test rows with all columns but those of a band at 0 are predicted by that band's part.
    only = np.zeros((len(names), *fit.X_test.shape))
    for number, band in enumerate(columns.values()):
        only[number][:, band] = fit.X_test[:, band]
    together = banded_ridge(fit.X, Y, only.reshape(-1, only.shape[2]), list(columns.values()), **options)
    parts = together.predictions.reshape(len(names), *held.shape)
    total = parts.sum(axis=0)
    single = {name: predicted([name]) for name in names}
    without = {}
    for name in names:
        others = [other for other in names if other != name]
        without[name] = single[others[0]] if len(others) == 1 else predicted(others)

    def correlation(predictions: Array) -> Array:
        r = scoring.correlation(held, predictions)
        return np.where(np.isfinite(joint) & np.isnan(r), 0.0, r)

    joint, squares = explained(held, total)
    r = correlation(total)
    shares = Shares(
        joint=joint,
        split=dict(zip(names, product_measure(held, parts), strict=True)),
        alone={name: explained(held, single[name])[0] for name in names},
        unique={name: joint - explained(held, without[name])[0] for name in names},
        gain={name: r - correlation(without[name]) for name in names},
        squares=squares,
    )
    return shares, together.cv_scores, total


def _mapped(change: Callable[..., Array], *each: Shares) -> Shares:
    """Shares whose arrays are `change` of the same arrays of `each`."""

    def changed(name: str) -> Any:
        values = [getattr(one, name) for one in each]
        if isinstance(values[0], Mapping):
            return {space: change(*(value[space] for value in values)) for space in values[0]}
        return change(*values)

    return Shares(**{one.name: changed(one.name) for one in fields(Shares)})


def _warn_unless_converged(convergence: Array) -> None:
    """Warn where the last quarter of the ratios still improved the joint model."""
    n_iter = len(convergence)
    before = convergence[n_iter - 1 - max(1, n_iter // 4)]
    if convergence[-1] - before > STILL_RISING:
        _progress.warn(
            f"Banded ridge has not converged: the last quarter of the {n_iter} ratios of penalties raised the mean "
            f"R2 in the inner folds by {convergence[-1] - before:.4f} to {convergence[-1]:.4f}; raise n_iter to "
            f"{2 * n_iter}.",
            stacklevel=3,
        )


def _mask(voxels: Array, assembly: Assembly) -> Array:
    """(n_voxels,) bool from a mask or from numbers; at least one voxel."""
    voxels = np.asarray(voxels)
    if not voxels.size or (voxels.dtype == bool and not voxels.any()):
        raise ValueError(
            "voxels: expected at least one voxel, got none; leave voxels out to take those that are predicted."
        )
    if voxels.dtype == bool:
        if voxels.shape != (assembly.n_voxels,):
            raise ValueError(
                f"voxels: expected a mask of {assembly.n_voxels} voxels, got shape {voxels.shape}."
            )
        return voxels
    if voxels.ndim != 1 or not np.issubdtype(voxels.dtype, np.integer):
        raise ValueError(
            f"voxels: expected a mask of {assembly.n_voxels} voxels or whole numbers in a list, got an array of "
            f"{voxels.dtype} of shape {voxels.shape}."
        )
    if not (voxels.min() >= 0 and voxels.max() < assembly.n_voxels):
        raise ValueError(
            f"voxels: expected numbers from 0 to {assembly.n_voxels - 1}, got {voxels.min()} to {voxels.max()}."
        )
    return np.isin(np.arange(assembly.n_voxels), voxels)


def _significant(Y: Array, Y_hat: Array, settings: Settings) -> Array:
    """(n_voxels,) whether predictions (n_rows, n_voxels) are significant, by the same test as in a run."""
    if settings.significance == "permutation":
        pvalues = scoring.permutation_pvalues(
            Y,
            Y_hat,
            block_trs=settings.block_trs,
            n_permutations=settings.n_permutations,
            seed=settings.seed,
            alternative=settings.alternative,
            tail="t",
        )
    else:
        r = scoring.correlation(Y, Y_hat)
        pvalues = scoring.correlation_pvalues(r, len(Y), alternative=settings.alternative)
    return scoring.fdr(pvalues, q=settings.fdr_q)[0]
