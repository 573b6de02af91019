"""The thread that runs a job."""

import threading

import pytest

from encoding_nb._progress import Cancelled
from encoding_nb.panel.worker import Worker


def counting(n):
    def job(tell):
        for i in range(n):
            tell(i)
        return "all"

    return job


def test_result_and_progress_arrive_in_order():
    seen, ended = [], []
    worker = Worker(counting(4), on_progress=seen.append, on_end=ended.append).start()
    assert worker.join(5)
    assert (worker.result, worker.error, worker.cancelled) == ("all", None, False)
    assert seen == [0, 1, 2, 3] and worker.latest == 3
    assert ended == [worker]


def test_cancel_ends_the_job_at_its_next_step_and_its_clean_up_runs():
    gate, closed, seen, ended = threading.Semaphore(2), threading.Event(), [], []

    def job(tell):
        try:
            while True:
                gate.acquire(timeout=5)
                tell(1)
        finally:
            closed.set()

    worker = Worker(job, on_progress=seen.append, on_end=ended.append).start()
    worker.cancel()
    gate.release()
    assert worker.join(5)
    assert worker.cancelled and closed.is_set() and worker.result is None and worker.error is None
    assert len(seen) <= 3 and ended == [worker]


def test_cancel_before_the_start_runs_nothing():
    begun, ended = [], []
    worker = Worker(lambda tell: begun.append(1), on_end=ended.append)
    worker.cancel()
    worker.start()
    assert worker.join(5)
    assert worker.cancelled and not begun and ended == [worker]
    assert worker.result is None and worker.error is None


def test_cancel_passes_code_that_records_failures():
    """Such as a sweep, which goes on after a run that failed."""
    told, asked, failures = threading.Event(), threading.Event(), []

    def job(tell):
        for _ in range(3):
            try:
                told.set()
                asked.wait(5)
                tell(1)
            except Exception as error:  # noqa: BLE001 - what this is about
                failures.append(error)

    worker = Worker(job).start()
    assert told.wait(5)
    worker.cancel()
    asked.set()
    assert worker.join(5)
    assert worker.cancelled and not failures and not issubclass(Cancelled, Exception)


def test_a_cancel_after_the_last_step_leaves_the_result():
    last, asked = threading.Event(), threading.Event()

    def job(tell):
        tell(1)
        last.set()
        asked.wait(5)
        return "all"

    worker = Worker(job).start()
    assert last.wait(5)
    worker.cancel()
    asked.set()
    assert worker.join(5)
    assert worker.result == "all" and not worker.cancelled


def test_an_error_is_kept_and_the_end_is_told():
    def job(tell):
        tell(1)
        raise ValueError("storya has no words")

    ended = []
    worker = Worker(job, on_end=ended.append).start()
    assert worker.join(5)
    assert isinstance(worker.error, ValueError) and not worker.cancelled and ended == [worker]


def test_an_error_of_whoever_is_told_ends_the_job():
    worker = Worker(counting(4), on_progress=lambda step: 1 / step).start()
    assert worker.join(5)
    assert isinstance(worker.error, ZeroDivisionError) and worker.result is None and worker.latest == 0


@pytest.mark.parametrize("n", [0, 1])
def test_running_is_false_after_the_end(n):
    worker = Worker(counting(n)).start()
    worker.join(5)
    assert not worker.running
