"""Run a job in a thread, and cancel it at its next step.

The job knows nothing of threads: it calls a function at every step, and is tested without a thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from .._progress import Cancelled

Tell = Callable[[Any], None]
Job = Callable[[Tell], Any]


class Worker:
    """One job in a background thread.

    Parameters
    ----------
    job : function
        Called in the thread with a function `tell`, which it calls with each step of its work. `tell` raises
        `Cancelled` when the worker was cancelled.
    on_progress : called in the thread with each step
    on_end : called in the thread, once, with this worker when the job is over in whatever way

    Attributes
    ----------
    result : what the job returned, or `None`
    error : the exception that ended it, or `None`
    cancelled : whether it was cancelled before its end
    latest : the last step
    """

    def __init__(
        self,
        job: Job,
        *,
        on_progress: Callable[[Any], None] | None = None,
        on_end: Callable[[Worker], None] | None = None,
    ) -> None:
        self._job = job
        self._on_progress = on_progress
        self._on_end = on_end
        self._cancel = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.cancelled = False
        self.latest: Any = None
        self._thread = threading.Thread(target=self._run, name="encoding_nb-fit", daemon=True)

    def start(self) -> Worker:
        """Begin; returns itself."""
        self._thread.start()
        return self

    def cancel(self) -> None:
        """End the job at its next step, or before its first; returns at once."""
        self._cancel.set()

    def join(self, timeout: float | None = None) -> bool:
        """Wait at most `timeout` seconds; True when the job is over."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    @property
    def running(self) -> bool:
        """Whether the thread still works."""
        return self._thread.is_alive()

    def _tell(self, step: Any) -> None:
        self.latest = step
        if self._on_progress is not None:
            self._on_progress(step)
        self._raise_if_cancelled()

    def _raise_if_cancelled(self) -> None:
        if self._cancel.is_set():
            raise Cancelled

    def _run(self) -> None:
        try:
            self._raise_if_cancelled()
            self.result = self._job(self._tell)
        except Cancelled:
            self.cancelled = True
        except BaseException as error:  # noqa: BLE001 - a thread's error must reach whoever started it
            self.error = error
        finally:
            if self._on_end is not None:
                self._on_end(self)
