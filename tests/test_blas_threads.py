"""Limits on BLAS's threads: least of all holds, and what was there before is there after, whoever leaves last."""

import queue
import threading
from contextlib import contextmanager
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import ThreadpoolController, threadpool_limits

from encoding_nb._machine import blas_by_thread, blas_limited, n_threads

WAIT = 30  # seconds, for what takes none


def in_thread(work):
    """What `work` gives in a thread of its own, which is over then."""
    found = queue.SimpleQueue()
    thread = threading.Thread(target=lambda: found.put(work()), daemon=True)
    thread.start()
    thread.join(WAIT)
    return found.get(timeout=1)


@contextmanager
def blas_at(number):
    """BLAS at so many threads, however many this machine or OMP_NUM_THREADS allows; set by a thread that has ended."""
    before = n_threads()
    in_thread(lambda: threadpool_limits(number, user_api="blas") and None)
    if n_threads() != number:
        pytest.skip("this BLAS cannot be told how many threads to use")
    yield
    in_thread(lambda: threadpool_limits(before, user_api="blas") and None)


@pytest.fixture(scope="module")
def four_threads():
    with blas_at(4):
        yield


def test_the_limit_holds_and_is_gone_after(four_threads):
    with blas_limited(1) as had:
        assert had and n_threads() == 1
    assert n_threads() == 4
    with pytest.raises(KeyError), blas_limited(1):
        raise KeyError
    assert n_threads() == 4


def test_a_limit_above_what_there_is_changes_nothing(four_threads):
    with blas_limited(9) as had:
        assert had and n_threads() == 4
    assert n_threads() == 4


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_of_limits_that_overlap_the_least_holds(four_threads, data):
    """Entered and left in any order, each in this thread or in one of its own."""
    open_limits = []
    for _ in range(data.draw(st.integers(1, 12))):
        here = data.draw(st.booleans())
        if open_limits and data.draw(st.booleans()):
            _, limit = open_limits.pop(data.draw(st.integers(0, len(open_limits) - 1)))
            change, expected = partial(limit.__exit__, None, None, None), None
        else:
            number = data.draw(st.integers(1, 6))
            limit = blas_limited(number)
            change, expected = limit.__enter__, True
            open_limits.append((number, limit))
        assert (change() if here else in_thread(change)) in (expected, False)
        assert n_threads() == min(4, *(number for number, _ in open_limits), 4)
    for _, limit in open_limits:
        limit.__exit__(None, None, None)
    assert n_threads() == 4


def test_a_limit_of_another_thread_is_left_to_it(four_threads):
    entered, leave = threading.Event(), threading.Event()

    def hold():
        with threadpool_limits(2, user_api="blas"):
            entered.set()
            leave.wait(WAIT)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert entered.wait(WAIT)
    with blas_limited(1) as had:
        assert not had and n_threads() == 2
    assert n_threads() == 2
    leave.set()
    holder.join(WAIT)
    assert n_threads() == 4
    with blas_limited(1) as had:
        assert had and n_threads() == 1
    assert n_threads() == 4


def test_a_limit_within_another_of_the_same_thread_holds(four_threads):
    with threadpool_limits(2, user_api="blas"):
        with blas_limited(1) as had:
            assert had and n_threads() == 1
        assert n_threads() == 2
    assert n_threads() == 4


def test_a_limit_that_cannot_be_set_is_not_had(four_threads, monkeypatch, caplog):
    def fails(*_, **__):
        raise OSError("no such library")

    monkeypatch.setattr("threadpoolctl.threadpool_limits", fails)
    with blas_limited(1) as had:
        assert not had
    assert "could not be limited to 1" in caplog.text
    monkeypatch.undo()
    with blas_limited(1) as had:
        assert had and n_threads() == 1
    assert n_threads() == 4


def test_libraries_that_count_by_thread_are_limited_in_theirs(monkeypatch):
    """As MKL: what another thread limits is not limited here. A library made up for it stands in for MKL."""

    class ByThread(threading.local):
        user_api, internal_api, threading_layer, number = "blas", "mkl", "intel", 8

        def set_num_threads(self, number):
            self.number = number

        def get_num_threads(self):
            return self.number

        def info(self, debugging_info=False):
            return {"user_api": self.user_api, "prefix": "libmkl_rt", "num_threads": self.number}

        num_threads = property(get_num_threads)
        prefix, filepath = "libmkl_rt", "/made/up"

    library = ByThread()
    true = ThreadpoolController().lib_controllers
    others = [other for other in true if other.user_api == "blas"]
    before = n_threads()
    monkeypatch.setattr(
        ThreadpoolController, "_load_libraries", lambda self: self.lib_controllers.extend([library, *others])
    )
    with blas_by_thread().limit(limits=1):
        assert library.number == 1
        assert in_thread(lambda: library.number) == 8
        assert max(other.get_num_threads() for other in others) == before, (
            "one that counts for all is left alone"
        )
    assert library.number == 8
