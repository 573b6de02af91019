"""How well predictions match measurements, and whether the match could be chance: array functions.

Responses are (n_rows, n_voxels): one row per TR, one column per voxel. A voxel whose measurement or
prediction does not vary has no correlation: its score is NaN, and NaN passes through every function here
without becoming a number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from ._columns import Array, centred, checked_alternative, checked_flags, dot, is_flat, pair, slabs


def correlation(Y: ArrayLike, Y_hat: ArrayLike) -> Array:
    """Pearson correlation of each voxel: (n_voxels,) float64, NaN where either side does not vary.

    Args:
        Y: (n_rows, n_voxels) measurements.
        Y_hat: (n_rows, n_voxels) predictions.

    Raises:
        ValueError: shapes differ, fewer than two rows, or values that are no numbers.
    """
    Y, Y_hat = pair(Y, Y_hat)
    r = np.empty(Y.shape[1])
    for part in slabs(Y.shape):
        a, b = centred(Y[:, part]), centred(Y_hat[:, part])
        flat = is_flat(Y[:, part]) | is_flat(Y_hat[:, part])
        with np.errstate(invalid="ignore", divide="ignore"):
            # A factor at a time: a product of two lengths may be too large or small for float64.
            found = dot(a, b) / np.sqrt(dot(a, a)) / np.sqrt(dot(b, b))
        r[part] = np.where(flat, np.nan, found)
    return np.clip(r, -1.0, 1.0)


def r2(Y: ArrayLike, Y_hat: ArrayLike) -> Array:
    """Share of variance explained, 1 - sum (y - y_hat)^2 / sum (y - mean y)^2: (n_voxels,) float64.

    NaN where the measurement does not vary. Arguments and errors as `correlation`.
    """
    Y, Y_hat = pair(Y, Y_hat)
    out = np.empty(Y.shape[1])
    for part in slabs(Y.shape):
        measured = Y[:, part].astype(float)
        residual = np.square(measured - Y_hat[:, part]).sum(axis=0)
        total = np.square(measured - measured.mean(axis=0)).sum(axis=0)
        out[part] = 1 - residual / np.where(is_flat(Y[:, part]), np.nan, total)
    return out


def scores_by_group(
    Y: ArrayLike, Y_hat: ArrayLike, groups: ArrayLike, *, score: Callable[..., Array] = correlation
) -> dict[Any, Array]:
    """Score of each group of rows (each story): {label: (n_voxels,)} in order of first appearance.

    Args:
        Y, Y_hat: (n_rows, n_voxels) measurements and predictions.
        groups: (n_rows,) label of each row.
        score: function of (Y, Y_hat).
    """
    Y, Y_hat = pair(Y, Y_hat)
    labels = np.asarray(groups)
    if labels.shape != (len(Y),):
        raise ValueError(f"groups must hold one label per row, shape ({len(Y)},); got {labels.shape}.")
    return {
        label: score(Y[labels == label], Y_hat[labels == label]) for label in dict.fromkeys(labels.tolist())
    }


# --- chance ----------------------------------------------------------------------------------------------


def correlation_pvalues(r: ArrayLike, n_rows: int, *, alternative: str = "two-sided") -> Array:
    """Probability of a correlation at least this large between independent white noise: same shape as r.

    (1 + r) / 2 of two independent normal series of n rows follows a Beta(n/2 - 1, n/2 - 1) distribution (the
    same test as Student's t with n - 2 degrees of freedom; scipy.stats.pearsonr). BOLD is autocorrelated, so
    these values are too small: `permutation_pvalues` is the honest one.

    Args:
        r: correlations; NaN stays NaN.
        n_rows: rows that each correlation was taken over.
        alternative: "two-sided", "greater" (r > 0) or "less".

    Raises:
        ValueError: fewer than 3 rows, r outside -1..1, or an unknown alternative.
    """
    r = np.asarray(r, dtype=float)
    if not (isinstance(n_rows, Real) and n_rows >= 3):
        raise ValueError(f"p-values need at least 3 rows, got n_rows={n_rows!r}.")
    if np.any(np.abs(r) > 1 + 1e-9):
        raise ValueError(f"r must lie within -1 and 1, got values up to {np.nanmax(np.abs(r)):.3g}.")
    r = np.clip(r, -1.0, 1.0)
    half = n_rows / 2 - 1
    if checked_alternative(alternative) == "two-sided":
        return 2 * special.betainc(half, half, (1 - np.abs(r)) / 2)
    return special.betainc(half, half, (1 - r if alternative == "greater" else 1 + r) / 2)


def fdr(pvalues: ArrayLike, *, q: float = 0.05) -> tuple[Array, Array]:
    """False discovery rate by Benjamini and Hochberg (1995).

    Args:
        pvalues: (n_voxels,); NaN is no test, and does not count among the tests.
        q: rate of false discoveries to accept.

    Returns:
        (n_voxels,) mask of discoveries (False where NaN), and corrected p-values (NaN where NaN).

    Raises:
        ValueError: p-values of another shape; p-values or q outside 0..1.
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


# --- folds -----------------------------------------------------------------------------------------------


def combine_correlations(fold_correlations: ArrayLike, *, fisher_z: bool = False) -> Array:
    """Mean correlation over folds: (n_voxels,), over the folds where it is defined; NaN where none is.

    Args:
        fold_correlations: (n_folds, n_voxels).
        fisher_z: average arctanh(r) rather than r.
    """
    r = np.asarray(fold_correlations, dtype=float)
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)) if fisher_z else r
    defined = np.isfinite(z)
    with np.errstate(invalid="ignore"):
        mean = np.where(defined, z, 0.0).sum(axis=0) / defined.sum(axis=0)
    return np.tanh(mean) if fisher_z else mean


def combine_pvalues(fold_pvalues: ArrayLike) -> Array:
    """Fisher's method over folds: (n_voxels,) p-values of the folds (n_folds, n_voxels) taken together.

    -2 sum log p follows a chi-squared distribution with 2 n_folds degrees of freedom if the folds are
    independent. Folds with NaN are left out; NaN where all are.
    """
    p = np.asarray(fold_pvalues, dtype=float)
    defined = ~np.isnan(p)
    with np.errstate(divide="ignore"):
        total = -np.where(defined, np.log(np.where(defined, p, 1.0)), 0.0).sum(axis=0)
    count = defined.sum(axis=0)
    return np.where(count > 0, special.gammaincc(np.maximum(count, 1), total), np.nan)


# --- noise ceiling ---------------------------------------------------------------------------------------


def noise_ceiling(repeats: Any) -> Array:
    """Largest correlation that a perfect model could reach with the mean of the repeats: (n_voxels,).

    CC_max of Schoppe et al. (2016), Front. Comput. Neurosci. 10:10: the square root of signal power over the
    variance of the mean, where signal power is what the repeats share, (n^2 var(mean) - sum of var) / (n (n -
    1)). 0 where the repeats share nothing, NaN where their mean does not vary or a value is not finite.

    Args:
        repeats: (n_repeats, n_rows, n_voxels) responses to the same stimulus; also an HDF5 data set.

    Raises:
        ValueError: not three-dimensional, or fewer than two repeats.
    """
    shape = getattr(repeats, "shape", None) or np.shape(repeats)
    if len(shape) != 3 or shape[0] < 2:
        raise ValueError(f"repeats must be (2 or more repeats, rows, voxels), got shape {tuple(shape)}.")
    lazy = repeats if hasattr(repeats, "shape") else np.asarray(repeats)
    ceiling = np.empty(shape[2])
    for part in slabs((shape[0] * shape[1], shape[2])):
        ceiling[part] = _ceiling(np.asarray(lazy[:, :, part]))
    return ceiling


def _ceiling(repeats: Array) -> Array:
    n = len(repeats)
    mean = repeats.mean(axis=0, dtype=float)
    with np.errstate(invalid="ignore"):  # infinite values become NaN
        variance = np.where(is_flat(mean), np.nan, mean.var(axis=0))
        signal = (n**2 * variance - repeats.astype(float).var(axis=1).sum(axis=0)) / (n * (n - 1))
    return np.sqrt(np.clip(signal / variance, 0.0, 1.0))


def normalized_correlation(r: ArrayLike, ceiling: ArrayLike, *, floor: float = 0.25) -> Array:
    """Correlation as a share of its noise ceiling, r / ceiling: (n_voxels,).

    NaN where the ceiling is below `floor`: there the ratio is mostly noise.
    """
    r, ceiling = np.asarray(r, dtype=float), np.asarray(ceiling, dtype=float)
    return r / np.where(ceiling >= floor, ceiling, np.nan)


# --- summary ---------------------------------------------------------------------------------------------


def summarise(scores: ArrayLike, significant: ArrayLike | None = None) -> dict[str, float]:
    """Summary metrics of one map, under LITcoder's names.

    Args:
        scores: (n_voxels,); voxels that are NaN are left out of the statistics.
        significant: (n_voxels,) bool mask, or None to leave out the metrics that need it.

    Returns:
        median_score, mean_score, std_score, min_score, max_score, n_voxels, n_undefined (voxels that are
        NaN); with a mask also n_significant, percent_significant (of all voxels) and median_, mean_, min_ and
        max_significant_score. Statistics of no voxels are NaN.

    Raises:
        ValueError: the mask has another shape than the scores, or holds others than flags, such as p-values.
    """
    scores = np.asarray(scores, dtype=float)
    defined = np.isfinite(scores)
    metrics = {f"{name}_score": _of(statistic, scores[defined]) for name, statistic in _STATISTICS.items()}
    metrics |= {"n_voxels": scores.size, "n_undefined": int((~defined).sum())}
    if significant is None:
        return metrics
    mask = checked_flags(significant)
    if mask.shape != scores.shape:
        raise ValueError(f"significant must have the shape of scores, {scores.shape}; got {mask.shape}.")
    mask = mask & defined
    metrics["n_significant"] = int(mask.sum())
    metrics["percent_significant"] = 100.0 * int(mask.sum()) / max(scores.size, 1)
    for name in ("median", "mean", "min", "max"):
        metrics[f"{name}_significant_score"] = _of(_STATISTICS[name], scores[mask])
    return metrics


def region_metrics(
    scores: ArrayLike, significant: ArrayLike, masks: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """Summary metrics of each region of a map, flat: {"AC/median_score": ..., "AC/n_significant": ...}.

    Args:
        scores: (n_voxels,); voxels that are NaN are left out of the statistics.
        significant: (n_voxels,) bool mask.
        masks: {region: (n_voxels,) bool mask}; regions may overlap.

    Returns:
        For each region mean_score, median_score, n_voxels (NaN ones included) and n_significant, each name after
        the region's and a slash. Statistics of no voxels are NaN.

    Raises:
        ValueError: a mask has another shape than the scores; `significant` holds others than flags.
    """
    scores = np.asarray(scores, dtype=float)
    defined, found = np.isfinite(scores), checked_flags(significant)
    metrics: dict[str, float] = {}
    for region, mask in masks.items():
        inside = np.asarray(mask, dtype=bool)
        if not inside.shape == found.shape == scores.shape:
            raise ValueError(
                f"Region {region!r}: expected a mask of the shape of scores and significant, {scores.shape} and "
                f"{found.shape}, got {inside.shape}."
            )
        for name in ("mean", "median"):
            metrics[f"{region}/{name}_score"] = _of(_STATISTICS[name], scores[inside & defined])
        metrics[f"{region}/n_voxels"] = int(inside.sum())
        metrics[f"{region}/n_significant"] = int((inside & found).sum())
    return metrics


_STATISTICS = {"median": np.median, "mean": np.mean, "std": np.std, "min": np.min, "max": np.max}


def _of(statistic: Callable[[Array], Any], values: Array) -> float:
    return float(statistic(values)) if values.size else float("nan")
