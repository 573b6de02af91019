"""What was noticed in passing: said as a warning, and kept by whoever listens, such as the run it happened in.

Warnings alone do not last: Python shows each once per place, and a panel or a loaded record shows none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
