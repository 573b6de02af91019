"""Small work in background threads, of which only the latest counts, and who receives the warnings of a thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .. import _progress

LOG = logging.getLogger(__name__)


class Latest:
    """Calls `work` in a thread with the latest arguments; what was asked for in between is dropped.

    The thread lives only while there is work. An error is logged and ends only that piece of work, so `work` itself
    shows its errors to the user.

    Parameters
    ----------
    work : function
    wait : float, seconds
        How long to wait for something newer before the work begins.
    """

    def __init__(self, work: Callable[..., None], *, wait: float = 0.0) -> None:
        self._work, self._wait = work, wait
        self._lock = threading.Condition()
        self._next: tuple[Any, ...] | None = None
        self._running = False

    def ask(self, *arguments: Any) -> None:
        """Have `work(*arguments)` done soon; returns at once."""
        with self._lock:
            self._next = arguments
            if not self._running:
                self._running = True
                threading.Thread(target=self._go, name="encoding_nb-panel", daemon=True).start()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all work is done, at most `timeout` seconds; True when it is."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._running, timeout)

    def _go(self) -> None:
        while True:
            if self._wait:
                threading.Event().wait(self._wait)
            with self._lock:
                arguments, self._next = self._next, None
                if arguments is None:
                    self._running = False
                    self._lock.notify_all()
                    return
            try:
                self._work(*arguments)
            except Exception:  # the next piece of work must still be done
                LOG.exception("the panel's background work failed")


@contextmanager
def warnings_to(note: Callable[[str], None]) -> Iterator[None]:
    """Call `note` with each warning of the package from this block, in this thread, when the block ends."""
    heard: list[str] = []
    try:
        with _progress.listening(heard):
            yield
    finally:
        for sentence in heard:
            note(sentence)


class Flag:
    """True inside its `with` block, for example while the program and not the user changes a control."""

    on = False

    def __enter__(self) -> None:
        self.on = True

    def __exit__(self, *_: object) -> None:
        self.on = False
