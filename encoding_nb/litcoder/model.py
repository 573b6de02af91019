"""LITcoder's NestedCVModel over `ridge.ridge_cv` and `ridge.nested_cv`, and its metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any

import numpy as np

from .. import ridge, scoring
from .._validation import refuse_unknown
from ..assembly import Array

ALPHAS = tuple(float(alpha) for alpha in np.logspace(-1, 8, 10))
# added to the standard deviation of predictions when LITcoder compares alphas by correlation
PREDICTION_FLOOR = 1e-8


@dataclass(frozen=True)
class FitOptions:
    """How to fit, under LITcoder's names and with its defaults; see `NestedCVModel.fit_predict`."""

    folding_type: str = "chunked"
    n_outer_folds: int = 5
    n_inner_folds: int = 5
    chunk_length: int = 20
    alphas: Sequence[float] | None = None
    alpha_fdr: float = 0.05
    use_gpu: bool = True
    single_alpha: bool = False
    normalpha: bool = True
    use_corr: bool = True
    normalize_features: bool = False
    normalize_targets: bool = False
    singcutoff: float = 1e-10
    folds: Sequence[tuple[Array, Array]] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alphas", ALPHAS if self.alphas is None else _checked_alphas(self.alphas))
        if isinstance(self.singcutoff, bool) or not isinstance(self.singcutoff, Real):
            raise TypeError(f"singcutoff: expected a number, got {self.singcutoff!r}; leave it out.")
        # A direction with singular value s counts s^2 / (s^2 + a^2): below this it is none in float32, and what
        # LITcoder would leave out weighs nothing here either. z-scored features have singular values above 1,
        # so the bound holds with normalpha too.
        if self.singcutoff > 1e-4 * min(self.alphas):
            raise ValueError(
                f"singcutoff: expected at most {1e-4 * min(self.alphas):g} (a ten-thousandth of the smallest alpha), "
                f"where it changes nothing, got {self.singcutoff:g}; this ridge leaves no directions out, so raise "
                f"alphas instead."
            )

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> FitOptions:
        """Options by name; an unknown one is a ValueError that lists the known ones."""
        refuse_unknown(given, [field.name for field in fields(cls)], "NestedCVModel")
        return cls(**given)

    @property
    def ridge(self) -> dict[str, Any]:
        """The options of `ridge.ridge_cv` that say the same."""
        return {
            "alphas": ridge.huth_alphas(self.alphas),
            "normalpha": self.normalpha,
            "prediction_floor": PREDICTION_FLOOR,
            "single_alpha": self.single_alpha,
            "use_corr": self.use_corr,
            "device": "cuda" if self.use_gpu and _has_cuda() else "cpu",
            "return_weights": True,
        }


def _checked_alphas(given: Sequence[float]) -> tuple[float, ...]:
    try:
        alphas = tuple(float(alpha) for alpha in given)
    except (TypeError, ValueError):
        raise TypeError(
            f"alphas: expected a list of numbers, got {given!r}; try numpy.logspace(-1, 8, 10)."
        ) from None
    if not alphas or not all(np.isfinite(alpha) and alpha > 0 for alpha in alphas):
        raise ValueError(
            f"alphas: expected one or more finite numbers above 0, got {list(alphas)}; try numpy.logspace(-1, 8, 10)."
        )
    return alphas


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


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
        given = locals()
        options = FitOptions(**{field.name: given[field.name] for field in fields(FitOptions)})
        if (X_test is None) != (y_test is None):
            raise ValueError("fit_predict: expected X_test and y_test together, got one of them.")
        if X_test is None:
            return _nested(features, targets, groups, options)
        return _held_out(features, targets, X_test, y_test, groups, options)


def _held_out(
    X: Array, Y: Array, X_test: Array, Y_test: Array, groups: Sequence[Any] | None, options: FitOptions
) -> tuple[dict[str, Any], Array, Array]:
    if options.normalize_features:
        mean, spread = ridge.column_moments(np.asarray(X))
        X, X_test = (X - mean) / spread, (X_test - mean) / spread
    if options.normalize_targets:
        mean, spread = ridge.column_moments(np.asarray(Y))
        Y, Y_test = (Y - mean) / spread, (Y_test - mean) / spread
    folds = options.folds or ridge.make_folds(
        len(X),
        folding_type=options.folding_type,
        n_folds=options.n_inner_folds,
        chunk_length=options.chunk_length,
        groups=groups,
        seed=options.seed,
    )
    found = ridge.ridge_cv(X, Y, X_test=X_test, Y_test=Y_test, folds=folds, **options.ridge)
    alphas = np.sqrt(found.best_alphas)
    pvalues = scoring.correlation_pvalues(found.correlations, len(X_test))
    metrics = litcoder_metrics(found.correlations, pvalues, alphas, alpha_fdr=options.alpha_fdr)
    return metrics, found.weights, alphas


def _nested(
    X: Array, Y: Array, groups: Sequence[Any] | None, options: FitOptions
) -> tuple[dict[str, Any], Array, Array]:
    if options.folds is not None:
        raise ValueError(
            "fit_predict: folds number the rows of one training set, but without X_test each outer fold has its own; "
            "leave folds out or give X_test and y_test."
        )
    folding = {"folding_type": options.folding_type, "chunk_length": options.chunk_length, "groups": groups}
    found = ridge.nested_cv(
        X,
        Y,
        outer_folds=ridge.make_folds(len(X), n_folds=options.n_outer_folds, seed=options.seed, **folding),
        n_inner_folds=options.n_inner_folds,
        seed=options.seed,
        standardize_X=options.normalize_features,
        standardize_Y=options.normalize_targets,
        **folding,
        **options.ridge,
    )
    alphas = np.sqrt(found.fold_alphas).mean(axis=0)
    by_fold = np.stack(
        [
            scoring.correlation_pvalues(r, len(fold.test))
            for r, fold in zip(found.fold_correlations, found.folds, strict=True)
        ]
    )
    # as in LITcoder, a fold in which a voxel does not vary counts with r = 0 and p = 1
    by_fold = np.nan_to_num(by_fold, nan=1.0)
    defined = np.isfinite(found.fold_correlations).any(axis=0)
    votes = sum(scoring.fdr(p, q=options.alpha_fdr)[0].astype(int) for p in by_fold)
    metrics = litcoder_metrics(
        np.where(defined, np.nan_to_num(found.fold_correlations).mean(axis=0), np.nan),
        scoring.combine_pvalues(by_fold),
        alphas,
        alpha_fdr=options.alpha_fdr,
        majority=votes >= options.n_outer_folds // 2 + 1,
    )
    return metrics, found.weights, alphas


def litcoder_metrics(
    correlations: Array, pvalues: Array, alphas: Array, *, alpha_fdr: float, majority: Array | None = None
) -> dict[str, Any]:
    """LITcoder's metrics of one map.

    A voxel without variance has no correlation; as in LITcoder it counts with r = 0 and p = 1, here and only
    here, so that the numbers agree. `n_undefined` says how many.

    Parameters
    ----------
    correlations, pvalues : (n_voxels,), NaN where undefined; p-values two-sided
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
    summary = scoring.summarise(scores, significant)
    metrics = {
        **{name: value for name, value in summary.items() if name not in ("n_voxels", "n_undefined")},
        "n_undefined": int(undefined.sum()),
        "best_alphas": np.asarray(alphas, dtype=float).tolist(),
        "correlations": scores.tolist(),
        "p_values": p.tolist(),
        "corrected_p_values": corrected.tolist(),
        "significant_mask": significant.tolist(),
    }
    if majority is not None:
        of_majority = scoring.summarise(scores, majority)
        metrics["majority_significant_mask"] = majority.tolist()
        metrics |= {
            name.replace("significant", "majority_significant"): value
            for name, value in of_majority.items()
            if "significant" in name
        }
    return {name: v for name, v in metrics.items() if not (isinstance(v, float) and np.isnan(v))}
