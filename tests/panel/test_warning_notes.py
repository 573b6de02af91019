"""Warnings, collected by thread."""

import threading
import warnings
from contextvars import copy_context

import pytest

from encoding_nb import assembly
from encoding_nb.panel.warning_notes import listening, notes_html


def warn(text, category=UserWarning):
    warnings.warn(text, category, stacklevel=1)


def test_a_thread_hears_its_own_warnings_and_no_others():
    heard, ready, go = [], threading.Event(), threading.Event()

    def work():
        with listening(heard.append):
            ready.set()
            go.wait(10)
            warn("of the thread")

    with pytest.warns(UserWarning, match="of all others") as shown:
        thread = threading.Thread(target=work)
        thread.start()
        ready.wait(10)
        warn("of all others")
        go.set()
        thread.join(10)
    assert heard == ["of the thread"] and len(shown) == 1


def test_threads_that_work_in_a_copy_of_the_context_are_heard():
    heard = []
    with listening(heard.append):
        context = copy_context()
        thread = threading.Thread(target=context.run, args=(warn, "of a thread of the run"))
        thread.start()
        thread.join(10)
    assert heard == ["of a thread of the run"]


def test_listeners_stand_in_line_and_leave():
    outer, inner = [], []
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with listening(outer.append):
            with listening(inner.append):
                warn("one")
            warn("two")
        warn("three")
    assert (inner, outer, [str(w.message) for w in shown]) == (["one"], ["two"], ["three"])


def test_only_what_is_meant_for_the_person_is_taken():
    heard = []
    with pytest.warns(RuntimeWarning, match="divide"), listening(heard.append):
        warn("divide by zero", RuntimeWarning)
    assert heard == []


def test_the_second_run_is_told_what_the_first_was_told():
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # Python shows a warning of one place once
        for _ in range(2):
            with listening(heard.append):
                exec("import warnings\nwarnings.warn('again', stacklevel=1)", assembly.__dict__)
    assert heard == ["again", "again"]


def test_notes_are_counted_and_folded():
    assert notes_html([]) == ""
    assert "<summary>1 note about this run" in notes_html(["a"])
    html = notes_html(["a <b>", "c"])
    assert "<summary>2 notes about this run" in html and "a &lt;b&gt;" in html
