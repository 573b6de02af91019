"""Tiles of one fit side by side, a thread each, with BLAS at one thread in all of them.

Between its products a tile is centred, summed and copied by one core, for which the others would wait: a
quarter of a fit's time on two cores. One tile a core leaves nobody waiting, and a product of one thread takes
as much of its core as one of many does.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable
from typing import Any

from .blas_threads import blas_by_thread, blas_limited


def steps(jobs: Iterable[Generator[Any, None, None]], n_workers: int) -> Generator[Any, None, None]:
    """What generators yield, each drained in one of `n_workers` threads; in turn and right here for one worker.

    So, too, where BLAS cannot be held at one thread. An error in one is raised here. Closing stops every one of
    them at its next step, and waits for that.
    """
    jobs = list(jobs)
    if min(n_workers, len(jobs)) < 2:
        yield from _in_turn(jobs)
        return
    with blas_limited(1) as had:
        yield from _in_threads(jobs, n_workers) if had else _in_turn(jobs)


def _in_turn(jobs: list[Generator]) -> Generator[Any, None, None]:
    for job in jobs:
        yield from job


def _in_threads(jobs: list[Generator], n_workers: int) -> Generator[Any, None, None]:
    waiting, said, stop = jobs[::-1], queue.SimpleQueue(), threading.Event()
    # Looked for here: several threads that list libraries at once may block each other.
    own = blas_by_thread()
    threads = [
        threading.Thread(target=_work, args=(waiting, said, stop, own), name="encoding_nb-tile", daemon=True)
        for _ in range(min(n_workers, len(jobs)))
    ]
    try:
        for thread in threads:
            thread.start()
        at_work = len(threads)
        while at_work:
            what, value = said.get()
            if what == "error":
                try:
                    raise value
                finally:
                    del value  # or this frame and the error would hold each other, and the fit's arrays
            if what == "step":
                yield value
            else:
                at_work -= 1
    finally:
        stop.set()
        # Left half-drained, this may be collected as garbage by one of the workers, who cannot wait for themselves.
        if threading.current_thread() not in threads:
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()
        while not said.empty():  # or an error that nobody hears would hold itself, and the fit's arrays
            said.get()


def _work(waiting: list[Generator], said: queue.SimpleQueue, stop: threading.Event, own: Any) -> None:
    try:
        with own.limit(limits=1):
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


__all__ = ["steps"]
