"""Seconds by stage, the share of a run that is done, and the time left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .._progress import Progress

STAGES = ("features", "design", "ridge", "scores")


class Clock:
    """Seconds by stage, the overall share done, and the time left in a stage."""

    def __init__(self, shares: Mapping[str, float]) -> None:
        self.seconds: dict[str, float] = {}
        total = sum(shares.values())
        self._shares = {stage: share / total for stage, share in shares.items()}
        self._stage = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in this block as this stage's."""
        self._stage, self._started = name, time.monotonic()
        yield
        self.seconds[name] = time.monotonic() - self._started

    def so_far(self) -> dict[str, float]:
        """Seconds of the finished stages and of the one that is running."""
        return self.seconds | {self._stage: time.monotonic() - self._started}

    def progress(
        self, done: float, total: float, detail: str = "", *, at_once: tuple[float, float] = (0, 0)
    ) -> Progress:
        """Progress in the running stage; `at_once`: of `done` and of `total`, what takes no time worth counting."""
        before = sum(self._shares[s] for s in STAGES[: STAGES.index(self._stage)])
        share = min(done / total, 1.0) if total else 1.0
        elapsed = time.monotonic() - self._started
        overall = before + self._shares[self._stage] * share
        work, all_work = done - at_once[0], total - at_once[1]
        if work <= 0.02 * all_work or work <= 0 or elapsed <= 0.5:
            return Progress(self._stage, done, total, overall, detail)
        left = max(0.0, elapsed * (all_work - work) / work)
        return Progress(self._stage, done, total, overall, detail, left, rate=work / elapsed)
