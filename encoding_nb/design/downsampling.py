"""Features of words, downsampled to TRs: Lanczos, sinc, averages, sums, last word, Gabor.

Sums run in float64; what comes back has the precision of what was given (float64 stays float64, everything
else is float32). A word's place among the TRs is decided by its time, or by split indices where given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse

Array = np.ndarray


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
        (Duchon 1979; the Huth lab's choice). ``sinc``: the same with a cut-off sinc, optionally looking
        only back (`causal`), its weights summing to 1 (`renorm`). ``rect`` and ``average``: mean of a TR's
        words; ``sum``; ``last``: the TR's last word. ``gabor``: amplitude at the frequencies `freqs` (Hz)
        under a Gaussian of `sigma` seconds, as `n_features` groups of `len(freqs)` columns.
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
    array, (n_trs, n_columns). A TR without words is 0 in ``rect``, ``average``, ``sum`` and ``last``.

    Raises
    ------
    ValueError
        Unknown method, a window below 1 or a cutoff that is not above 0, lengths that differ, times or features
        that are not finite, TRs that run backwards.
    """
    features, data_times, tr_times = _checked(features, data_times, tr_times)
    if method not in DOWNSAMPLERS:
        raise ValueError(
            f"downsample: method {method!r} is not known; expected one of {', '.join(DOWNSAMPLERS)}."
        )
    if method in ("lanczos", "sinc"):
        _refuse_filter(window, cutoff_mult)
    options = dict(
        split_indices=split_indices,
        window=window,
        cutoff_mult=cutoff_mult,
        rectify=rectify,
        causal=causal,
        renorm=renorm,
        freqs=freqs,
        sigma=sigma,
    )
    result = DOWNSAMPLERS[method](np.asarray(features, dtype=np.float64), data_times, tr_times, options)
    return result.astype(features.dtype, copy=False)


def _refuse_filter(window: float, cutoff_mult: float) -> None:
    for name, value, least in (("window", window, 1), ("cutoff_mult", cutoff_mult, 0)):
        try:
            good = np.isfinite(value) and (value >= 1 if least else value > 0)
        except TypeError:
            good = False
        if not good:
            expected = "lobes of 1 or more" if least else "a finite multiple of the TR rate above 0"
            raise ValueError(
                f"downsample: expected {name} as {expected}, got {value!r}; the usual one is {3 if least else 1.0}."
            )


def _checked(features: Array, data_times: Array, tr_times: Array) -> tuple[Array, Array, Array]:
    features = np.asarray(features)
    if features.dtype != np.float64:
        features = features.astype(np.float32)
    data_times, tr_times = np.asarray(data_times, dtype=float), np.asarray(tr_times, dtype=float)
    if features.ndim != 2 or data_times.shape != (len(features),):
        raise ValueError(
            f"downsample: expected features (n_words, n_features) with one time per word, got features "
            f"{features.shape} and {data_times.shape} times; pass the words' own times."
        )
    if len(features) == 0:
        raise ValueError("downsample: expected at least one word, got none; leave the story out.")
    if tr_times.ndim != 1 or len(tr_times) < 2 or not np.all(np.diff(tr_times) > 0):
        raise ValueError(
            "downsample: expected two or more TR times that increase; sort them or check their source."
        )
    _refuse_nonfinite(features, "features")
    _refuse_nonfinite(data_times, "word times")
    return features, data_times, tr_times


def _refuse_nonfinite(values: Array, what: str) -> None:
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum(axis=0)).all():
            return  # a sum is finite only where all its parts are; that is quicker than to look at each
    finite = np.isfinite(values)
    if not finite.all():
        rows = np.unique(np.nonzero(~finite)[0])
        raise ValueError(
            f"downsample: {int((~finite).sum())} of {values.size} {what} are not finite, in {len(rows)} "
            f"words (first: word {rows[0]}); recompute the features or leave those words out."
        )


def _tr_seconds(tr_times: Array) -> float:
    return float(np.mean(np.diff(tr_times)))


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
    data_times: Array, tr_times: Array, *, window: float = 3, cutoff_mult: float = 1.0
) -> Any:
    """Sparse (n_trs, n_words) weights sinc(x) sinc(x / window), |x| <= window, x in periods of the cutoff."""
    cutoff = cutoff_mult / _tr_seconds(tr_times)
    return _windowed(
        data_times,
        tr_times,
        window / cutoff,
        lambda seconds: np.sinc(seconds * cutoff) * np.sinc(seconds * cutoff / window),
    )


def sinc_weights(
    data_times: Array,
    tr_times: Array,
    *,
    window: float = 3,
    cutoff_mult: float = 1.0,
    causal: bool = False,
    renorm: bool = True,
) -> Any:
    """Sparse (n_trs, n_words) weights 2B sinc(2B t) for |t| <= window / 2B; the peak at t = 0 is 2B."""
    rate = 2 * cutoff_mult / _tr_seconds(tr_times)

    def kernel(seconds: Array) -> Array:
        values = rate * np.sinc(rate * seconds)
        return np.where(seconds < 0, 0.0, values) if causal else values

    weights = _windowed(data_times, tr_times, window / rate, kernel)
    if not renorm:
        return weights
    totals = np.asarray(weights.sum(axis=1)).ravel()
    return sparse.diags_array(1 / np.where(totals == 0, 1.0, totals)) @ weights


def _filtered(weights: Any, features: Array, rectify: bool) -> Array:
    if not rectify:
        return weights @ features
    return np.hstack([weights @ np.minimum(features, 0), weights @ np.maximum(features, 0)])


def _lanczos(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    weights = lanczos_weights(
        data_times, tr_times, window=options["window"], cutoff_mult=options["cutoff_mult"]
    )
    return _filtered(weights, features, options["rectify"])


def _sinc(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    names = ("window", "cutoff_mult", "causal", "renorm")
    weights = sinc_weights(data_times, tr_times, **{name: options[name] for name in names})
    return _filtered(weights, features, options["rectify"])


def words_to_trs(data_times: Array, tr_times: Array, *, split_indices: Sequence[int] | None = None) -> Array:
    """(n_words,) int: the TR each word belongs to, -1 for words outside all TRs.

    By `split_indices` where given, otherwise TR i holds the words within half a TR of its time
    (the earlier moment included, the later not).
    """
    if split_indices is not None:
        return _split_to_trs(np.asarray(split_indices), len(data_times), len(tr_times))
    half = _tr_seconds(tr_times) / 2
    nearest = np.searchsorted(tr_times - half, data_times, side="right") - 1
    inside = (nearest >= 0) & (data_times < tr_times[np.maximum(nearest, 0)] + half)
    return np.where(inside, nearest, -1)


def _split_to_trs(split_indices: Array, n_words: int, n_trs: int) -> Array:
    wrong = split_indices.shape != (n_trs - 1,)
    if not wrong:
        bounds = np.concatenate([[0], split_indices, [n_words]])
        wrong = bool(np.any(np.diff(bounds) < 0))
    if wrong:
        raise ValueError(
            f"downsample: expected {n_trs - 1} split indices that do not decrease, from 0 to {n_words} (the "
            f"first word of each TR but the first), got {split_indices.shape}; split_indices=None uses times."
        )
    return np.repeat(np.arange(n_trs), np.diff(bounds))


def _membership(trs: Array, n_trs: int) -> Any:
    """Sparse (n_trs, n_words) of ones where a word is in a TR."""
    words = np.flatnonzero(trs >= 0)
    return sparse.csr_array((np.ones(len(words)), (trs[words], words)), shape=(n_trs, len(trs)))


def _sum(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    trs = words_to_trs(data_times, tr_times, split_indices=options["split_indices"])
    return _membership(trs, len(tr_times)) @ features


def _average(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    trs = words_to_trs(data_times, tr_times, split_indices=options["split_indices"])
    counts = np.bincount(trs[trs >= 0], minlength=len(tr_times))
    return (_membership(trs, len(tr_times)) @ features) / np.maximum(counts, 1)[:, None]


def _rect(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    # a boxcar in time whatever the boundaries say: that is what sets it apart from "average"
    return _average(features, data_times, tr_times, {**options, "split_indices": None})


def _last(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    trs = words_to_trs(data_times, tr_times, split_indices=options["split_indices"])
    result = np.zeros((len(tr_times), features.shape[1]))
    words = np.flatnonzero(trs >= 0)
    if options["split_indices"] is None:
        words = words[np.argsort(data_times[words], kind="stable")]
    last_word = np.full(len(tr_times), -1)
    last_word[trs[words]] = words
    filled = last_word >= 0
    result[filled] = features[last_word[filled]]
    return result


def _gabor(features: Array, data_times: Array, tr_times: Array, options: dict) -> Array:
    freqs, sigma = options["freqs"], options["sigma"]
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


DOWNSAMPLERS: dict[str, Callable[[Array, Array, Array, dict], Array]] = {
    "lanczos": _lanczos,
    "rect": _rect,
    "average": _average,
    "sum": _sum,
    "last": _last,
    "sinc": _sinc,
    "gabor": _gabor,
}
