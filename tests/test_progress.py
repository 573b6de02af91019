"""Notes are warnings that somebody keeps: each thread its own."""

import threading
import warnings

import pytest

from encoding_nb import _progress


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
