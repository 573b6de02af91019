"""Progress of long work, and the warnings that a run collects."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import numpy as np

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


def warn(sentence: str, *, stacklevel: int = 2) -> None:
    """Warn, and tell the listener of this thread, if there is one, unless it has heard the same before.

    Parameters
    ----------
    sentence : str
    stacklevel : int
        As for `warnings.warn`, counted from the caller.
    """
    hear(sentence)
    warnings.warn(sentence, stacklevel=stacklevel + 1)


def hear(sentence: str) -> None:
    """Tell the listener of this thread alone, if there is one: what was warned of already, to another listener."""
    heard = _HEARD.get()
    if heard is not None and sentence not in heard:
        heard.append(sentence)


@contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Add to `heard` what `warn` says in this block, in this thread alone.

    Do not yield out of the block: a generator would leave its listener to whoever drains it.
    """
    token = _HEARD.set(heard)
    try:
        yield
    finally:
        _HEARD.reset(token)


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes
    ----------
    stage : one of `STAGES`
    done, total : units of this stage
    overall : share of the whole run that is done, 0 to 1
    detail : what is being worked on, e.g. a story's name
    seconds_left : an estimate for this stage, or None while there is nothing to go by
    rate : units of this stage a second (words, in "features"), or None likewise
    scores, significant : (n_voxels,), in the one step before a permutation test: the result's correlations, and
        which of them pass the FDR by the parametric test, which is quick and, of autocorrelated BOLD, too generous
    """

    stage: str
    done: float
    total: float
    overall: float
    detail: str = ""
    seconds_left: float | None = None
    rate: float | None = None
    scores: np.ndarray | None = field(default=None, repr=False, compare=False)
    significant: np.ndarray | None = field(default=None, repr=False, compare=False)
