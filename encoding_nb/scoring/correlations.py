"""How well predictions match measurements: correlations, their p-values, noise ceilings, summaries.

Responses are (n_rows, n_voxels): one row per TR, one column per voxel. A voxel whose measurement or prediction is
constant has no correlation: its score is NaN, and NaN stays NaN in every function here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from .._columns import Array, centred, dot, mean_of_defined, pearson, slabs
from .._validation import check_choice, check_flags, check_whole

ALTERNATIVES = ("two-sided", "greater", "less")
ROUNDING = 1e-20  # variance of a mean of z-scores that cancel to their rounding
LEAST_CEILING = 0.25  # below it, a correlation as a share of its noise ceiling is mostly noise
SAMPLED_VOXELS = 500


def pair(Y: ArrayLike, Y_hat: ArrayLike) -> tuple[Array, Array]:
    """Both as arrays; a ValueError where they cannot be compared row by row."""
    _refuse_masked(Y, "Y")
    _refuse_masked(Y_hat, "Y_hat")
    Y, Y_hat = np.asarray(Y), np.asarray(Y_hat)
    for name, values in (("Y", Y), ("Y_hat", Y_hat)):
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{name} must be numbers, got dtype {values.dtype}.")
    if Y.shape != Y_hat.shape or Y.ndim != 2:
        raise ValueError(f"Y and Y_hat must be (rows, voxels) of one shape, got {Y.shape} and {Y_hat.shape}.")
    if len(Y) < 2:
        raise ValueError(f"Scores need at least 2 rows, got {len(Y)}.")
    return Y, Y_hat


def _refuse_masked(values: Any, name: str) -> None:
    """Refuse masked values, which numpy would take as if they were measured."""
    if np.ma.is_masked(values):
        raise ValueError(
            f"{name} must not have masked values, got {np.ma.count_masked(values)} of {values.size} masked; leave out "
            f"those voxels or rows, or fill in NaN with .filled(np.nan)."
        )


def correlation(Y: ArrayLike, Y_hat: ArrayLike) -> Array:
    """Pearson correlation of each voxel.

    Parameters
    ----------
    Y : array, (n_rows, n_voxels)
        Measurements.
    Y_hat : array, (n_rows, n_voxels)
        Predictions.

    Returns
    -------
    array, (n_voxels,), float64; NaN where either side is constant or not finite

    Raises
    ------
    ValueError
        Shapes differ, fewer than two rows, or values that are not numbers.
    """
    return pearson(*pair(Y, Y_hat))


def fold_correlation(Y: ArrayLike, Y_hat: ArrayLike, folds: ArrayLike | None) -> Array:
    """Mean over folds of the correlation of each voxel on the rows of a fold.

    Over all rows at once, the correlation of nested predictions is biased: what a fold trains on decides where its
    predictions lie.

    Parameters
    ----------
    Y, Y_hat : array, (n_rows, n_voxels)
    folds : array, (n_rows,), or None
        The fold that held out each row; None for one fold, which is `correlation`.

    Returns
    -------
    array, (n_voxels,), float64; folds in which a voxel has no correlation are left out
    """
    Y, Y_hat = pair(Y, Y_hat)
    if folds is None:
        return correlation(Y, Y_hat)
    rows = [np.flatnonzero(np.asarray(folds) == fold) for fold in np.unique(folds)]
    found = [pearson(Y[own], Y_hat[own]) for own in rows if len(own) > 1]
    return mean_of_defined(np.stack(found)) if found else np.full(Y.shape[1], np.nan)


def r2(Y: ArrayLike, Y_hat: ArrayLike) -> Array:
    """Share of variance explained, 1 - sum (y - y_hat)^2 / sum (y - mean y)^2.

    Parameters and errors are those of `correlation`.

    Returns
    -------
    array, (n_voxels,), float64; NaN where the measurement is constant
    """
    Y, Y_hat = pair(Y, Y_hat)
    out = np.empty(Y.shape[1])
    for part in slabs(Y.shape):
        residual = np.square(Y[:, part].astype(float) - Y_hat[:, part]).sum(axis=0)
        total = centred(Y[:, part])[2]
        out[part] = 1 - residual / np.where(total == 0, np.nan, total)
    return out


# ---------------------------------------------------------------------- chance


def correlation_pvalues(r: ArrayLike, n_rows: int, *, alternative: str = "two-sided") -> Array:
    """Probability of a correlation at least this large between independent white noise.

    (1 + r) / 2 of two independent normal series of n rows follows a Beta(n/2 - 1, n/2 - 1) distribution (the same
    test as Student's t with n - 2 degrees of freedom; scipy.stats.pearsonr). BOLD is autocorrelated, so these values
    are too small: use `permutation_pvalues` for valid ones.

    Parameters
    ----------
    r : array
        Correlations; NaN stays NaN.
    n_rows : int
        Rows that each correlation was computed from.
    alternative : "two-sided", "greater" (r > 0) or "less"

    Returns
    -------
    array, shape of r

    Raises
    ------
    ValueError
        Fewer than 3 rows, r outside -1..1, or an unknown alternative.
    """
    r = np.asarray(r, dtype=float)
    if not (isinstance(n_rows, Real) and n_rows >= 3):
        raise ValueError(f"p-values need at least 3 rows, got n_rows={n_rows!r}.")
    if np.any(np.abs(r) > 1 + 1e-9):
        raise ValueError(f"r must lie within -1 and 1, got values up to {np.nanmax(np.abs(r)):.3g}.")
    r = np.clip(r, -1.0, 1.0)
    half = n_rows / 2 - 1
    if check_choice(alternative, "alternative", ALTERNATIVES) == "two-sided":
        return 2 * special.betainc(half, half, (1 - np.abs(r)) / 2)
    return special.betainc(half, half, (1 - r if alternative == "greater" else 1 + r) / 2)


def fdr(pvalues: ArrayLike, *, q: float = 0.05) -> tuple[Array, Array]:
    """False discovery rate by Benjamini and Hochberg (1995).

    Parameters
    ----------
    pvalues : array, (n_voxels,)
        NaN is not a test, and does not count among the tests.
    q : float
        Rate of false discoveries to accept.

    Returns
    -------
    discoveries : array, (n_voxels,), bool; False where NaN
    corrected : array, (n_voxels,), p-values; NaN where NaN

    Raises
    ------
    ValueError
        p-values of another shape; p-values or q outside 0..1.
    """
    p = np.asarray(pvalues, dtype=float)
    if p.ndim != 1:
        raise ValueError(f"p-values must be (n_voxels,), got shape {p.shape}: try np.ravel(pvalues).")
    tested = ~np.isnan(p)
    if np.any((p[tested] < 0) | (p[tested] > 1)):
        raise ValueError(
            f"p-values must lie within 0 and 1, got {p[tested].min():.3g} to {p[tested].max():.3g}."
        )
    if not 0 < q <= 1:
        raise ValueError(f"q must lie within 0 and 1, got {q}.")
    n = int(tested.sum())
    order = np.argsort(p[tested])
    # The corrected value is the smallest q at which the voxel is found, so it cannot fall as p rises.
    stepped = np.minimum.accumulate((p[tested][order] * n / np.arange(1, n + 1))[::-1])[::-1]
    corrected = np.full(p.shape, np.nan)
    corrected[np.flatnonzero(tested)[order]] = np.minimum(stepped, 1.0)
    return corrected <= q, corrected


def combine_pvalues(fold_pvalues: ArrayLike) -> Array:
    """Fisher's method: one p-value per voxel from those of its folds.

    -2 sum log p follows a chi-squared distribution with 2 n_folds degrees of freedom if the folds are independent.

    Parameters
    ----------
    fold_pvalues : array, (n_folds, n_voxels)
        NaN is left out.

    Returns
    -------
    array, (n_voxels,); NaN where all folds are NaN
    """
    p = np.asarray(fold_pvalues, dtype=float)
    defined = ~np.isnan(p)
    with np.errstate(divide="ignore"):
        total = -np.where(defined, np.log(np.where(defined, p, 1.0)), 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.where(count > 0, special.gammaincc(np.maximum(count, 1), total), np.nan)


# ---------------------------------------------------------------------- noise ceiling


def noise_ceiling(repeats: Any) -> Array:
    """Estimate of the largest correlation that a perfect model could reach with the mean of the repeats.

    CC_max of Schoppe et al. (2016), Front. Comput. Neurosci. 10:10: the square root of signal power over the variance
    of the mean, where signal power is what the repeats share, (n^2 var(mean) - sum of var) / (n (n - 1)). Each repeat
    is z-scored first, as BOLD is, so that its scale and its offset do not count. It is an estimate from few repeats: a
    single voxel can score above it, and noise can have one above 0.

    Parameters
    ----------
    repeats : array or HDF5 data set, (n_repeats, n_rows, n_voxels)
        Responses to the same stimulus.

    Returns
    -------
    array, (n_voxels,); 0 where the repeats share nothing, NaN where a repeat or their mean is constant or a value is
    not finite

    Raises
    ------
    ValueError
        Not three-dimensional, fewer than two repeats or rows, values that are masked or not numbers.
    """
    shape = getattr(repeats, "shape", None) or np.shape(repeats)
    if len(shape) != 3 or shape[0] < 2:
        raise ValueError(f"repeats must be (2 or more repeats, rows, voxels), got shape {tuple(shape)}.")
    if shape[1] < 2:
        raise ValueError(f"repeats must have at least 2 rows, got shape {tuple(shape)}.")
    _refuse_masked(repeats, "repeats")
    lazy = repeats if hasattr(repeats, "shape") else np.asarray(repeats)
    ceiling = np.empty(shape[2])
    for part in slabs((shape[0] * shape[1], shape[2])):
        values = np.asarray(lazy[:, :, part])
        if values.dtype.kind not in "biuf":
            raise ValueError(f"repeats must be numbers, got dtype {values.dtype}.")
        ceiling[part] = _ceiling(values)
    return ceiling


def _ceiling(repeats: Array) -> Array:
    n, n_rows, n_voxels = repeats.shape
    total = np.zeros((n_rows, n_voxels))
    with np.errstate(invalid="ignore", divide="ignore"):  # values that are not finite become NaN
        for repeat in repeats:
            about_mean, _, squares = centred(repeat)
            total += about_mean / np.sqrt(squares / n_rows)  # 0 / 0 where the repeat is constant
        variance = dot(total, total) / (n_rows * n**2)
        variance[variance < ROUNDING] = np.nan  # repeats that cancel
        signal = (n**2 * variance - n) / (n * (n - 1))
        return np.sqrt(np.clip(signal / variance, 0.0, 1.0))


def ceiling_by_chance(
    n_repeats: int, n_rows: int, *, autocorrelation: ArrayLike = (), q: float = 0.01
) -> float:
    """The noise ceiling that a share `q` of voxels without any signal reach, for repeats of this number and length.

    The mean correlation of n independent repeats is about normal around 0, with the variance of one correlation over
    the number of their pairs. That of one correlation is (1 + 2 * sum of r_k^2) / n_rows for series of autocorrelation
    r_k (Bartlett 1935, J. R. Stat. Soc. 98:536). The ceiling of a mean correlation r is sqrt(n r / (1 + (n - 1) r)),
    which is what `noise_ceiling` gives for z-scored repeats.

    Parameters
    ----------
    n_repeats, n_rows : int
        Presentations, and rows of each.
    autocorrelation : array, (n_lags,), optional
        From lag 1, see `autocorrelation`; without it the rows are taken for independent.
    q : float
        Between 0 and 0.5.

    Returns
    -------
    float; above 1 where the rows are too few for any ceiling to be above chance

    Raises
    ------
    ValueError
        Fewer than two repeats or rows, or another `q`.
    """
    check_whole(n_repeats, "n_repeats", least=2)
    check_whole(n_rows, "n_rows", least=2)
    if not 0 < q < 0.5:
        raise ValueError(f"q must be a share between 0 and 0.5, got {q!r}.")
    variance = (1 + 2 * np.sum(np.square(autocorrelation))) / n_rows
    r = -special.ndtri(q) * np.sqrt(variance / (n_repeats * (n_repeats - 1) / 2))
    return float(np.sqrt(n_repeats * r / (1 + (n_repeats - 1) * r)))


def autocorrelation(rows: ArrayLike) -> Array:
    """Autocorrelation of BOLD: the median over at most about 500 voxels, evenly chosen.

    Parameters
    ----------
    rows : array, (n_rows, n_voxels)

    Returns
    -------
    array, (n_lags,), of lags 1 to a tenth of the rows
    """
    rows = np.asarray(rows)
    some = np.asarray(rows[:, :: max(1, rows.shape[1] // SAMPLED_VOXELS)], dtype=float)
    some = some - some.mean(axis=0)
    lags = range(1, len(some) // 10)
    with np.errstate(invalid="ignore"):
        by_voxel = [(some[lag:] * some[:-lag]).sum(axis=0) / (some**2).sum(axis=0) for lag in lags]
    return np.median(np.nan_to_num(np.reshape(by_voxel, (-1, some.shape[1]))), axis=1)


def normalized_correlation(r: ArrayLike, ceiling: ArrayLike, *, floor: float = LEAST_CEILING) -> Array:
    """Correlation as a share of its noise ceiling, r / ceiling.

    The ceiling is an estimate, so single voxels can exceed 1.

    Parameters
    ----------
    r, ceiling : array, (n_voxels,)
    floor : float
        The least ceiling that is divided by: below it the ratio is mostly noise, and NaN. `Result.chance_ceiling` is
        the least ceiling that is above chance.

    Returns
    -------
    array, (n_voxels,)
    """
    r, ceiling = np.asarray(r, dtype=float), np.asarray(ceiling, dtype=float)
    return r / np.where(ceiling >= floor, ceiling, np.nan)


# ---------------------------------------------------------------------- summaries

_STATISTICS: dict[str, Callable[..., Any]] = {
    "median": np.median,
    "mean": np.mean,
    "std": np.std,
    "min": np.min,
    "max": np.max,
}


def summarise(scores: ArrayLike, significant: ArrayLike | None = None) -> dict[str, float]:
    """Summary metrics of one map, under LITcoder's names.

    Parameters
    ----------
    scores : array, (n_voxels,)
        Voxels that are NaN are left out of the statistics.
    significant : array, (n_voxels,), bool, optional
        Without it, the metrics that need it are left out.

    Returns
    -------
    dict : median_score, mean_score, std_score, min_score, max_score, n_voxels, n_undefined (voxels that are NaN); with
        a mask also n_significant, percent_significant (of all voxels) and median_, mean_, min_ and
        max_significant_score. Statistics of no voxels are NaN.

    Raises
    ------
    ValueError
        The mask has another shape than the scores, or holds anything but flags, such as p-values.
    """
    scores = np.asarray(scores, dtype=float)
    defined = np.isfinite(scores)
    metrics = {f"{name}_score": _statistic(name, scores[defined]) for name in _STATISTICS}
    metrics |= {"n_voxels": scores.size, "n_undefined": int((~defined).sum())}
    if significant is None:
        return metrics
    mask = check_flags(significant)
    if mask.shape != scores.shape:
        raise ValueError(f"significant must have the shape of scores, {scores.shape}; got {mask.shape}.")
    mask = mask & defined
    metrics["n_significant"] = int(mask.sum())
    metrics["percent_significant"] = 100.0 * int(mask.sum()) / max(scores.size, 1)
    for name in ("median", "mean", "min", "max"):
        metrics[f"{name}_significant_score"] = _statistic(name, scores[mask])
    return metrics


def region_metrics(
    scores: ArrayLike, significant: ArrayLike | None, masks: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """Summary metrics of each region of a map, flat: {"AC/median_score": ..., "AC/n_significant": ...}.

    Parameters
    ----------
    scores : array, (n_voxels,)
        Voxels that are NaN are left out of the statistics.
    significant : array, (n_voxels,), bool, or None
        Without it, n_significant is left out.
    masks : {region: array, (n_voxels,), bool}
        Regions may overlap.

    Returns
    -------
    dict : for each region mean_score, median_score, n_voxels (NaN ones included) and n_significant, each name after
        the region's and a slash. Statistics of no voxels are NaN.

    Raises
    ------
    ValueError
        A mask has another shape than the scores; `significant` holds anything but flags.
    """
    scores = np.asarray(scores, dtype=float)
    found = np.zeros(scores.shape, bool) if significant is None else check_flags(significant)
    names = ("mean_score", "median_score", "n_voxels", "n_significant")[: 3 if significant is None else 4]
    metrics: dict[str, float] = {}
    for region, mask in masks.items():
        inside = np.asarray(mask, dtype=bool)
        if not inside.shape == found.shape == scores.shape:
            raise ValueError(
                f"Region {region!r}: expected a mask of the shape of scores and significant, {scores.shape} and "
                f"{found.shape}, got {inside.shape}."
            )
        summary = summarise(scores[inside], found[inside])
        metrics |= {f"{region}/{name}": summary[name] for name in names}
    return metrics


def _statistic(name: str, values: Array) -> float:
    return float(_STATISTICS[name](values)) if values.size else float("nan")
