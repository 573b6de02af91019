"""Features of words, downsampled to TRs: Lanczos, sinc, averages, sums, last word, Gabor.

Sums are computed in float64; the result has the precision of the features (float64 stays float64, everything else is
float32). A word's time decides to which TR it belongs, or split indices where they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from scipy import sparse

from .._columns import Array
from .._validation import check_choice

# Of the sum of their sizes, at least this much must be left of a TR's sinc weights, which may cancel.
LEAST_TOTAL = 0.1


def downsample(
    features: Array,
    data_times: Array,
    tr_times: Array,
    *,
    method: str = "lanczos",
    split_indices: Sequence[int] | None = None,
    window: float = 3,
    cutoff_mult: float = 1.0,
    rectify: bool = False,
    causal: bool = False,
    renorm: bool = True,
    freqs: Sequence[float] | None = None,
    sigma: float | None = None,
) -> Array:
    """Features of words, downsampled to TRs: Lanczos, sinc, averages, sums, last word, Gabor.

    Parameters
    ----------
    features : array, (n_words, n_features)
    data_times : array, (n_words,), seconds
    tr_times : array, (n_trs,), seconds, increasing
    method : one of `DOWNSAMPLERS`
        ``lanczos``: low-pass filter of `window` lobes, its cutoff `cutoff_mult` times the TR rate
        (Duchon 1979; the Huth lab's choice). ``sinc``: a cut-off sinc, as the Huth lab defines it, optionally
        looking only back (`causal`), the weights of a TR divided by their sum (`renorm`). It aliases: at a
        `cutoff_mult` of 1 it passes twice the highest frequency that the TRs can show (their Nyquist frequency);
        0.5 stops there. ``rect`` and ``average``: mean of a TR's words; ``sum``; ``last``: the TR's last word.
        ``gabor``: amplitude at the frequencies `freqs` (Hz) under a Gaussian of `sigma` seconds, as `n_features`
        groups of `len(freqs)` columns.
    split_indices : (n_trs - 1,) int, optional
        Where the words of one TR end and the next TR's begin, as for `numpy.split`; for ``average``,
        ``sum`` and ``last``. Without it a word belongs to the TR whose centre is nearest.
    window : float
        For ``lanczos`` and ``sinc``: lobes on each side, 1 or more.
    cutoff_mult : float
        For ``lanczos`` and ``sinc``: above 0.
    rectify : bool
        For ``lanczos`` and ``sinc``: negative and positive parts are filtered apart, (n_trs, 2 * n_features).

    Returns
    -------
    array, (n_trs, n_columns). A TR without words is 0 in ``rect``, ``average``, ``sum`` and ``last``. With ``sinc``
    and `renorm`, a TR whose weights cancel (their sum is below `LEAST_TOTAL` of the sum of their sizes) has no data,
    and is 0: division by such a sum would multiply the words around it.

    Raises
    ------
    ValueError
        Unknown method, a window below 1 or a cutoff that is not above 0, lengths that differ, times or features
        that are not finite, TRs that run backwards.
    """
    features, data_times, tr_times = _checked(features, data_times, tr_times)
    check_choice(method, "downsample: method", DOWNSAMPLERS)
    if method in ("lanczos", "sinc"):
        _check_filter("window", window, 1, "lobes of 1 or more, such as 3")
        _check_filter("cutoff_mult", cutoff_mult, 0, "a finite multiple of the TR rate above 0, such as 1.0")
    # Each method has the options that it names.
    options = {
        "split_indices": split_indices,
        "window": window,
        "cutoff_mult": cutoff_mult,
        "rectify": rectify,
    }
    options |= {"causal": causal, "renorm": renorm, "freqs": freqs, "sigma": sigma}
    result = DOWNSAMPLERS[method](np.asarray(features, np.float64), data_times, tr_times, **options)
    return result.astype(features.dtype, copy=False)


def _check_filter(name: str, value: Any, least: int, expected: str) -> None:
    try:
        good = np.isfinite(value) and value >= least and value > 0
    except TypeError:
        good = False
    if not good:
        raise ValueError(f"downsample: expected {name} as {expected}; got {value!r}.")


def _checked(features: Array, data_times: Array, tr_times: Array) -> tuple[Array, Array, Array]:
    features = np.asarray(features)
    if features.dtype != np.float64:
        features = features.astype(np.float32)
    data_times, tr_times = np.asarray(data_times, dtype=float), np.asarray(tr_times, dtype=float)
    if features.ndim != 2 or data_times.shape != (len(features),):
        raise ValueError(
            f"downsample: expected features (n_words, n_features) with one time per word, got features "
            f"{features.shape} and {data_times.shape} times; pass the times of these words."
        )
    if len(features) == 0:
        raise ValueError("downsample: expected at least one word, got none; leave the story out.")
    if tr_times.ndim != 1 or len(tr_times) < 2 or not np.all(np.diff(tr_times) > 0):
        raise ValueError(
            "downsample: expected two or more TR times that increase; sort them or check their source."
        )
    for values, what in ((features, "features"), (data_times, "word times")):
        with np.errstate(all="ignore"):
            if np.isfinite(values.sum(axis=0)).all():
                continue  # a sum is finite only where all its parts are; that is quicker than to look at each
        finite = np.isfinite(values)
        if not finite.all():
            rows = np.unique(np.nonzero(~finite)[0])
            raise ValueError(
                f"downsample: {int((~finite).sum())} of {values.size} {what} are not finite, in {len(rows)} words "
                f"(first: word {rows[0]}); recompute the features or leave those words out."
            )
    return features, data_times, tr_times


def _tr_seconds(tr_times: Array) -> float:
    return float(np.mean(np.diff(tr_times)))


# ---------------------------------------------------------------------- filters


def _windowed(
    data_times: Array, tr_times: Array, reach: float, kernel: Callable[[Array], Array]
) -> sparse.csr_array:
    """(n_trs, n_words) weights `kernel(tr - word)`, zero where they are more than `reach` seconds apart."""
    order = np.argsort(data_times, kind="stable")
    ordered = data_times[order]
    first = np.searchsorted(ordered, tr_times - reach, side="left")
    last = np.searchsorted(ordered, tr_times + reach, side="right")
    counts = last - first
    starts = np.concatenate([[0], np.cumsum(counts)])
    columns = np.arange(starts[-1]) - np.repeat(starts[:-1] - first, counts)
    values = kernel(np.repeat(tr_times, counts) - ordered[columns])
    return sparse.csr_array((values, order[columns], starts), shape=(len(tr_times), len(data_times)))


def lanczos_weights(
    data_times: Array, tr_times: Array, *, window: float = 3, cutoff_mult: float = 1.0, **_: Any
) -> sparse.csr_array:
    """Sparse (n_trs, n_words) weights sinc(x) sinc(x / window), |x| <= window, x in periods of the cutoff."""
    cutoff = cutoff_mult / _tr_seconds(tr_times)

    def kernel(seconds: Array) -> Array:
        return np.sinc(seconds * cutoff) * np.sinc(seconds * cutoff / window)

    return _windowed(data_times, tr_times, window / cutoff, kernel)


def sinc_weights(
    data_times: Array,
    tr_times: Array,
    *,
    window: float = 3,
    cutoff_mult: float = 1.0,
    causal: bool = False,
    renorm: bool = True,
    **_: Any,
) -> sparse.csr_array:
    """Sparse (n_trs, n_words) weights 2B sinc(2B t) for |t| <= window / 2B; the peak at t = 0 is 2B."""
    rate = 2 * cutoff_mult / _tr_seconds(tr_times)

    def kernel(seconds: Array) -> Array:
        values = rate * np.sinc(rate * seconds)
        return np.where(seconds < 0, 0.0, values) if causal else values

    weights = _windowed(data_times, tr_times, window / rate, kernel)
    if not renorm:
        return weights
    totals, sizes = (np.asarray(values.sum(axis=1)).ravel() for values in (weights, abs(weights)))
    enough = (sizes > 0) & (np.abs(totals) >= LEAST_TOTAL * sizes)
    return sparse.diags_array(np.where(enough, 1 / np.where(enough, totals, 1.0), 0.0)) @ weights


def _filter(
    weights: Callable[..., sparse.csr_array], features: Array, *times: Array, **options: Any
) -> Array:
    weights = weights(*times, **options)
    if not options["rectify"]:
        return weights @ features
    return np.hstack([weights @ np.minimum(features, 0), weights @ np.maximum(features, 0)])


# ---------------------------------------------------------------------- the words of a TR


def words_to_trs(data_times: Array, tr_times: Array, *, split_indices: Sequence[int] | None = None) -> Array:
    """(n_words,) int: the TR that each word belongs to, -1 for words outside all TRs.

    By `split_indices` where they are given; otherwise TR i has the words within half a TR of its time (the earlier
    moment included, the later not).
    """
    if split_indices is not None:
        return _split_to_trs(np.asarray(split_indices), len(data_times), len(tr_times))
    half = _tr_seconds(tr_times) / 2
    nearest = np.searchsorted(tr_times - half, data_times, side="right") - 1
    inside = (nearest >= 0) & (data_times < tr_times[np.maximum(nearest, 0)] + half)
    return np.where(inside, nearest, -1)


def _split_to_trs(split_indices: Array, n_words: int, n_trs: int) -> Array:
    if split_indices.shape == (n_trs - 1,):
        lengths = np.diff(np.concatenate([[0], split_indices, [n_words]]))
        if (lengths >= 0).all():
            return np.repeat(np.arange(n_trs), lengths)
    raise ValueError(
        f"downsample: expected {n_trs - 1} split indices that do not decrease, from 0 to {n_words} (the "
        f"first word of each TR but the first), got {split_indices.shape}; split_indices=None uses times."
    )


def _sum(features: Array, data_times: Array, tr_times: Array, *, split_indices: Any, **_: Any) -> Array:
    trs = words_to_trs(data_times, tr_times, split_indices=split_indices)
    words = np.flatnonzero(trs >= 0)
    ones = sparse.csr_array((np.ones(len(words)), (trs[words], words)), shape=(len(tr_times), len(trs)))
    return ones @ features


def _average(features: Array, *times: Array, **options: Any) -> Array:
    counts = _sum(np.ones((len(features), 1)), *times, **options)
    return _sum(features, *times, **options) / np.maximum(counts, 1)


def _rect(features: Array, *times: Array, **options: Any) -> Array:
    # a boxcar in time whatever the boundaries are: that is its difference from "average"
    return _average(features, *times, **options | {"split_indices": None})


def _last(features: Array, data_times: Array, tr_times: Array, *, split_indices: Any, **_: Any) -> Array:
    trs = words_to_trs(data_times, tr_times, split_indices=split_indices)
    words = np.flatnonzero(trs >= 0)
    if split_indices is None:
        words = words[np.argsort(data_times[words], kind="stable")]
    last_word = np.full(len(tr_times), -1)
    last_word[trs[words]] = words
    return np.where(last_word[:, None] >= 0, features[last_word], 0.0)


def _gabor(features: Array, data_times: Array, tr_times: Array, *, freqs: Any, sigma: Any, **_: Any) -> Array:
    if freqs is None or sigma is None or len(freqs) == 0 or sigma <= 0:
        raise ValueError(
            f"downsample: method 'gabor' expects freqs (Hz) and sigma (s) above 0, got freqs={freqs} and "
            f"sigma={sigma}."
        )
    # exp(-t^2 / 4 sigma^2), half the usual exponent, is what the field's code computes under this name
    envelope = np.exp(-((tr_times[:, None] - data_times) ** 2) / (4 * sigma**2))
    waves = [np.exp(2j * np.pi * freq * data_times)[:, None] for freq in freqs]
    amplitudes = [
        np.abs((envelope @ (wave.real * features)) + 1j * (envelope @ (wave.imag * features)))
        for wave in waves
    ]
    return np.stack(amplitudes, axis=-1).reshape(len(tr_times), -1)


DOWNSAMPLERS: dict[str, Callable[..., Array]] = {
    "lanczos": partial(_filter, lanczos_weights),
    "rect": _rect,
    "average": _average,
    "sum": _sum,
    "last": _last,
    "sinc": partial(_filter, sinc_weights),
    "gabor": _gabor,
}
