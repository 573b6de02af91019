"""What this machine has: free memory, how fast it multiplies, and how many threads BLAS uses.

OpenBLAS, as numpy brings it, has one number of threads for the whole process; two limits of threadpoolctl that overlap
and are left in the order they were entered would leave it at one thread for good. So `blas_limited` counts all limits
of the process in one place. MKL, and BLAS on OpenMP, keep a number for each thread instead: `blas_by_thread` is for
them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController, threadpool_limits


log = logging.getLogger(__name__)
# threadpoolctl's names for the threading layers of such libraries.
_COUNT_BY_THREAD = ["openmp", "intel", "gnu", "tbb", "pgi"]

_lock = threading.RLock()
_limits: list[int] = []  # entered and not left
_held: threadpool_limits | None = None


def n_threads() -> int:
    """Threads that BLAS uses now: the cores, or the limit of OMP_NUM_THREADS or threadpoolctl; 1 where unknown."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def blas_limited(limit: int) -> Iterator[bool]:
    """BLAS at no more than `limit` threads in the whole process. False, and no limit, where that cannot be set.

    Limits may overlap, and may be entered and left in any order and in any thread: the smallest holds, and the last
    one to be left restores the number from before the first. Yields False where another thread of this process has
    limited BLAS with threadpoolctl, or a library refuses.
    """
    with _lock:
        _limits.append(limit)
        had = _hold_smallest()
        if not had:
            _limits.remove(limit)
            _hold_smallest()
    try:
        yield had
    finally:
        if had:
            with _lock:
                _limits.remove(limit)
                _hold_smallest()


def _hold_smallest() -> bool:
    """Limit BLAS to the smallest of the limits that are entered, or to nothing; whether that holds now."""
    global _held
    from threadpoolctl import OpenBLASController, threadpool_limits

    # threadpoolctl lets one thread set OpenBLAS's number, and ignores all others in silence
    release = partial(OpenBLASController.clear_controlling_thread, force=True)
    try:
        if _held is not None:
            release()
            _held.restore_original_limits()
            release()
            _held = None
        smallest = min(_limits, default=None)
        if smallest is None or smallest >= n_threads():
            return True
        held = threadpool_limits(smallest, user_api="blas")
        if n_threads() > smallest:
            return False
        _held = held
        return True
    except Exception:  # whatever a BLAS library raises: the work goes on without a limit
        log.exception("BLAS's threads could not be limited to %s.", min(_limits))
        return False


def blas_by_thread() -> ThreadpoolController:
    """BLAS libraries with a number of threads per thread; `.limit(limits=1)` applies to the thread that enters it."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").select(threading_layer=_COUNT_BY_THREAD)


# A container's memory limit on Linux: control groups version 2, then version 1.
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def free_memory(*, control_groups: Path = _CONTROL_GROUPS) -> int:
    """Bytes that are free on the machine, or in its container if that has less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit_name, usage_name, cache_name in _LIMITS:
        limit, usage = _number(control_groups / limit_name), _number(control_groups / usage_name)
        if limit is None or usage is None:
            continue
        cached = _statistic((control_groups / limit_name).with_name("memory.stat"), cache_name)
        free = min(free, max(0, limit - usage + cached))  # the kernel frees cached files on demand
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
    """Work per second; a multiply-add counts as two operations.

    Attributes
    ----------
    single, double : operations per second in large float32 and float64 matrix products
    elements : float32 values per second in a sum of squares
    """

    single: float
    double: float
    elements: float


def rates() -> Rates:
    """`Rates` of this machine's processor, measured in about 0.2 s, once per number of BLAS threads.

    A measurement during a fit, which limits BLAS to one thread, is therefore not used afterwards.
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
    """The shortest of a few times, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
