"""Progress of a run: seconds by stage, the share that is done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .._progress import Count, Progress

STAGES = ("features", "design", "ridge", "scores")
SOON = 0.5  # seconds of work after which a rate is known


class Clock:
    """Reports a run's progress, and measures the seconds of each stage.

    Parameters
    ----------
    progress : called with each `Progress`
    shares : {stage: its part of the run's time}, in any unit
    """

    def __init__(self, progress: Callable[[Progress], None], shares: Mapping[str, float]) -> None:
        self.seconds: dict[str, float] = {}
        total = sum(shares.values())
        self._progress = progress
        self._shares = {stage: share / total for stage, share in shares.items()}
        self._stage = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time of this block for a stage."""
        self._stage, self._started = name, time.monotonic()
        self._first: tuple[float, float] | None = (
            None  # (seconds, work) when the first piece of work was done
        )
        yield
        self.seconds[name] = time.monotonic() - self._started

    def so_far(self) -> dict[str, float]:
        """Seconds of the finished stages and of the running one."""
        return self.seconds | {self._stage: time.monotonic() - self._started}

    def count(self, detail: str) -> Count:
        """A function of (done, total) that reports progress of the running stage."""

        def tell(done: float, total: float) -> None:
            self.tell(done, total, detail)

        return tell

    def tell(
        self,
        done: float,
        total: float,
        detail: str,
        *,
        at_once: tuple[float, float] = (0, 0),
        **found: Any,
    ) -> None:
        """Report progress of the running stage.

        Parameters
        ----------
        done, total, detail : see `Progress`
        at_once : the parts of `done` and of `total` that take no time
        found : `scores` and `significant`, see `Progress`
        """
        before = sum(self._shares[s] for s in STAGES[: STAGES.index(self._stage)])
        share = min(done / total, 1.0) if total else 1.0
        elapsed = time.monotonic() - self._started
        overall = before + self._shares[self._stage] * share
        work, all_work = done - at_once[0], total - at_once[1]
        left = rate = None
        if work > 0 and elapsed > SOON:
            rate = self._rate(work, elapsed)
            left = max(0.0, (all_work - work) / rate)
        self._progress(Progress(self._stage, done, total, overall, detail, left, rate, **found))

    def _rate(self, work: float, elapsed: float) -> float:
        """Work per second since the first piece of it: before that, for example, a model is loaded."""
        if self._first is None or work <= self._first[1]:
            self._first = (elapsed, work)
        seconds, done = elapsed - self._first[0], work - self._first[1]
        return done / seconds if seconds > SOON else work / elapsed
