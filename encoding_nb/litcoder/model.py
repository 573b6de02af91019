"""LITcoder's NestedCVModel over `ridge.ridge_cv` and `ridge.nested_cv`, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np

from .. import ridge, scoring
from .._validation import check_known
from ..assembly import Array

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 8, 10))
# added to the standard deviation of predictions when LITcoder compares alphas by correlation
PREDICTION_FLOOR = 1e-8


class NestedCVModel:
    """Ridge regression with nested cross-validation, by LITcoder's names.

    Parameters
    ----------
    model_name : "ridge_regression"
    """

    def __init__(self, model_name: str = "ridge_regression") -> None:
        if model_name != "ridge_regression":
            raise ValueError(
                f"NestedCVModel: unknown model {model_name!r}; this package has 'ridge_regression'."
            )
        self.model_name = model_name

    def fit_predict(
        self,
        features: Array,
        targets: Array,
        X_test: Array | None = None,
        y_test: Array | None = None,
        groups: Sequence[Any] | None = None,
        folding_type: str = "chunked",
        n_outer_folds: int = 5,
        n_inner_folds: int = 5,
        chunk_length: int = 20,
        alphas: Sequence[float] | None = None,
        alpha_fdr: float = 0.05,
        use_gpu: bool = True,
        single_alpha: bool = False,
        normalpha: bool = True,
        use_corr: bool = True,
        normalize_features: bool = False,
        normalize_targets: bool = False,
        singcutoff: float = 1e-10,
        folds: Sequence[tuple[Array, Array]] | None = None,
        seed: int = 0,
    ) -> tuple[dict[str, Any], Array, Array]:
        """Fit, predict rows that were held out, and score them.

        Parameters
        ----------
        features : (n_rows, n_columns); targets : (n_rows, n_voxels)
        X_test, y_test : test rows; without them every row is held out once by outer folds
        groups : (n_rows,) story of each row, for the foldings that heed it
        folding_type, n_outer_folds, n_inner_folds, chunk_length : see `encoding_nb.make_folds`
        alphas : LITcoder's, weighting a singular value s by s / (s^2 + a^2); None is logspace(-1, 8, 10)
        normalpha : alphas are in units of the largest singular value of the rows that are fitted
        alpha_fdr : false discovery rate
        use_gpu : on a CUDA GPU where there is one
        single_alpha, use_corr : see `ridge.ridge_cv`
        normalize_features, normalize_targets : z-score by mean and deviation of the training rows
        singcutoff : as LITcoder's default it changes nothing; larger ones are refused
        folds : pairs of (train, test) row numbers in place of the inner folds, with a test set only
        seed : of folds made at random

        Returns
        -------
        metrics : see `litcoder_metrics`; weights : (n_columns, n_voxels), the mean over outer folds;
        best_alphas : (n_voxels,) in LITcoder's convention, the mean over outer folds

        Raises
        ------
        ValueError
            A test set in part, folds without a test set, alphas that are not above 0, a large singcutoff, and as
            `ridge.ridge_cv`.
        """
        import torch

        alphas = checked_alphas(alphas, singcutoff)
        if (X_test is None) != (y_test is None):
            raise ValueError("fit_predict: expected X_test and y_test together, got one of them.")
        if X_test is None and folds is not None:
            raise ValueError(
                "fit_predict: folds number the rows of one training set, but without X_test each outer fold has its "
                "own; leave folds out or give X_test and y_test."
            )
        folding: dict[str, Any] = {
            "folding_type": folding_type,
            "chunk_length": chunk_length,
            "groups": groups,
            "seed": seed,
        }
        options: dict[str, Any] = {
            "alphas": ridge.huth_alphas(alphas),
            "normalpha": normalpha,
            "prediction_floor": PREDICTION_FLOOR,
            "single_alpha": single_alpha,
            "use_corr": use_corr,
            "standardize_X": normalize_features,
            "standardize_Y": normalize_targets,
            "device": "cuda" if use_gpu and torch.cuda.is_available() else "cpu",
            "return_weights": True,
        }
        if X_test is not None:
            inner = folds or ridge.make_folds(len(features), n_folds=n_inner_folds, **folding)
            fit = ridge.ridge_cv(features, targets, X_test=X_test, Y_test=y_test, folds=inner, **options)
            chosen = np.sqrt(fit.best_alphas)
            pvalues = scoring.correlation_pvalues(fit.correlations, len(X_test))
            metrics = litcoder_metrics(fit.correlations, pvalues, chosen, alpha_fdr=alpha_fdr)
            return metrics, fit.weights, chosen
        outer = ridge.make_folds(len(features), n_folds=n_outer_folds, **folding)

        def inner_folds(train: Array) -> list[ridge.Fold]:
            labels = None if groups is None else np.asarray(groups)[train]
            return ridge.make_folds(len(train), n_folds=n_inner_folds, **{**folding, "groups": labels})

        # without groups, which would z-score each group by itself where LITcoder takes all training rows
        nested = ridge.nested_cv(features, targets, outer_folds=outer, inner_folds=inner_folds, **options)
        chosen = np.sqrt(nested.fold_alphas).mean(axis=0)
        return _nested_metrics(nested, chosen, alpha_fdr), nested.weights, chosen


FIT_OPTIONS = {
    name: parameter.default
    for name, parameter in signature(NestedCVModel.fit_predict).parameters.items()
    if name not in ("self", "features", "targets", "X_test", "y_test", "groups")
}


def fit_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of `NestedCVModel.fit_predict`, checked: those given, and the defaults of all others."""
    check_known(given, FIT_OPTIONS, "NestedCVModel")
    options = {**FIT_OPTIONS, **given}
    return options | {"alphas": checked_alphas(options["alphas"], options["singcutoff"])}


def checked_alphas(alphas: Sequence[float] | None, singcutoff: float) -> tuple[float, ...]:
    """LITcoder's alphas, its default for None; an error for others than numbers above 0, or a large singcutoff."""
    try:
        alphas = ALPHAS if alphas is None else tuple(float(alpha) for alpha in alphas)
        singcutoff = float(singcutoff)
    except (TypeError, ValueError) as error:
        raise TypeError(f"alphas and singcutoff: expected a list of numbers and a number; {error}.") from None
    if not alphas or not all(np.isfinite(alpha) and alpha > 0 for alpha in alphas):
        raise ValueError(
            f"alphas: expected one or more finite numbers above 0, got {list(alphas)}; try numpy.logspace(-1, 8, 10)."
        )
    # A direction with singular value s counts s^2 / (s^2 + a^2): below this it counts nothing in float32, and what
    # LITcoder would leave out weighs nothing here either. z-scored features have singular values above 1,
    # so the bound holds with normalpha too.
    if singcutoff > 1e-4 * min(alphas):
        raise ValueError(
            f"singcutoff: expected at most {1e-4 * min(alphas):g} (a ten-thousandth of the smallest alpha), where it "
            f"changes nothing, got {singcutoff:g}; this ridge leaves no directions out, so raise alphas instead."
        )
    return alphas


def _nested_metrics(nested: Any, alphas: Array, alpha_fdr: float) -> dict[str, Any]:
    """LITcoder's metrics over outer folds; a voxel that does not vary in a fold counts there with r = 0 and p = 1."""
    pairs = zip(nested.fold_correlations, nested.folds, strict=True)
    by_fold = np.stack([scoring.correlation_pvalues(r, len(fold.test)) for r, fold in pairs])
    by_fold = np.nan_to_num(by_fold, nan=1.0)
    defined = np.isfinite(nested.fold_correlations).any(axis=0)
    votes = np.sum([scoring.fdr(p, q=alpha_fdr)[0] for p in by_fold], axis=0)
    return litcoder_metrics(
        np.where(defined, np.nan_to_num(nested.fold_correlations).mean(axis=0), np.nan),
        scoring.combine_pvalues(by_fold),
        alphas,
        alpha_fdr=alpha_fdr,
        majority=votes >= len(by_fold) // 2 + 1,
    )


def litcoder_metrics(
    correlations: Array, pvalues: Array, alphas: Array, *, alpha_fdr: float, majority: Array | None = None
) -> dict[str, Any]:
    """LITcoder's metrics of one map.

    A voxel without variance has no correlation; as in LITcoder it counts with r = 0 and p = 1, here and only
    here, so that the numbers agree. `n_undefined` says how many.

    Parameters
    ----------
    correlations, pvalues : (n_voxels,), NaN where undefined; p-values two-sided, which assume white noise
    alphas : (n_voxels,) in LITcoder's convention
    alpha_fdr : false discovery rate
    majority : (n_voxels,) bool, optional
        Voxels that are significant in most outer folds.

    Returns
    -------
    dict: median_, mean_, std_, min_ and max_score; best_alphas, correlations, p_values, corrected_p_values and
    significant_mask as lists; n_significant, percent_significant, n_undefined; median_, mean_, min_ and
    max_significant_score where any voxel is significant; the same of majority_significant where given.
    """
    undefined = ~np.isfinite(correlations)
    scores, p = np.where(undefined, 0.0, correlations), np.where(undefined, 1.0, pvalues)
    significant, corrected = scoring.fdr(p, q=alpha_fdr)
    metrics = scoring.summarise(scores, significant)
    del metrics["n_voxels"]
    metrics |= {
        "n_undefined": int(undefined.sum()),
        "best_alphas": np.asarray(alphas, dtype=float).tolist(),
        "correlations": scores.tolist(),
        "p_values": p.tolist(),
        "corrected_p_values": corrected.tolist(),
        "significant_mask": significant.tolist(),
    }
    if majority is not None:
        metrics["majority_significant_mask"] = majority.tolist()
        for name, value in scoring.summarise(scores, majority).items():
            if "significant" in name:
                metrics[name.replace("significant", "majority_significant")] = value
    return {name: v for name, v in metrics.items() if not (isinstance(v, float) and np.isnan(v))}
