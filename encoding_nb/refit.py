"""The refit on all rows: weights, predictions of the test rows and their correlations, tile by tile."""

from __future__ import annotations

from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np

from . import problem, solvers
from .problem import Array, Fit, Voxels, is_flat


class Refit:
    """Weights and test predictions of a tile, given each voxel's alpha. Fills the arrays of the result."""

    def __init__(
        self, fit: Fit, voxels: Voxels | None, weights: Array | None, predictions: Array | None
    ) -> None:
        """Take the arrays to fill: weights (n_columns, n_voxels), predictions (n_test, n_voxels), or None."""
        self.fit, self.voxels, self.weights, self.predictions = fit, voxels, weights, predictions
        self.correlations = np.full(fit.Y.shape[1], np.nan) if fit.Y_test is not None else None
        self.test: Any = None

    @property
    def needed(self) -> bool:
        """Whether anything was asked for beyond the alphas."""
        return self.weights is not None or self.fit.X_test is not None

    @cached_property
    def by_operators(self) -> bool:
        """Fewer rows than columns and no weights wanted: one operator per alpha, and no decomposition."""
        if not self.fit.dual or self.weights is not None or self.fit.X_test is None:
            return False
        # Near the hard penalties the entries of an operator cancel, and float32 loses the fifth digit.
        return bool(
            (self.fit.penalties[-1] >= 100 * solvers.HARD_RATIO * self.fit.top_eigenvalue(None)).all()
        )

    @cached_property
    def operators(self) -> dict[int, Any]:
        """{number of an alpha: operator (n_test, n_rows)}; a fit of equal rows and alphas finds small ones again."""
        fit = self.fit
        if len(fit.alphas) * len(fit.X_test) * len(fit.X) * fit.dtype.itemsize > problem.KEPT_BYTES:
            return {}
        key = (fit.penalties[-1].tobytes(), fit.dtype, sha256(np.ascontiguousarray(fit.X_test)).digest())
        return fit.once("test operators", key, dict)

    def add_operator(self, j: int) -> None:
        """Keep the operator (n_test, n_rows) of alpha j, while the folds hold the inverse that it needs."""
        if self.by_operators and j not in self.operators:
            fit = self.fit
            inverse = fit.inverse_at(float(fit.penalties[-1, j]))
            self.operators[j] = fit.xp.put(self.cross @ inverse, fit.dtype)

    @cached_property
    def cross(self) -> Any:
        """Test rows by training rows, X_test X', float64."""
        return self.fit.xp.put(self.fit.X_test, float) @ self.fit.features.T

    @cached_property
    def basis(self) -> solvers.Basis:
        """Decomposition of all rows for the refit."""
        fit, penalties = self.fit, self.fit.penalties[-1]
        if fit.hard[-1].any():
            return solvers.svd_basis(fit.X, penalties, fit.dtype, fit.xp)
        if fit.dual:
            return solvers.dual_basis(fit.features, penalties, fit.dtype, fit.xp)
        gains = 1.0 / (fit.xp.get(fit.eigen[0]) + penalties[:, None])
        return solvers.Basis(fit.projector, fit.eigen[1], fit.xp.put(gains, fit.dtype))

    def prepare(self) -> None:
        """Whatever the tiles share and the folds have not left behind."""
        fit = self.fit
        if self.by_operators:
            for j in range(len(fit.alphas)):
                self.add_operator(j)
        elif fit.X_test is not None:
            self.test = fit.xp.put(fit.xp.put(fit.X_test, float) @ self.basis.right, fit.dtype)
        if not self.by_operators:
            # The float64 half has done its work; weights are not differences of it, so float32 does for them.
            right = None if self.weights is None else fit.xp.put(self.basis.right, fit.dtype)
            self.basis = self.basis._replace(right=right)

    def run(self, tile: slice, y: Any, projected: Any, chosen: Array, fitted: Array) -> None:
        """Fill the tile's weights, predictions and correlations; NaN where not `fitted` (n_tile,)."""
        scale, product = self.voxels.scale[tile], self.fit.xp.product
        if self.by_operators:
            predicted = self._by_operators(y, chosen)
        else:
            inputs = projected if self.basis.left is self.fit.projector else product(self.basis.left.T, y)
            coefficients = self.basis.gains[chosen].T * inputs
            predicted = None if self.test is None else self.fit.xp.get(product(self.test, coefficients))
            if self.weights is not None:
                weights = self.fit.xp.get(product(self.basis.right, coefficients))
                weights[:, ~fitted] = np.nan
                self.weights[:, tile] = weights if self.fit.standardize_Y else _times(weights, scale)
        if predicted is not None:
            predicted[:, ~fitted] = np.nan
            self._score(tile, predicted)

    def _by_operators(self, y: Any, chosen: Array) -> Array:
        # Voxels of one alpha are brought together once, so that each alpha is one product.
        order, xp = np.argsort(chosen, kind="stable"), self.fit.xp
        sorted_y = xp.take(y, order)
        ends = np.searchsorted(chosen[order], np.arange(len(self.fit.alphas) + 1))
        parts = [slice(a, b) for a, b in pairwise(ends)]
        found = [xp.get(xp.product(self.operators[j], sorted_y[:, part])) for j, part in enumerate(parts)]
        return np.take(np.concatenate(found, axis=1), np.argsort(order), axis=1)

    def _score(self, tile: slice, predicted: Array) -> None:
        scale, voxels = self.voxels.scale[tile], self.voxels
        if self.correlations is not None:
            # Correlated before it is brought back to Y's units, which may be too large or small to square.
            with self.fit.reading:
                measured = np.asarray(self.fit.Y_test[:, tile])
            measured = _times(measured, 1 / scale)
            r = correlate(measured, predicted)
            self.correlations[tile] = np.where(voxels.constant_test[tile], np.nan, r)
        if self.predictions is not None:
            predicted = _times(predicted, scale)
            self.predictions[:, tile] = (
                predicted + voxels.offset[tile] if self.fit.standardize_Y else predicted
            )


def _times(values: Array, scale: Array) -> Array:
    """Columns times their scales; the array itself where all are 1, as they mostly are."""
    return values if (scale == 1).all() else values * scale


def correlate(measured: Array, predicted: Array) -> Array:
    """Pearson correlation of the columns, NaN where the prediction does not vary."""
    a, b = measured.T.astype(float, order="C"), predicted.T.astype(float, order="C")
    flat = is_flat(b.min(axis=1), b.max(axis=1), predicted.dtype)
    a -= a.mean(axis=1, keepdims=True)
    b -= b.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.vecdot(a, b) / np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    return np.where(flat, np.nan, np.clip(r, -1.0, 1.0))
