"""Generators in threads: all is yielded, errors and stops come through, BLAS gets its threads back."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from encoding_nb._machine import n_threads
from encoding_nb.ridge import _fit, _problem, cv
from encoding_nb.ridge import folds as the_folds
from encoding_nb.ridge._fit import steps

from ..test_blas_threads import blas_at, in_thread

WAIT = 30  # seconds, for what takes none


@pytest.fixture
def two_threads():
    with blas_at(2):
        yield


def count(n, seen):
    for number in range(n):
        seen.append((threading.current_thread().name, n_threads()))
        yield (n, number)


def test_one_worker_goes_in_turn_and_right_here():
    seen = []
    assert list(steps((count(n, seen) for n in (3, 1, 2)), 1)) == [
        (3, 0), (3, 1), (3, 2), (1, 0), (2, 0), (2, 1),
    ]  # fmt: skip
    assert {name for name, _ in seen} == {threading.current_thread().name}


def test_everything_is_yielded_each_job_in_its_order(two_threads):
    seen = []
    found = list(steps((count(n, seen) for n in (30, 10, 20, 0, 7)), 3))
    assert sorted(found) == sorted((n, i) for n in (30, 10, 20, 7) for i in range(n))
    for n in (30, 10, 20, 7):
        assert [i for m, i in found if m == n] == list(range(n))
    assert {name for name, _ in seen} == {"encoding_nb-tile"} and {blas for _, blas in seen} == {1}
    assert n_threads() == 2


def test_two_jobs_are_worked_on_at_once(two_threads):
    both = threading.Barrier(2)

    def job():
        both.wait(WAIT)
        yield 1

    assert list(steps([job(), job()], 2)) == [1, 1]


def test_an_error_stops_the_others_and_is_raised(two_threads):
    seen = []

    def fails():
        yield 1
        raise KeyError("voxels")

    with pytest.raises(KeyError, match="voxels"):
        list(steps([fails(), count(10**7, seen), count(10**7, seen)], 2))
    n = len(seen)
    time.sleep(0.05)
    assert len(seen) == n < 10**7 and n_threads() == 2


def test_closing_waits_for_the_workers_and_gives_blas_its_threads_back(two_threads):
    seen, left = [], []

    def job():
        try:
            yield from count(10**7, seen)
        finally:
            left.append(threading.current_thread().name)

    running = steps([job(), job(), job()], 2)
    assert next(running)
    running.close()
    assert len(left) == 2, "the two that were begun; the third never was"
    assert n_threads() == 2


def test_blas_that_another_limits_leaves_the_jobs_in_turn(two_threads):
    """threadpoolctl lets one thread set OpenBLAS's limits; what cannot be had must not be taken for had."""
    seen = []
    with threadpool_limits(2, user_api="blas"):
        assert list(steps([count(1, seen), count(1, seen)], 2)) == [(1, 0), (1, 0)]
    assert seen == [(threading.current_thread().name, 2)] * 2
    assert n_threads() == 2


def many_steps(Y, **options):
    """A fit that is worked on in threads, up to its first step there."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((len(Y[:, :1]), 8))
    folds = the_folds.make_folds(len(X), n_folds=3, chunk_length=5)
    running = cv.ridge_steps(X, Y, alphas=[1.0, 10.0], folds=folds, tile=20, **options)
    for _ in running:
        if n_threads() == 1:
            return running


@pytest.fixture
def threaded(two_threads, monkeypatch):
    monkeypatch.setattr(_problem, "THREADED_VALUES", 0)
    return np.random.default_rng(5).standard_normal((60, 2000)).astype("f4")


def test_a_fit_may_end_in_another_thread_than_it_began_in(threaded):
    running = many_steps(threaded)
    in_thread(running.close)
    assert n_threads() == 2
    running = many_steps(threaded)
    assert in_thread(lambda: list(running))
    assert n_threads() == 2


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_fit_that_one_of_its_workers_collects_as_garbage_ends(threaded):
    """Its lock on Y is held by that worker, so the other could not be waited for."""
    left, collected = threading.Event(), threading.Event()
    reads = []

    class Collects:
        shape, dtype = threaded.shape, threaded.dtype

        def __getitem__(self, key):
            if threading.current_thread() in workers():
                reads.append(key)
                if len(reads) == 3:  # a step has been said by then, and most tiles are still to come
                    assert left.wait(WAIT)
                    gc.collect()
                    collected.set()
            return threaded[key]

    def leave_in_a_cycle():
        kept = [many_steps(Collects())]
        kept.append(kept)

    gc.disable()
    try:
        leave_in_a_cycle()
        left.set()
        assert collected.wait(WAIT)
    finally:
        gc.enable()
    deadline = time.monotonic() + WAIT
    while workers() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not workers() and n_threads() == 2


def workers():
    return [thread for thread in threading.enumerate() if thread.name == "encoding_nb-tile"]


def test_an_error_in_a_tile_does_not_keep_the_fit_in_memory(threaded):
    class Fails:
        shape, dtype = threaded.shape, threaded.dtype

        def __getitem__(self, key):
            if threading.current_thread().name == "encoding_nb-tile":
                raise OSError("the disk is away")
            return threaded[key]

    gc.disable()
    try:
        Y = Fails()
        kept = weakref.ref(Y)
        try:
            list(many_steps(Y))
        except OSError as error:
            said = str(error)
        assert said == "the disk is away"
        del Y
        assert kept() is None
    finally:
        gc.enable()


def test_a_tile_for_each_worker_to_the_end():
    for n_rows, n_voxels, n_workers in (
        (1289, 21229, 2),
        (1000, 10000, 2),
        (8673, 95556, 16),
        (60, 3, 8),
        (60, 1, 1),
    ):
        width = _problem.tile_width(n_rows, n_voxels, n_workers)
        n_tiles = -(-n_voxels // width)
        assert 1 <= width <= 2048 and (n_tiles % n_workers == 0 or n_voxels < 64 * n_workers)
        assert n_workers * width * n_rows * 4 <= 2.1 * _problem.TILE_BYTES or width <= 64


CASES = {
    "primal": {},
    "dual": {"k": 150},
    "r2": {"use_corr": False},
    "one alpha": {"single_alpha": True},
    "weights": {"return_weights": True, "k": 150},
    "hard": {"alphas": [1e-12, 10.0]},
    "time series": {"folding": "timeseries"},
    "z-scored": {"standardize_X": True, "standardize_Y": True},
    "every score": {"return_all_scores": True, "prediction_floor": 1e-3},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_fit_in_threads_is_the_fit_in_turn(case, two_threads, monkeypatch):
    rng = np.random.default_rng(3)
    options = {"alphas": [1.0, 30.0, 1e3], **case}
    n, k, v = 120, options.pop("k", 20), 400
    X, X_test = rng.standard_normal((n, k)), rng.standard_normal((40, k))
    B = rng.standard_normal((k, v)) * rng.uniform(0, 0.3, v)
    Y = (X @ B + rng.standard_normal((n, v))).astype("f4")
    Y[:, 17] = 2.5
    Y_test = (X_test @ B + rng.standard_normal((40, v))).astype("f4")
    options["folds"] = the_folds.make_folds(n, folding_type=options.pop("folding", "chunked"), n_folds=4)
    options |= {"X_test": X_test, "Y_test": Y_test}
    used, in_threads = [], _fit._in_threads
    monkeypatch.setattr(_fit, "_in_threads", lambda jobs, n: used.append(len(jobs)) or in_threads(jobs, n))
    expected = cv.ridge_cv(X, Y, **options)
    assert not used, "small fits start no threads"
    monkeypatch.setattr(_problem, "THREADED_VALUES", 0)
    found = cv.ridge_cv(X, Y, tile=37, **options)
    assert used and all(n_jobs == -(-v // 37) for n_jobs in used)
    np.testing.assert_array_equal(found.best_alphas, expected.best_alphas)
    for name in ("cv_scores", "correlations", "predictions", "weights", "all_cv_scores"):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None)
        if one is not None:
            np.testing.assert_allclose(one, other, atol=2e-5, err_msg=name)
    assert list(found.constant_voxels) == [17]


def test_responses_are_read_by_one_thread_at_a_time(two_threads, monkeypatch):
    """A file's data set may not bear two."""
    monkeypatch.setattr(_problem, "THREADED_VALUES", 0)
    rng = np.random.default_rng(5)
    X, values = rng.standard_normal((60, 5)), rng.standard_normal((60, 200)).astype("f4")
    inside, most = [], []

    class File:
        shape, dtype = values.shape, values.dtype

        def __getitem__(self, key):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.001)
            inside.pop()
            return values[key]

    folds = the_folds.make_folds(60, n_folds=3, chunk_length=5)
    options = {"alphas": [1.0, 10.0], "folds": folds, "tile": 10, "X_test": X[:20]}
    found = cv.ridge_cv(X, File(), Y_test=values[:20], **options)
    assert len(most) > 20 and max(most) == 1
    np.testing.assert_allclose(
        found.correlations, cv.ridge_cv(X, values, Y_test=values[:20], **options).correlations, atol=1e-6
    )
