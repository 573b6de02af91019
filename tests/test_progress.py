"""Progress of long work, how it is cancelled, and the warnings that a run collects."""

import contextvars
import threading
import warnings

import pytest

from encoding_nb import _progress
from encoding_nb._progress import Cancelled, Progress


def test_a_note_is_a_warning_of_whoever_says_it():
    with pytest.warns(UserWarning, match="three words") as caught:
        _progress.warn("three words are missing", stacklevel=1)
    assert caught[0].filename == __file__


def test_a_listener_hears_each_sentence_once_even_where_no_warning_is_shown():
    heard = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _progress.warn("before")
        with _progress.listening(heard):
            for _ in range(2):
                _progress.warn("within")
        _progress.warn("after")
    assert heard == ["within"]


def test_threads_do_not_hear_each_other():
    heard = {name: [] for name in ("one", "other")}
    together = threading.Barrier(2)

    def work(name):
        with _progress.listening(heard[name]):
            together.wait()
            _progress.warn(name)
            together.wait()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=work, args=(name,)) for name in heard]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == {"one": ["one"], "other": ["other"]}


def test_an_error_ends_the_listening():
    heard = []
    with pytest.raises(ZeroDivisionError), _progress.listening(heard):
        raise ZeroDivisionError
    with pytest.warns(UserWarning):
        _progress.warn("later")
    assert heard == []


def test_threads_that_work_in_a_copy_of_the_context_are_heard():
    heard = []
    with warnings.catch_warnings(), _progress.listening(heard):
        warnings.simplefilter("ignore")
        context = contextvars.copy_context()
        threads = [
            threading.Thread(target=context.run, args=(_progress.warn, "of a thread of the run")),
            threading.Thread(target=_progress.warn, args=("of another thread",)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert heard == ["of a thread of the run"]


# ---------------------------------------------------------------------- what progress=... asks for


STEPS = [Progress("features", 1, 2, 0.25, "gravy"), Progress("scores", 1, 1, 0.9, "permutation test")]


def test_a_function_is_called_with_each_step(capsys):
    told = []
    with _progress.shown(told.append) as tell:
        for step in STEPS:
            tell(step)
    assert told == STEPS and capsys.readouterr().err == ""


def test_true_shows_a_bar_that_ends_at_100_percent(capsys):
    with _progress.shown(True) as tell:
        for step in STEPS:
            tell(step)
    shown = capsys.readouterr().err
    assert "100%" in shown and "scores: permutation test" in shown


def test_false_shows_nothing(capsys):
    with _progress.shown(False) as tell:
        for step in STEPS:
            tell(step)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("wrong", [None, 1, "yes"])
def test_what_shows_no_progress_is_refused(wrong):
    says = f"progress: expected True, False or a function of one step, got {wrong!r}"
    with pytest.raises(TypeError, match=says), _progress.shown(wrong):
        pass


def test_cancelled_leaves_the_bar_and_the_block_and_is_no_failure_of_the_work(capsys):
    failures = []
    with pytest.raises(Cancelled), _progress.shown(True) as tell:
        tell(STEPS[0])
        try:
            raise Cancelled
        except Exception as error:  # noqa: BLE001 - code that records failures
            failures.append(error)
    assert not failures and "100%" not in capsys.readouterr().err
