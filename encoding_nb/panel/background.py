"""Small work beside the kernel's main thread: always the newest of what was asked for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

LOG = logging.getLogger(__name__)


class Latest:
    """Does in a thread what it was asked for last; what was asked for in between is dropped.

    The thread lives while there is something to do. An error is logged and ends only that piece of work, so
    `work` says itself what its user should read.

    Parameters
    ----------
    work : function
    wait : float, seconds
        For how long to wait for something newer before beginning.
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
        """Wait until nothing is left to do, at most `timeout` seconds."""
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
            except Exception:  # the next that is asked for must still be worked on
                LOG.exception("the panel's background work failed")
