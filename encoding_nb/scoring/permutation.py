"""P-values of correlations from shuffles that keep the autocorrelation of BOLD."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, sparse, special

from .._columns import Array, dot, slabs, unit_columns
from .._progress import Count, ignore
from .._validation import check_choice, check_whole
from .correlations import ALTERNATIVES, pair

# A p-value that fewer shuffles reach is counted too coarsely. Where 0.05 is one of them, only the tail is used: the
# smaller of two coarse estimates is too small too often (6.3% of p-values at or below 0.05, for 19 shuffles, AR .9).
RARELY_REACHED = 10
ENOUGH_TO_COUNT = 200
# Rows below which there are too few frequencies to shuffle, and blocks below which too few orders.
LEAST_ROWS, LEAST_BLOCKS = 8, 4
LEAST_PERMUTATIONS = 19  # of which the smallest p-value that can be counted is 0.05


def permutation_pvalues(
    Y: ArrayLike,
    Y_hat: ArrayLike,
    *,
    block_trs: int | None = None,
    n_permutations: int = 1000,
    seed: int = 0,
    alternative: str = "greater",
    tail: str = "counted",
    progress: Count | None = None,
) -> Array:
    """P-values from shuffled predictions that keep their autocorrelation.

    Shuffled correlations must scatter as widely as those of unrelated series do, and autocorrelation widens them. By
    default the phases are shuffled: a series is a sum of waves, one of each frequency, and each wave of the prediction
    is moved along in time at random. Their sizes stay, and with them the autocorrelation, however long (Theiler et
    al. 1992, Physica D 58:77). For unrelated AR(1) series of 250 rows, 5.0 to 5.3% of the p-values lie at or below
    0.05 for autocorrelations from 0 to 0.9 per TR. The series are assumed to be stationary: z-score or detrend them
    first.

    With `block_trs`, blocks of rows are shuffled instead. Autocorrelation across the edges of blocks is lost, so blocks
    must be long compared with it: blocks of 10 rows find 5.4% at 0.5 per TR, but 7% at 0.8 and 10% at 0.9.

    All voxels share the shuffles. The p-value is (1 + number of shuffles that reach the observed correlation)
    / (1 + n_permutations) (Phipson and Smyth 2010), so it is never 0.

    Counting cannot tell p-values below that apart, and a false discovery rate among thousands of voxels needs smaller
    ones. With tail="t", p-values that fewer than ten shuffles reach are those of a normal distribution whose mean and
    variance are estimated from the voxel's shuffled correlations after Fisher's transform (a sum over many waves or
    blocks is nearly normal; Winkler et al. 2016, NeuroImage 141:502, compare such approximations). Since n shuffles
    give estimates with errors, (observed - mean) / (sd sqrt(1 + 1 / n)) is compared with Student's t of n - 1 degrees
    of freedom, as in the prediction interval of one more observation (Hahn and Meeker 1991, Statistical Intervals,
    chapter 4). From 200 shuffles on, the counted p-value is taken where it is smaller.

    For AR(1) noise of 250 rows and 0.6 per TR, 4.4 to 5.2% of these p-values lie at or below 0.05, with 19 to 1000
    shuffles. More shuffles find more: with 0.9 per TR, 19 find 24% and 1000 find 58% of signals of r 0.45, by FDR.

    Parameters
    ----------
    Y, Y_hat : array, (n_rows, n_voxels)
        Measurements and predictions, rows in order of time.
    block_trs : int, optional
        Rows in a block, the last may be shorter; None shuffles phases.
    n_permutations : int
        Shuffles, 19 or more, usually 1000; the smallest counted p-value is 1 / (n_permutations + 1).
    seed : int
        Random seed of the shuffles.
    alternative : "greater", "less" or "two-sided"
    tail : "counted" or "t"
    progress : function, optional
        Called with (done, total) after each slab of voxels. An exception from it, such as `Cancelled`, ends the test
        and reaches the caller.

    Returns
    -------
    array, (n_voxels,); NaN where r is NaN

    Raises
    ------
    ValueError
        Shapes differ, an unknown alternative or tail, numbers that are not whole, fewer than 19 permutations, four
        blocks or eight rows.
    """
    Y, Y_hat = pair(Y, Y_hat)
    check_choice(alternative, "alternative", ALTERNATIVES)
    check_choice(tail, "tail", ("counted", "t"))
    check_whole(n_permutations, "n_permutations", least=LEAST_PERMUTATIONS)
    check_whole(seed, "seed", least=0)
    if block_trs is None:
        if len(Y) < LEAST_ROWS:
            raise ValueError(f"The permutation test needs {LEAST_ROWS} rows or more, got {len(Y)}.")
        shuffles: Blocks | Phases = Phases(len(Y), n_permutations, seed)
    else:
        n_blocks = -(-len(Y) // check_whole(block_trs, "block_trs", least=1))
        if n_blocks < LEAST_BLOCKS:
            raise ValueError(
                f"{len(Y)} rows in blocks of {block_trs} make {n_blocks} blocks, need {LEAST_BLOCKS} or more: "
                "use shorter blocks, more rows, or block_trs=None, which shuffles phases."
            )
        shuffles = Blocks(len(Y), block_trs, n_permutations, seed)
    return _pvalues(Y, Y_hat, shuffles, alternative, tail, progress or ignore)


def _pvalues(
    Y: Array, Y_hat: Array, shuffles: Blocks | Phases, alternative: str, tail: str, progress: Count
) -> Array:
    p = np.empty(Y.shape[1])
    parts = list(slabs(Y.shape))
    for done, part in enumerate(parts, start=1):
        measured, predicted = unit_columns(Y[:, part]), unit_columns(Y_hat[:, part])
        observed = dot(measured, predicted)
        # Ties count as reached; float32 sums of the same numbers in another order differ by less than this.
        limit = _directed(observed, alternative) - 1e-6
        shuffled = shuffles.correlations(measured.astype(np.float32), predicted.astype(np.float32))
        with np.errstate(invalid="ignore"):
            reached = (_directed(shuffled, alternative) >= limit).sum(axis=0)
        counted = (1 + reached) / (1 + shuffles.n_permutations)
        if tail == "t":
            rare, in_tail = reached < RARELY_REACHED, _t_tail(observed, shuffled, alternative)
            if shuffles.n_permutations >= ENOUGH_TO_COUNT:
                in_tail = np.minimum(counted, in_tail)
            counted[rare] = in_tail[rare]
        p[part] = np.where(np.isnan(observed), np.nan, counted)
        progress(done, len(parts))
    return p


def _t_tail(observed: Array, shuffled: Array, alternative: str) -> Array:
    """P-values of correlations, as one more draw of the normal that (n_permutations, n_voxels) shuffled ones have."""
    null, n = shuffled.astype(float), len(shuffled)
    np.arctanh(np.clip(null, -1 + 1e-12, 1 - 1e-12, out=null), out=null)
    z = np.arctanh(np.clip(observed, -1 + 1e-12, 1 - 1e-12))
    with np.errstate(invalid="ignore", divide="ignore"):
        z -= (mean := null.mean(axis=0))
        null -= mean
        t = z / np.sqrt(dot(null, null) / (n - 1) * (1 + 1 / n))
    if alternative == "two-sided":
        return 2 * special.stdtr(n - 1, -np.abs(t))
    return special.stdtr(n - 1, -t if alternative == "greater" else t)


class Phases:
    """Correlations of measurements with predictions whose waves were moved along in time, each by a random phase.

    A correlation is the sum over frequencies of both series' amplitudes times the cosine of the angle between
    them, and a random phase makes that angle uniform. So each shuffle is a row of random cosines, and all
    shuffles of all voxels are one matrix product.
    """

    def __init__(self, n_rows: int, n_permutations: int, seed: int) -> None:
        """Draw the phases."""
        self.n_permutations = n_permutations
        angles = np.random.default_rng(seed).uniform(0, 2 * np.pi, (n_permutations, n_rows // 2))
        self.cosines = np.cos(angles)
        # Each frequency counts for itself and its mirror, except the last of an even number of rows: that one is
        # real, and has a sign rather than an angle.
        self.weights = np.full(n_rows // 2, 2 / n_rows)
        if n_rows % 2 == 0:
            self.cosines[:, -1], self.weights[-1] = np.sign(self.cosines[:, -1]), 1 / n_rows
        self.cosines = self.cosines.astype(np.float32)

    def correlations(self, measured: Array, predicted: Array) -> Array:
        """(n_permutations, n_voxels) from unit columns (n_rows, n_voxels)."""
        sizes = [np.abs(fft.rfft(values, axis=0)[1:]) for values in (measured, predicted)]
        return self.cosines @ (sizes[0] * sizes[1] * self.weights[:, None]).astype(np.float32)


class Blocks:
    """Correlations of measurements with predictions whose blocks of rows were shuffled.

    A shuffled correlation is a sum over blocks, so the products of every block with every place are made once
    and each shuffle only adds those that it needs. The last block may be shorter; blocks that come after it
    are moved by its length, and have products of their own.
    """

    def __init__(self, n_rows: int, block_trs: int, n_permutations: int, seed: int) -> None:
        """Draw the orders of the blocks."""
        self.length, self.n_permutations = block_trs, n_permutations
        self.n_blocks, self.rest = divmod(n_rows, block_trs)
        rng = np.random.default_rng(seed)
        n = self.n_blocks + (self.rest > 0)
        self.orders = np.stack([rng.permutation(n) for _ in range(n_permutations)])
        self._adds = self._which_products()

    def _which_products(self) -> sparse.csr_array:
        """(n_permutations, n_products) of ones where a shuffle uses a product, in the order of `_products`."""
        n, rows = self.n_blocks, np.arange(self.n_permutations)[:, None]
        if not self.rest:
            columns = np.arange(n) * n + self.orders
        else:
            at = np.argmax(self.orders == n, axis=1)  # place of the short block
            full = self.orders[self.orders != n].reshape(-1, n)
            moved = np.arange(n) >= at[:, None]
            columns = np.hstack([moved * n * n + np.arange(n) * n + full, 2 * n * n + at[:, None]])
        width = n * n if not self.rest else 2 * n * n + n + 1
        cells = (np.broadcast_to(rows, columns.shape).ravel(), columns.ravel())
        return sparse.csr_array((np.ones(columns.size, np.float32), cells), (self.n_permutations, width))

    def correlations(self, measured: Array, predicted: Array) -> Array:
        """(n_permutations, n_voxels) from unit columns (n_rows, n_voxels)."""
        return self._adds @ self._products(measured, predicted)

    def _products(self, measured: Array, predicted: Array) -> Array:
        """(n_products, n_voxels): each place with each block, the same places moved, places with the short one."""
        n, length, rest = self.n_blocks, self.length, self.rest
        blocks = self._by_voxel(predicted[: n * length]).transpose(0, 2, 1)
        places = [self._by_voxel(measured[: n * length])]
        if rest:
            places.append(self._by_voxel(measured[rest:]))
        products = [(place @ blocks).reshape(measured.shape[1], -1).T for place in places]
        if rest:
            starts = np.arange(n + 1) * length
            short = predicted[n * length :]
            products.append(np.stack([dot(measured[start : start + rest], short) for start in starts]))
        return np.concatenate(products)

    def _by_voxel(self, rows: Array) -> Array:
        """(n_voxels, n_blocks, length) of (n_blocks * length, n_voxels)."""
        return np.ascontiguousarray(rows.T).reshape(rows.shape[1], self.n_blocks, self.length)


def _directed(r: Array, alternative: str) -> Array:
    """Correlation turned so that larger means further from chance."""
    return {"greater": r, "less": -r, "two-sided": np.abs(r)}[alternative]
