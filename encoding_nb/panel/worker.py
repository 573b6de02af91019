"""Drain a generator of steps in a thread, with a way to stop it between two steps.

The steps know nothing of threads: they are tested without one. This module is standard library only.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import Any


class Worker:
    """One run of a generator in a background thread.

    Parameters
    ----------
    steps : generator
        Yields progress, returns the result.
    on_progress : called in the thread with each yielded value
    on_end : called in the thread, once, with this worker when the run is over in whatever way

    Attributes
    ----------
    result : what the generator returned, or `None`
    error : the exception that ended it, or `None`
    cancelled : whether it was stopped before its end
    latest : the last value yielded
    """

    def __init__(
        self,
        steps: Generator[Any, None, Any],
        *,
        on_progress: Callable[[Any], None] | None = None,
        on_end: Callable[[Worker], None] | None = None,
    ) -> None:
        self._steps = steps
        self._on_progress = on_progress
        self._on_end = on_end
        self._stop = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.latest: Any = None
        self._thread = threading.Thread(target=self._drain, name="encoding_nb-fit", daemon=True)

    def start(self) -> Worker:
        """Begin; returns itself."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """Ask for a stop at the next step; returns at once."""
        self._stop.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds; True when the run is over."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def _drain(self) -> None:
        try:
            while not self._stop.is_set():
                self.latest = next(self._steps)
                if self._on_progress is not None:
                    self._on_progress(self.latest)
            self.cancelled = True
            self._steps.close()
        except StopIteration as stop:
            self.result = stop.value
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach whoever started it
            self.error = error
        finally:
            if self._on_end is not None:
                self._on_end(self)
