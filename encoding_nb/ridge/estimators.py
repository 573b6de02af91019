"""Ridge with one alpha per target as a scikit-learn estimator.

Import it from the package, `from encoding_nb import RidgeCV`. The folder does not import this file, since scikit-learn
takes half a second and 115 MB to import.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.model_selection import KFold, check_cv
from sklearn.utils.validation import check_is_fitted, validate_data

from .._columns import Array
from .cv import ridge_cv


class RidgeCV(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression with one alpha per target (voxel), chosen by cross-validation: `ridge_cv` for pipelines.

    Features and targets are centred by their means over all rows that `fit` is given, and the folds share these means;
    `ridge_cv` then fits the centred values. So the refit is that of ``sklearn.linear_model.Ridge`` with the chosen
    alphas. Nothing is scaled: put a ``StandardScaler`` before this step. Products are computed in float32 where y is
    float32, else in float64.

    Parameters
    ----------
    alphas : (n_alphas,), positive
        In scikit-learn's convention; `encoding_nb.ridge.huth_alphas` converts LITcoder's.
    cv : int, splitter, pairs of row numbers, or None
        Folds over which alphas are chosen: as many contiguous stretches, a splitter of scikit-learn, or folds such as
        `make_folds` gives. None: five contiguous stretches, fewer where they would have less than two rows.
    fit_intercept : bool
        False: nothing is centred, as in `ridge_cv`.
    use_corr : bool
        Select by correlation; False selects by R2.
    device : "cpu" or "cuda"

    Attributes
    ----------
    coef_ : (n_targets, n_features), or (n_features,) where y is 1-D
    intercept_ : (n_targets,), or a float where y is 1-D
    alpha_ : (n_targets,), or a float where y is 1-D. NaN for a target that is constant or that no fold can score: a
        warning counts them, their coefficients are 0 and their prediction is the mean
    best_alphas_, cv_scores_ : (n_targets,), chosen alphas, and their mean scores on the held-out rows of the folds
    n_features_in_ : int
    feature_names_in_ : array of str, where X names its columns
    """

    def __init__(
        self,
        alphas: ArrayLike = (0.1, 1.0, 10.0),
        *,
        cv: Any = None,
        fit_intercept: bool = True,
        use_corr: bool = True,
        device: str = "cpu",
    ) -> None:
        self.alphas = alphas
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.use_corr = use_corr
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike, *, groups: ArrayLike | None = None) -> RidgeCV:
        """Choose an alpha for each target and refit on all rows.

        Parameters
        ----------
        X : array, (n_rows, n_features)
        y : array, (n_rows, n_targets) or (n_rows,)
        groups : array, (n_rows,), optional
            Story of each row, for a splitter such as ``GroupKFold``. In a pipeline, this takes metadata routing and
            ``set_fit_request(groups=True)``.

        Raises
        ------
        ValueError
            As `ridge_cv`, before any fitting.
        """
        check = {"multi_output": True, "y_numeric": True, "dtype": [np.float64, np.float32]}
        X, y = validate_data(self, X, y, ensure_min_samples=4, **check)
        Y = y[:, None] if y.ndim == 1 else y
        Y = Y if Y.dtype == np.float32 else Y.astype(float)
        x_mean, y_mean = np.zeros(X.shape[1]), np.zeros(Y.shape[1])
        if self.fit_intercept:
            x_mean, y_mean = X.mean(axis=0, dtype=float), Y.mean(axis=0, dtype=float)
        cv = KFold(min(5, len(X) // 2)) if self.cv is None else check_cv(self.cv)
        found = ridge_cv(
            X - x_mean,
            (Y - y_mean).astype(Y.dtype, copy=False),
            alphas=self.alphas,
            folds=cv.split(X, y, groups),
            use_corr=self.use_corr,
            return_weights=True,
            dtype=Y.dtype,
            device=self.device,
        )
        without = np.isnan(found.best_alphas)
        if without.any():
            problem = "are constant, or no fold can score them"
            warnings.warn(
                f"RidgeCV: {without.sum()} of {len(without)} targets {problem} (first: {without.argmax()}); their "
                "coefficients are 0.",
                stacklevel=2,
            )
        weights = np.where(without, 0.0, found.weights).astype(Y.dtype, copy=False)
        self.coef_, self.intercept_ = weights.T, y_mean - x_mean @ weights
        self.alpha_: Any = found.best_alphas
        self.best_alphas_ = found.best_alphas
        self.cv_scores_ = found.cv_scores
        if y.ndim == 1:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])
            self.alpha_ = float(self.alpha_[0])
        return self

    def predict(self, X: ArrayLike) -> Array:
        """Predictions (n_rows, n_targets), or (n_rows,) where y was 1-D, for X (n_rows, n_features)."""
        check_is_fitted(self)
        return validate_data(self, X, reset=False) @ self.coef_.T + self.intercept_
