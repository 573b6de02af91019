"""Tiles of one fit side by side, a thread each, with BLAS at one thread in all of them.

Between its products a tile is centred, summed and copied by one core, for which the others would wait: a
quarter of a fit's time on two cores. One tile a core leaves nobody waiting, and a product of one thread takes
as much of its core as one of many does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

_LIMITING = threading.Lock()


def n_threads() -> int:
    """Threads that BLAS uses now: cores, or what OMP_NUM_THREADS or whoever limits them says; 1 where unknown."""
    from threadpoolctl import threadpool_info

    return max((pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"), default=1)


@contextmanager
def one_blas_thread() -> Iterator[bool]:
    """BLAS at one thread, in the whole process: it knows no other way. False where that could not be had.

    It cannot be had of an OpenBLAS that another thread limits already (threadpoolctl gives the limits to one
    thread at a time), and not where one thread is all there is. To be left in the thread that entered.
    """
    from threadpoolctl import threadpool_limits

    with ExitStack() as limits:
        with _LIMITING:  # or two could find many threads, and the first to leave would wake the other's
            had = n_threads() > 1
            if had:
                limits.enter_context(threadpool_limits(1, user_api="blas"))
                had = n_threads() == 1
        yield had


def steps(jobs: Iterable[Generator[Any, None, None]], n_workers: int) -> Generator[Any, None, None]:
    """What generators yield, each drained in one of `n_workers` threads; in turn and right here for one worker.

    So, too, where BLAS cannot be held at one thread. An error in one is raised here. Closing stops every one of
    them at its next step, and waits for that.
    """
    jobs = list(jobs)
    if min(n_workers, len(jobs)) < 2:
        yield from _in_turn(jobs)
        return
    with one_blas_thread() as had:
        yield from _in_threads(jobs, n_workers) if had else _in_turn(jobs)


def _in_turn(jobs: list[Generator]) -> Generator[Any, None, None]:
    for job in jobs:
        yield from job


def _in_threads(jobs: list[Generator], n_workers: int) -> Generator[Any, None, None]:
    waiting, said, stop = jobs[::-1], queue.SimpleQueue(), threading.Event()
    threads = [
        threading.Thread(target=_work, args=(waiting, said, stop), name="encoding_nb-tile", daemon=True)
        for _ in range(min(n_workers, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        at_work = len(threads)
        while at_work:
            what, value = said.get()
            if what == "error":
                raise value
            if what == "step":
                yield value
            else:
                at_work -= 1
    finally:
        stop.set()
        for thread in threads:
            if thread.ident is not None:  # it was started
                thread.join()


def _work(waiting: list[Generator], said: queue.SimpleQueue, stop: threading.Event) -> None:
    try:
        while not stop.is_set():
            try:
                job = waiting.pop()
            except IndexError:
                break
            for value in job:
                said.put(("step", value))
                if stop.is_set():
                    job.close()
                    break
    except BaseException as error:  # noqa: BLE001 - raised again by whoever drains `steps`
        said.put(("error", error))
    else:
        said.put(("over", None))


__all__ = ["n_threads", "one_blas_thread", "steps"]
