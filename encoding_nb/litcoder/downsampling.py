"""LITcoder's Downsampler and FIR over `design.downsample` and `design.add_delays`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..assembly import Array
from ..design import DOWNSAMPLERS, add_delays, downsample
from .names import refuse_unknown

OPTIONS = ("split_indices", "window", "cutoff_mult", "rectify", "causal", "renorm", "freqs", "sigma")
BY_WORD = ("average", "sum", "last")
METHODS = (*DOWNSAMPLERS, *(f"legacy_{method}" for method in BY_WORD))


def plain_method(method: str) -> str:
    """This package's name of a method: LITcoder's legacy_average is average by TR boundaries.

    Raises
    ------
    ValueError
        An unknown method; the known ones are listed.
    """
    if method not in METHODS:
        raise ValueError(f"Downsampler: unknown method {method!r}; choose one of {', '.join(METHODS)}.")
    return method.removeprefix("legacy_")


class Downsampler:
    """Word features to TRs, by LITcoder's method names."""

    @property
    def available_methods(self) -> list[str]:
        """Names of the methods."""
        return list(METHODS)

    def downsample(
        self, data: Array, data_times: Array, tr_times: Array, method: str = "rect", **options: Any
    ) -> Array:
        """(n_trs, n_features) features at TRs; see `encoding_nb.downsample` for methods and options.

        `split_indices` may be the first word of each TR but the first, (n_trs - 1,), or each word's TR,
        (n_words,). In LITcoder "average", "sum" and "last" read the former as the latter and return a row per
        word; here both give a row per TR, TRs without words 0.

        Raises
        ------
        ValueError
            An unknown method or option, split indices that fit neither words nor TRs, and as
            `encoding_nb.downsample`.
        """
        refuse_unknown(options, OPTIONS, "Downsampler")
        name = plain_method(method)
        if options.get("split_indices") is not None:
            legacy = method.startswith("legacy_")
            options["split_indices"] = boundaries(options["split_indices"], len(data), len(tr_times), legacy)
        return downsample(data, data_times, tr_times, method=name, **options)


def boundaries(split_indices: Sequence[int], n_words: int, n_trs: int, legacy: bool) -> Array:
    """(n_trs - 1,) first words of all TRs but the first, from these or, unless `legacy`, from each word's TR."""
    given = np.asarray(split_indices, dtype=int)
    if len(given) == n_trs - 1 and (legacy or n_words != n_trs - 1):
        return given
    if len(given) != n_words or legacy:
        raise ValueError(
            f"split_indices: expected the first words of {n_trs - 1} TRs"
            + ("" if legacy else f" or the TR of each of {n_words} words")
            + f", got {len(given)} numbers; do they come from the same story as the features?"
        )
    if np.any(np.diff(given) < 0) or given.min() < 0 or given.max() >= n_trs:
        raise ValueError(
            f"split_indices: expected TRs from 0 to {n_trs - 1} that do not run backwards, got "
            f"{given.min()} to {given.max()}; sort the words by time."
        )
    return np.searchsorted(given, np.arange(1, n_trs))


@dataclass
class FIR:
    """Delayed copies of features: `FIR.make_delayed(X, delays)`, or `FIR(delays).expand(X)`."""

    delays: Iterable[int] | None = None
    circpad: bool = False

    def expand(self, stim: Array) -> Array:
        """(n_trs, n_features x n_delays); as `make_delayed` with this object's delays."""
        if self.delays is None:
            raise ValueError("FIR: expected delays, got none; make it with FIR([1, 2, 3, 4]).")
        return self.make_delayed(stim, self.delays, self.circpad)

    @staticmethod
    def make_delayed(stim: Array, delays: Iterable[int], circpad: bool = False) -> Array:
        """(n_trs, n_features x n_delays), as `encoding_nb.add_delays`."""
        return add_delays(stim, list(delays), circular=circpad)
