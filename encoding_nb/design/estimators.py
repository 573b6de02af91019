"""FIR delays as a scikit-learn transformer.

Import it from the package, `from encoding_nb import Delayer`. The folder does not import this file, since scikit-learn
takes half a second and 115 MB to import.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import (
    _check_feature_names_in,
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from .._columns import Array
from .matrix import add_delays


class Delayer(TransformerMixin, BaseEstimator):
    """Delayed copies of features, side by side: the columns of a finite impulse response (FIR) model.

    ``make_pipeline(Delayer([1, 2, 3, 4]), StandardScaler(), RidgeCV(alphas))`` is an encoding model of one story. Rows
    must be all TRs of a story in order of time. For several stories below each other, pass the story of each row as
    `groups`: then no row of one story reaches into the next. In a pipeline, that takes scikit-learn's metadata routing:
    ``sklearn.set_config(enable_metadata_routing=True)`` and ``Delayer().set_transform_request(groups=True)``.

    Delay before you split rows, or split whole stories: where a fold leaves out some TRs of a story, the TRs around
    the gap count as neighbours.

    Parameters
    ----------
    delays : ints, TRs
        Row t of a copy holds row t - delay of the features, and 0 where the story has no such row. 0 is the row
        itself; a negative delay looks ahead.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : array of str, where X names its columns
    """

    def __init__(self, delays: Sequence[int] = (1, 2, 3, 4)) -> None:
        self.delays = delays

    def fit(self, X: ArrayLike, y: Any = None) -> Delayer:
        """Check the delays and count the columns of X (n_trs, n_features)."""
        add_delays(validate_data(self, X)[:1], self.delays)
        return self

    def transform(self, X: ArrayLike, *, groups: ArrayLike | None = None) -> Array:
        """Delayed copies of the features.

        Parameters
        ----------
        X : array, (n_trs, n_features)
        groups : array, (n_trs,), optional
            Story of each row; None for a single story.

        Returns
        -------
        array, (n_trs, n_delays * n_features): all columns of the first delay, then all of the second, ...

        Raises
        ------
        ValueError
            X with other columns than in `fit` or with values that are not finite, delays that are not whole numbers,
            groups of another length.
        """
        check_is_fitted(self, "n_features_in_")
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        if groups is None:
            return add_delays(X, self.delays)
        labels = column_or_1d(groups)
        check_consistent_length(X, labels)
        delayed = np.empty((len(X), np.size(self.delays) * X.shape[1]), X.dtype)
        for label in np.unique(labels):
            delayed[labels == label] = add_delays(X[labels == label], self.delays)
        return delayed

    def fit_transform(self, X: ArrayLike, y: Any = None, *, groups: ArrayLike | None = None) -> Array:
        """`fit`, then `transform`."""
        return self.fit(X, y).transform(X, groups=groups)

    def get_feature_names_out(self, input_features: Sequence[str] | None = None) -> Array:
        """Names of the columns: the feature's name and its delay, such as "x0_delay1"."""
        check_is_fitted(self, "n_features_in_")
        names = _check_feature_names_in(self, input_features)
        return np.array(
            [f"{name}_delay{delay}" for delay in np.ravel(self.delays) for name in names], dtype=object
        )
