"""The linear algebra of a ridge fit: operators that predict held-out rows, and decompositions for the refit.

Ridge predictions are linear in the responses. For one fold and one alpha there is a matrix, here called an
operator, that turns the training responses into the held-out predictions of every voxel at once. Building the
operators takes float64 and does not depend on the number of voxels; applying them is one large float32
product per fold. Two identities keep the building cheap:

- Fewer rows than columns (dual). With P = (XX' + alpha I)^-1 over all rows, the held-out predictions of rows
  V from the other rows T are -(P_VV)^-1 P_VT y_T. One inverse per alpha serves all folds. (Block inverse of a
  partitioned matrix; the leave-one-out case is PRESS, Allen 1974.)
- More rows than columns (primal). In the eigenbasis of X'X, where Xe = XQ and D = (S + alpha)^-1, leaving V
  out is a downdate of rank |V|: Xe_V (S + alpha - Xe_V'Xe_V)^-1 = (I - Xe_V D Xe_V')^-1 Xe_V D (Woodbury).

Both lose digits when alpha is many orders of magnitude below the largest eigenvalue; such alphas ("hard"
below) take a singular value decomposition of the fold's own training rows instead: slower, and exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse.linalg import eigsh

from .._columns import Array, slices

# Below this ratio of alpha to the largest eigenvalue the inverses keep fewer than six digits.
HARD_RATIO = 1e-9
# Predictions are scored in slabs of about this many voxels by as many values of some alphas: small enough to
# stay near the processor, and near square, since a product copies both its operands before it multiplies (slabs
# of all alphas are narrow where folds are long, and took a quarter longer there).
SLAB_SIDE = 2048


class Operators(NamedTuple):
    """Held-out operators of one fold for some of the alphas.

    `matrices` (n_some_alphas, n_test, n_inputs) are scaled to a largest entry of 1 and `scales`
    (n_some_alphas,) undo it. They apply to the training rows of Y (`on_rows`), else to Xe'Y of the training
    rows.
    """

    alphas: Array
    matrices: Any
    scales: Array
    on_rows: bool


class Basis(NamedTuple):
    """Refit on all rows: weights = right @ (gains[alpha] * (left' Y)).

    left (n_rows, r), right (n_columns, r), gains (n_alphas, r). `right` stays float64: products with the test
    rows cancel where columns are nearly collinear, and rounding it first would cost held-out r 1e-4 there.
    """

    left: Any
    right: Any
    gains: Any


class Rows(NamedTuple):
    """A fold's rows: train, test, all but train (`out`), and the places of the test rows in `out`."""

    train: Array
    test: Array
    out: Array
    test_in_out: Array


def fold_rows(train: Array, test: Array, n_rows: int) -> Rows:
    """Rows of one fold as sorted indices, with what is left out of its training."""
    train, test = np.sort(train), np.asarray(test)
    out = np.setdiff1d(np.arange(n_rows), train)
    return Rows(train, test, out, np.searchsorted(out, test))


def largest_eigenvalue(gram: Array) -> float:
    """Largest eigenvalue of a symmetric matrix with no negative eigenvalues; 0 of one that is all zero."""
    if not gram.any():
        return 0.0  # the iteration below cannot start with a matrix that maps every vector to 0
    if len(gram) < 64:
        return float(np.linalg.eigvalsh(gram)[-1])
    # A fixed start makes the result repeatable; a constant one is in the null space when X is centred.
    start = np.random.default_rng(0).standard_normal(len(gram))
    return float(eigsh(gram, k=1, v0=start, return_eigenvectors=False)[0])


def spd_inverse(matrix: Any, xp: Any, penalty: float = 0.0) -> Any:
    """Inverse of a symmetric positive definite matrix + penalty I, by halves: most of the work is matrix products."""
    if penalty:
        matrix = matrix * 1.0
        diagonal = xp.diagonal(matrix)
        diagonal += penalty
    if len(matrix) <= xp.leaf:
        return xp.inverse(matrix)
    half = len(matrix) // 2
    corner = matrix[:half, half:]
    first = spd_inverse(matrix[:half, :half], xp)
    mixed = first @ corner
    second = spd_inverse(matrix[half:, half:] - corner.T @ mixed, xp)
    out = xp.empty_like(matrix)
    out[:half, half:] = -(mixed @ second)
    out[half:, :half] = out[:half, half:].T
    out[:half, :half] = first - out[:half, half:] @ mixed.T
    out[half:, half:] = second
    return out


def last_inverse(gram: Any, xp: Any) -> Callable[[float], Any]:
    """Function from a penalty to (gram + penalty I)^-1; it keeps the last inverse, which the folds share."""
    kept: dict[float, Any] = {}

    def inverse_at(penalty: float) -> Any:
        if penalty not in kept:
            kept.clear()
            kept[penalty] = spd_inverse(gram, xp, penalty)
        return kept[penalty]

    return inverse_at


def dual_operator(
    gram: Any, rows: Rows, penalty: float, inverse_at: Callable[[float], Any], shared: bool, xp: Any
):
    """Held-out operator (n_test, n_train) from the rows' Gram matrix XX'.

    `shared`: other folds use the same penalty, so the inverse over all rows is worth its time.
    """
    if shared and len(rows.out) <= len(rows.train):
        P = inverse_at(penalty)
        among_out = spd_inverse(xp.take(P[rows.out], rows.out), xp)
        operator = among_out[rows.test_in_out] @ xp.take(P[rows.out], rows.train)
        operator *= -1.0
        return operator
    among_train = spd_inverse(xp.take(gram[rows.train], rows.train), xp, penalty)
    return xp.take(gram[rows.test], rows.train) @ among_train


def train_gram(Xe: Any, rows: Rows) -> Any | None:
    """Gram matrix Xe'Xe of a fold's training rows, for `primal_operator`; None where a downdate is quicker."""
    return Xe[rows.train].T @ Xe[rows.train] if len(rows.out) > Xe.shape[1] else None


def primal_operator(Xe: Any, eigenvalues: Any, rows: Rows, penalty: float, gram: Any | None, xp: Any) -> Any:
    """Held-out operator (n_test, n_columns) on Xe'Y of the training rows; Xe = XQ (n_rows, n_columns).

    `gram` is `train_gram` of the fold, which all its alphas share.
    """
    if gram is None:
        gains = 1.0 / (eigenvalues + penalty)
        half = Xe[rows.out]
        half *= gains**0.5
        rest = half @ half.T
        rest *= -1.0
        diagonal = xp.diagonal(rest)
        diagonal += 1.0
        rest = spd_inverse(rest, xp)
        operator = rest[rows.test_in_out] @ half
        operator *= gains**0.5
        return operator
    return Xe[rows.test] @ spd_inverse(gram, xp, penalty)


def small_operator(X: Array, rows: Rows, penalty: float, xp: Any) -> Any:
    """Held-out operator (n_test, n_train) of a fold that trains on few rows, from their Gram matrix."""
    train, test = xp.put(X[rows.train], float), xp.put(X[rows.test], float)
    return test @ train.T @ spd_inverse(train @ train.T, xp, penalty)


def thin_svd(X: Array) -> tuple[Array, Array, Array]:
    """U, s, V of X without the directions that are rounding noise (below eps * max(shape) of the largest)."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    keep = s > s[0] * max(X.shape) * np.finfo(float).eps
    return U[:, keep], s[keep], Vt[keep].T


def hard_operators(X: Array, rows: Rows, penalties: Array) -> Iterator[Array]:
    """Held-out operator (n_test, n_train) of each penalty, exact for penalties near zero, too."""
    if len(penalties):
        U, s, V = thin_svd(X[rows.train])
        test = X[rows.test] @ V
    for penalty in penalties:
        yield (test * (s / (s**2 + penalty))) @ U.T


def settle(matrix: Any, center: bool, dtype: Any, xp: Any) -> tuple[Any, float]:
    """Operator with centred rows where asked, scaled to a largest entry of 1 and cast; and the scale.

    Correlation ignores the mean and the scale of predictions: centring here costs nothing for each voxel, and the
    scale keeps the squares of tiny predictions (huge alphas) inside float32. Centring leaves only rounding errors of
    an operator whose rows are all equal; it becomes zero. `matrix` is changed in place: a copy would cost as much in
    new pages of memory as the sums.
    """
    # The largest absolute value, without an array of absolute values.
    size = scale = max(float(matrix.max()), -float(matrix.min()))
    if center:
        matrix -= matrix.mean(0)
        scale = max(float(matrix.max()), -float(matrix.min()))
    if scale <= 1e-13 * size:
        return xp.put(matrix * 0.0, dtype), 0.0
    matrix /= scale
    return xp.put(matrix, dtype), scale


def ridge_sums(operators: Operators, inputs: Any, held_out: Any, xp: Any) -> tuple[Array, Array]:
    """Per alpha and voxel, the sum over test rows of prediction * measurement, and of prediction squared.

    inputs (n_inputs, n_voxels), held_out (n_voxels, n_test); returns two (n_some_alphas, n_voxels) float64
    arrays.
    """
    n_alphas, n_test, n_inputs = operators.matrices.shape
    n_voxels = inputs.shape[1]
    crossed, squared = np.empty((2, n_alphas, n_voxels))
    some = min(n_alphas, max(1, round(SLAB_SIDE / n_test)))
    slab = min(n_voxels, max(16, SLAB_SIDE**2 // (some * n_test)))
    # One buffer for all slabs: new memory for each costs a tenth of the product in page faults.
    buffer = xp.empty((slab * some * n_test, 1), dtype=inputs.dtype)
    for alphas in slices(n_alphas, some):
        flat = operators.matrices[alphas].reshape(-1, n_inputs).T
        for part in slices(n_voxels, slab):
            # Voxels first, so that each prediction is contiguous and both sums run at the cache's speed.
            shape = part.stop - part.start, alphas.stop - alphas.start, n_test
            out = buffer[: prod(shape)].reshape(shape[0], -1)
            predicted = xp.product(inputs[:, part].T, flat, out).reshape(shape)
            crossed[alphas, part] = xp.get(xp.vecdot(predicted, held_out[part, None])).T
            squared[alphas, part] = xp.get(xp.vecdot(predicted, predicted)).T
    scale = operators.scales[:, None]
    return crossed * scale, squared * scale**2


def dual_basis(X: Any, gram: Any, penalties: Array, dtype: Any, xp: Any) -> Basis:
    """Refit from the eigenvectors U of XX' (`gram`): weights = (X'U) (gains * U'Y)."""
    eigenvalues, U = xp.eigh(gram)
    gains = 1.0 / (eigenvalues.clip(0.0) + xp.put(penalties, float)[:, None])
    return Basis(xp.put(U, dtype), X.T @ U, xp.put(gains, dtype))


def svd_basis(X: Array, penalties: Array, dtype: Any, xp: Any) -> Basis:
    """Refit from the singular vectors of X, exact for penalties near zero."""
    U, s, V = thin_svd(X)
    return Basis(xp.put(U, dtype), xp.put(V, float), xp.put(s / (s**2 + penalties[:, None]), dtype))
