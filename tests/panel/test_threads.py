"""Small work in threads, and who receives its warnings."""

import threading
from contextvars import copy_context

import pytest

from encoding_nb._progress import warn
from encoding_nb.panel._threads import Latest, warnings_to

pytestmark = pytest.mark.filterwarnings("ignore:of ")


def test_a_thread_receives_its_own_warnings_and_no_others():
    heard, ready, go = [], threading.Event(), threading.Event()

    def work():
        with warnings_to(heard.append):
            ready.set()
            go.wait(10)
            warn("of the thread")

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait(10)
    warn("of all others")
    go.set()
    thread.join(10)
    assert heard == ["of the thread"]


def test_threads_in_a_copy_of_the_context_are_heard_and_blocks_nest():
    outer, inner = [], []
    with warnings_to(outer.append):
        thread = threading.Thread(target=copy_context().run, args=(warn, "of a thread of the run"))
        thread.start()
        thread.join(10)
        with warnings_to(inner.append):
            warn("of the block inside")
    assert outer == ["of a thread of the run"] and inner == ["of the block inside"]


def test_warnings_arrive_when_the_work_fails():
    heard = []
    with pytest.raises(ZeroDivisionError), warnings_to(heard.append):
        warn("of what failed")
        1 / 0  # noqa: B018 - it raises
    assert heard == ["of what failed"]


def test_the_latest_request_wins():
    done, begun, go = [], threading.Event(), threading.Event()

    def work(number):
        begun.set()
        go.wait(10)
        done.append(number)

    latest = Latest(work)
    latest.ask(1)
    begun.wait(10)
    for number in (2, 3, 4):
        latest.ask(number)
    go.set()
    assert latest.join(10) and done == [1, 4]
