"""The thread that drains a generator."""

import threading

import pytest

from encoding_nb.panel.worker import Worker


def counting(n, gate=None):
    for i in range(n):
        if gate is not None:
            gate.wait(5)
        yield i
    return "all"


def test_result_and_progress_arrive_in_order():
    seen, ended = [], []
    worker = Worker(counting(4), on_progress=seen.append, on_end=ended.append).start()
    assert worker.join(5)
    assert (worker.result, worker.error, worker.cancelled) == ("all", None, False)
    assert seen == [0, 1, 2, 3]
    assert ended == [worker]


def test_cancel_stops_between_steps_and_closes_the_generator():
    gate, closed = threading.Semaphore(2), threading.Event()

    def steps():
        try:
            while True:
                gate.acquire(timeout=5)
                yield 1
        finally:
            closed.set()

    worker = Worker(steps()).start()
    worker.cancel()
    gate.release()
    assert worker.join(5)
    assert worker.cancelled and closed.is_set() and worker.result is None


def test_an_error_is_kept_and_the_end_is_told():
    def steps():
        yield 1
        raise ValueError("storya has no words")

    ended = []
    worker = Worker(steps(), on_end=ended.append).start()
    assert worker.join(5)
    assert isinstance(worker.error, ValueError) and ended == [worker]


@pytest.mark.parametrize("n", [0, 1])
def test_running_is_false_after_the_end(n):
    worker = Worker(counting(n)).start()
    worker.join(5)
    assert not worker.running
