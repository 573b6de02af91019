"""What warnings say while the panel works, each piece of work apart.

`warnings.catch_warnings` changes the whole process, so that two threads disturb each other with it. Here the one
function that shows a warning looks up who listens in the context that raised it (a `ContextVar`): a thread has a
context of its own, and the threads that work for a run have a copy of the run's. Warnings that nobody listens to are
shown as ever. A run's own notes (`Result.notes`) come from it; these are the others, of reading data, drawing and
saving.
"""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from typing import Any

PACKAGE = __name__.partition(".")[0]
_LISTENER: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)
_INSTALLING = threading.Lock()


@contextmanager
def listening(listener: Callable[[str], None]) -> Iterator[None]:
    """Give the text of each UserWarning that is raised in this block to `listener`, in place of standard error.

    The filters of `warnings` decide as ever which are raised; a warning that an earlier run raised counts as new.
    """
    _install()
    _forget_what_was_shown()
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def _install() -> None:
    """Stand before whatever shows warnings now; whoever is stood before already is left in peace."""
    with _INSTALLING:
        former = warnings.showwarning
        if getattr(former, "of_the_panel", False):
            return

        def show(message: Any, category: type, *where: Any, **more: Any) -> None:
            listener = _LISTENER.get()
            if listener is not None and issubclass(category, UserWarning):
                listener(str(message))
            else:
                former(message, category, *where, **more)

        show.of_the_panel = True
        warnings.showwarning = show


def _forget_what_was_shown() -> None:
    # Python shows a warning of one place once in a process; the second run with the same fault has it, too
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == PACKAGE:
            getattr(module, "__warningregistry__", {}).clear()


def notes_html(notes: Sequence[str]) -> str:
    """The notes of a run under a line that counts them; nothing where there is none."""
    if not notes:
        return ""
    count = "1 note" if len(notes) == 1 else f"{len(notes)} notes"
    items = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<details><summary>{count} about this run</summary><ul>{items}</ul></details>"
