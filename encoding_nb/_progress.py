"""Progress of long work, how it is cancelled, and the warnings that a run collects.

Long work calls a `progress` function at every step, in its caller's thread. To stop the work, raise `Cancelled` from
that function: `with`-blocks on the way clean up.

Python shows a warning once per line of code, and a panel or a loaded record shows none. So `warn` also adds the message
to the run that is in progress (`listening`). Threads that work for a run must copy its context
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

Count = Callable[[float, float], None]

_HEARD: ContextVar[list[str] | None] = ContextVar("heard", default=None)


class Cancelled(BaseException):
    """Raised from a progress function to end the work that called it.

    Not an `Exception`, so that code which records the failure of one piece of work does not catch it.
    """


@dataclass(frozen=True)
class Progress:
    """One step of a run.

    Attributes
    ----------
    stage : "features", "design", "ridge" or "scores"
    done, total : units of this stage
    overall : share of the whole run that is done, 0 to 1
    detail : the current item, e.g. a story's name
    seconds_left : an estimate for this stage; None until there is one
    rate : units of this stage per second (words, in "features"); None until it is known
    scores, significant : (n_voxels,), only in the step before a permutation test: the result's correlations, and which
        of them pass the FDR by the parametric test, which is quick but finds too many voxels in autocorrelated BOLD
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
    """A progress function that does nothing."""


@contextmanager
def shown(progress: bool | Callable[[Progress], None]) -> Iterator[Callable[[Progress], None]]:
    """The progress function for a `progress` argument: a bar on standard error (True), nothing (False), or itself.

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
    """Warn, and add the message to the warnings of the run in progress, once.

    Parameters
    ----------
    sentence : str
    stacklevel : int
        As for `warnings.warn`, counted from the caller.
    """
    heard = _HEARD.get()
    if heard is not None and sentence not in heard:
        heard.append(sentence)
    warnings.warn(sentence, stacklevel=stacklevel + 1)


@contextmanager
def listening(heard: list[str]) -> Iterator[None]:
    """Collect in `heard` the messages of `warn` in this block, also from threads that copy its context."""
    token = _HEARD.set(heard)
    try:
        yield
    finally:
        _HEARD.reset(token)
