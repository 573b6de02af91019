"""What this machine has to offer: free memory, how fast it multiplies, and how many threads BLAS uses.

Limits on BLAS's threads may overlap, and may be left in another thread than they began in. OpenBLAS, as numpy brings
it, has one number for the whole process, threadpoolctl lets one thread set it and is silent to all others, and a
limit gives back the number that it found, which may have been another's limit. So one thread of ours sets it for all
who ask: the least of what is asked for holds, and when the last has left there is what was there before the first.
MKL, and BLAS on OpenMP, keep a number for each thread instead: `blas_by_thread` is for them.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController


log = logging.getLogger(__name__)
# How such libraries run their threads, in threadpoolctl's words.
_COUNT_BY_THREAD = ["openmp", "intel", "gnu", "tbb", "pgi"]

_starting = threading.RLock()
_keeper: tuple[threading.Thread, queue.SimpleQueue] | None = None


def n_threads() -> int:
    """Threads that BLAS uses now: cores, or what OMP_NUM_THREADS or whoever limits them says; 1 where unknown."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def blas_limited(limit: int) -> Iterator[bool]:
    """BLAS at no more than `limit` threads in the whole process. False, and no limit, where that cannot be had.

    It cannot be had of an OpenBLAS that some other thread limits with threadpoolctl.
    """
    had = _ask("enter", limit)
    try:
        yield had
    finally:
        if had:
            _ask("leave", limit)


def blas_by_thread() -> ThreadpoolController:
    """BLAS libraries that count threads for each thread apart; its `.limit(limits=1)` is of the thread that enters."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas").select(threading_layer=_COUNT_BY_THREAD)


def _ask(change: str, limit: int) -> bool:
    """Tell the keeper, and wait for its answer. Without locks that it may need: a generator that is collected as
    garbage leaves its limit in whichever thread collects it, even the keeper's."""
    global _keeper
    with _starting:
        if _keeper is None or not _keeper[0].is_alive():  # at first, and in a forked process
            asked: queue.SimpleQueue = queue.SimpleQueue()
            thread = threading.Thread(target=_keep, args=(asked,), name="encoding_nb-blas", daemon=True)
            thread.start()
            _keeper = thread, asked
        keeper, asked = _keeper
    answer: queue.SimpleQueue = queue.SimpleQueue()
    asked.put((change, limit, answer))
    return False if keeper is threading.current_thread() or sys.is_finalizing() else answer.get()


def _keep(asked: queue.SimpleQueue) -> None:
    """Hold the least of the limits that have been entered and not left."""
    wanted: list[int] = []
    found, held = 1, ExitStack()
    while True:
        change, limit, answer = asked.get()
        before, had = min(wanted, default=None), False
        if change == "enter":
            wanted.append(limit)
        elif limit in wanted:  # else entered in the process that this one was forked from
            wanted.remove(limit)
        try:
            if before is None:
                before = found = n_threads()
            _hold(min(wanted, default=found), before, found, held)
            had = n_threads() <= limit
        except Exception:  # whoever asked waits for an answer, whatever a library may raise
            log.exception("BLAS's threads could not be limited to %d.", limit)
        if change == "enter" and not had:  # at once, or it would give back a number that was another's
            wanted.remove(limit)
            _hold(min(wanted, default=found), limit, found, held)
        answer.put(had)


def _hold(least: int, before: int, found: int, held: ExitStack) -> None:
    """Change the limit that is held, where it is not what it was before; none holds where it is what was found."""
    from threadpoolctl import threadpool_limits

    if least != before:
        held.close()
        if least < found:
            held.enter_context(threadpool_limits(least, user_api="blas"))


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
