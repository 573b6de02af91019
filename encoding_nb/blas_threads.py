"""How many threads BLAS uses: limits that may overlap, and that may be left in another thread than they began in.

OpenBLAS, as numpy brings it, has one number for the whole process, threadpoolctl lets one thread set it and is
silent to all others, and a limit gives back the number that it found, which may have been another's limit. So here
one thread of ours sets it for all who ask: the least of what is asked for holds, and when the last has left there
is what was there before the first. MKL, and BLAS on OpenMP, keep a number for each thread instead:
`blas_by_thread` is for them.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

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


__all__ = ["blas_by_thread", "blas_limited", "n_threads"]
