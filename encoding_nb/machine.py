"""What this machine has to offer: free memory, and how fast it multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .blas_threads import n_threads

# Where Linux tells a container its limit: version 2 of control groups, then version 1.
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_memory(*, control_groups: Path = _CONTROL_GROUPS) -> int:
    """Bytes that a run may still take: what the machine has, or what its container is allowed, if less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit_name, usage_name, cache_name in _LIMITS:
        limit, usage = _number(control_groups / limit_name), _number(control_groups / usage_name)
        if limit is None or usage is None:
            continue
        cached = _statistic((control_groups / limit_name).with_name("memory.stat"), cache_name)
        free = min(free, max(0, limit - usage + cached))  # the kernel gives cached files up when asked
    return free


def _number(path: Path) -> int | None:
    """The number in a file; None where there is no file or it says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        entries = dict(line.split() for line in path.read_text().splitlines())
        return int(entries[name])
    except (OSError, ValueError, KeyError):
        return 0


@dataclass(frozen=True)
class Rates:
    """Work a second: multiply-adds count as two operations.

    Attributes
    ----------
    single, double : operations a second in large float32 and float64 matrix products
    elements : float32 values a second that a sum of squares reads
    """

    single: float
    double: float
    elements: float


def rates() -> Rates:
    """`Rates` of this machine's processor, measured in about 0.2 s, once for each number of threads that BLAS uses.

    So what is measured beside a fit, which holds BLAS at one thread, is not taken for the machine's own later.
    """
    return _rates(n_threads())


@lru_cache
def _rates(n_blas_threads: int) -> Rates:
    rng = np.random.default_rng(0)
    n = 1024
    A = rng.standard_normal((n, n)).astype(np.float32)
    B = A.astype(float)
    rows = np.resize(A, (4 * n, n))
    return Rates(
        single=2 * n**3 / _seconds(lambda: A @ A),
        double=2 * n**3 / _seconds(lambda: B @ B),
        elements=rows.size / _seconds(lambda: np.vecdot(rows, rows)),
    )


def _seconds(work: Callable[[], Any], *, repeats: int = 3) -> float:
    """Shortest of a few times, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
