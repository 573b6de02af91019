"""Progress of long work, how it is cancelled, and the warnings that a run collects.

Long work calls a `progress` function at every step, in the thread of its caller. To stop it, raise `Cancelled` from
there: `with`-blocks on the way clean up.

Warnings alone do not last: Python shows each once per place, and a panel or a loaded record shows none. So `warn`
also tells the run it happens in (`listening`). Threads that work for a run must copy its context
(`contextvars.copy_context().run`), or their warnings do not reach it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Count = Callable[[int, int], None]

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


class Cancelled(BaseException):
    """Raised from a progress function to end the work that called it.

    No `Exception`, so that code which records the failure of one piece of work does not take it for one.
    """


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes
    ----------
    stage : "features", "design", "ridge" or "scores"
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


def ignore(*_: Any) -> None:
    """The progress function of a caller who gave none."""


@contextmanager
def shown(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """The progress function that `progress` asks for: a bar on standard error (True), nothing (False), or itself.

    Raises
    ------
    TypeError
        Neither a bool nor a function.
    """
    if progress is False:
        yield ignore
    elif progress is not True:
        if not callable(progress):
            raise TypeError(f"progress: expected True, False or a function of one step, got {progress!r}.")
        yield progress
    else:
        from tqdm import tqdm

        with tqdm(total=100, bar_format="{desc} {percentage:3.0f}% |{bar}| {elapsed}") as bar:

            def show(step: Progress) -> None:
                bar.set_description_str(f"{step.stage}: {step.detail}", refresh=False)
                bar.update(100 * step.overall - bar.n)

            yield show
            bar.update(100 - bar.n)


def warn(sentence: str, *, stacklevel: int = 2) -> None:
    """Warn, and tell the run that listens, if there is one, unless it has heard the same before.

    Parameters
    ----------
    sentence : str
    stacklevel : int
        As for `warnings.warn`, counted from the caller.
    """
    hear(sentence)
    warnings.warn(sentence, stacklevel=stacklevel + 1)


def hear(sentence: str) -> None:
    """Tell the run that listens, if there is one, without a warning: the user was warned before."""
    heard = _HEARD.get()
    if heard is not None and sentence not in heard:
        heard.append(sentence)


@contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Add to `heard` what `warn` says in this block, in this thread and in threads that copy its context."""
    token = _HEARD.set(heard)
    try:
        yield
    finally:
        _HEARD.reset(token)
