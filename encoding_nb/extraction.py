"""Passes through a language model: token windows in, one vector per word and layer out.

Windows that begin together are read in one pass, which is exact for causal models; other models read every
window by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

import numpy as np

from .loading import LoadedModel, free_bytes, narrowed
from .stimuli import Windows

Array = np.ndarray

# at most this long between two steps, where a single window does not take longer: progress is seen and a stop
# is heard soon, and yet the weights are read from memory for several windows at a time
STEP_SECONDS = 1.0


def extract(
    model: LoadedModel, windows: Windows, layers: range, *, bos: int | None, last_token: bool
) -> Generator[tuple[int, int], None, dict[int, Array]]:
    """Activations of all windows, batch by batch.

    Parameters
    ----------
    model : LoadedModel
    windows : Windows, of n_words words
    layers : range
        Residual streams; nothing after the last of them is computed.
    bos : int or None
        Token put in front of every window.
    last_token : bool
        The window's last token, else the mean over the window and `bos`.

    Yields
    ------
    (done, total) tokens

    Returns
    -------
    {layer: array (n_words, d_model)}, float32; 0 for words without a window
    """
    windows = windows if model.causal else windows.one_by_one()
    lengths = np.array([len(segment) for segment in windows.segments], dtype=int) + (bos is not None)
    words_of = _words_by_segment(windows)
    shape = (len(windows), int(model.bridge.cfg.d_model))
    arrays = {layer: np.zeros(shape, dtype=np.float32) for layer in layers}

    def read(batch: Array) -> None:
        words = np.concatenate([words_of[segment] for segment in batch])
        rows = np.repeat(np.arange(len(batch)), [len(words_of[segment]) for segment in batch])
        ids = _padded([windows.segments[segment] for segment in batch], bos)
        positions = windows.stop[words] - 1 + (bos is not None)
        for layer, values in _pass(model, ids, layers, rows, positions, last_token).items():
            arrays[layer][words] = values

    done, total = 0, int(lengths.sum())
    batches = _Batches(lengths, equal=not model.causal, most=_most_tokens(model))
    while (batch := batches.next()) is not None:
        started = time.monotonic()
        if not _fits(read, batch):
            batches.smaller()
            continue
        batches.took(batch, time.monotonic() - started)
        done += int(lengths[batch].sum())
        yield done, total
    return arrays


def _words_by_segment(windows: Windows) -> list[Array]:
    order = np.argsort(windows.segment, kind="stable")
    bounds = np.searchsorted(windows.segment[order], np.arange(len(windows.segments) + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


class _Batches:
    """Segments of like length together, the longest first, as many as the time of a step allows."""

    def __init__(self, lengths: Array, *, equal: bool, most: int) -> None:
        self._lengths = lengths
        self._order = np.argsort(lengths, kind="stable")[::-1]
        self._equal = equal
        self._most = most
        self._tokens = int(lengths.max(initial=1))
        self._at = 0

    def next(self) -> Array | None:
        """The next batch; the same again until `took` is called."""
        if self._at >= len(self._order):
            return None
        longest = int(self._lengths[self._order[self._at]])
        n_segments = max(1, min(self._tokens, self._most) // longest)
        batch = self._order[self._at : self._at + n_segments]
        # a model that looks ahead would see what fills a shorter window up
        return batch[self._lengths[batch] == longest] if self._equal else batch

    def took(self, batch: Array, seconds: float) -> None:
        tokens = len(batch) * int(self._lengths[batch[0]])
        wished = tokens * STEP_SECONDS / max(seconds, 1e-4)
        self._tokens = int(np.clip(wished, 1, 4 * max(self._tokens, tokens)))
        self._at += len(batch)

    def smaller(self) -> None:
        self._most = max(1, min(self._tokens, self._most) // 2)


def _fits(read: Callable[[Array], None], batch: Array) -> bool:
    """Whether a batch could be read; a GPU's memory may be too small for more than one segment."""
    import torch

    try:
        read(batch)
        return True
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
        torch.cuda.empty_cache()
        return False


def _most_tokens(model: LoadedModel) -> int:
    """Tokens of a batch that should fit in memory: beyond some thousands nothing is gained on a CPU."""
    free = free_bytes(model.device) or 1 << 30
    config = model.bridge.cfg
    width = max(int(getattr(config, "d_mlp", 0) or 0), 4 * int(config.d_model))
    per_token = 4 * (6 * width + 4 * int(getattr(config, "n_heads", 1) or 1) * 1024)
    return int(np.clip(0.25 * free // per_token, 1, 4096 if model.device == "cpu" else 1 << 17))


def _padded(segments: Sequence[Array], bos: int | None) -> Array:
    """(n_segments, longest) token ids, `bos` in front; what fills the right is never looked at."""
    front = int(bos is not None)
    ids = np.zeros((len(segments), front + max(len(segment) for segment in segments)), dtype=np.int64)
    if front:
        ids[:, 0] = bos
    for row, segment in zip(ids, segments, strict=True):
        row[front : front + len(segment)] = segment
    return ids


class _Seen(Exception):
    """Raised in a hook once the last layer asked for was seen: what would follow is not computed."""


def _pass(
    model: LoadedModel, ids: Array, layers: range, rows: Array, positions: Array, last_token: bool
) -> dict[int, Array]:
    """One pass: {layer: (n_words, d_model)} at (rows, positions) of `ids`, or the mean up to there."""
    import torch

    found: dict[int, Array] = {}
    rows_on, positions_on = (torch.as_tensor(a, device=model.device) for a in (rows, positions))
    n_layers = int(model.bridge.cfg.n_layers)

    def watch(layer: int) -> tuple[str, Callable]:
        def hook(value: Any, hook: Any) -> None:
            found[layer] = _pooled(value, rows_on, positions_on, last_token)
            if layer == layers[-1]:
                raise _Seen

        block, where = (layer, "resid_pre") if layer < n_layers else (n_layers - 1, "resid_post")
        return f"blocks.{block}.hook_{where}", hook

    hooks = [watch(layer) for layer in layers]
    mlp = model.last_mlp if last_token and layers[-1] == n_layers else None
    with (
        model.lock,
        torch.inference_mode(),
        model.bridge.hooks(fwd_hooks=hooks),
        narrowed(mlp, rows_on, positions_on),
        suppress(_Seen),
    ):
        model.bridge(torch.as_tensor(ids, device=model.device), return_type=None)
    return found


def _pooled(value: Any, rows: Any, positions: Any, last_token: bool) -> Array:
    import torch

    if last_token:
        return value[rows, positions].float().cpu().numpy()
    sums = value.cumsum(dim=1, dtype=torch.float64)[rows, positions]
    return (sums / (positions[:, None] + 1)).float().cpu().numpy()
