"""Tiles in threads: all work is told, errors and cancels come through, BLAS gets its threads back."""

import gc
import threading
import time
import warnings
import weakref
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from encoding_nb._machine import n_threads
from encoding_nb._progress import Cancelled, listening, warn
from encoding_nb.ridge import _fit, _problem, cv
from encoding_nb.ridge import folds as the_folds
from encoding_nb.ridge._fit import run_jobs

from ..test_blas_threads import blas_at

WAIT = 30  # seconds, for what takes none


@pytest.fixture
def two_threads():
    with blas_at(2):
        yield


def count(n, seen):
    """A job of n pieces of work, which notes the thread that each is done in and what BLAS may use there."""

    def job(tell):
        for number in range(n):
            seen.append((threading.current_thread().name, n_threads()))
            tell((n, number))

    return job


def told_by(jobs, n_workers):
    found = []
    run_jobs(jobs, n_workers, found.append)
    return found


def workers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("encoding_nb-tile")]


def test_one_worker_goes_in_turn_and_right_here():
    seen = []
    assert told_by([count(n, seen) for n in (3, 1, 2)], 1) == [
        (3, 0), (3, 1), (3, 2), (1, 0), (2, 0), (2, 1),
    ]  # fmt: skip
    assert {name for name, _ in seen} == {threading.current_thread().name}


def test_all_work_is_told_here_each_job_in_its_order(two_threads):
    seen, told = [], []

    def tell(work):
        told.append((threading.current_thread(), n_threads()))
        found.append(work)

    found = []
    run_jobs([count(n, seen) for n in (30, 10, 20, 0, 7)], 3, tell)
    assert sorted(found) == sorted((n, i) for n in (30, 10, 20, 7) for i in range(n))
    for n in (30, 10, 20, 7):
        assert [i for m, i in found if m == n] == list(range(n))
    assert all(name.startswith("encoding_nb-tile") for name, _ in seen) and {blas for _, blas in seen} == {1}
    assert set(told) == {(threading.current_thread(), 1)}
    assert n_threads() == 2 and not workers()


def test_two_jobs_are_worked_on_at_once(two_threads):
    both = threading.Barrier(2)

    def job(tell):
        both.wait(WAIT)
        tell(1)

    assert told_by([job, job], 2) == [1, 1]


def test_an_error_stops_the_others_and_is_raised(two_threads):
    seen, raised = [], KeyError("voxels")

    def fails(tell):
        tell(1)
        raise raised

    with pytest.raises(KeyError, match="voxels") as found:
        told_by([fails, count(10**7, seen), count(10**7, seen)], 2)
    assert found.value is raised
    n = len(seen)
    time.sleep(0.05)
    assert len(seen) == n < 10**7 and n_threads() == 2 and not workers()


@pytest.mark.parametrize("kind", [Cancelled, ValueError, KeyboardInterrupt])
def test_what_progress_raises_ends_the_workers_and_gives_blas_its_threads_back(two_threads, kind):
    seen, left, raised = [], [], kind("enough")

    def job(tell):
        try:
            count(10**7, seen)(tell)
        finally:
            left.append(threading.current_thread().name)

    def stop(work):
        raise raised

    with pytest.raises(kind) as found:
        run_jobs([job, job, job], 2, stop)
    assert found.value is raised
    assert 1 <= len(left) <= 2, "those that were begun; the third never was"
    assert n_threads() == 2 and not workers()


def test_what_progress_raises_is_not_an_error_of_a_job_in_turn_either():
    def stop(work):
        raise ValueError("enough")

    seen = []
    with pytest.raises(ValueError, match="enough"):
        run_jobs([count(3, seen), count(3, seen)], 1, stop)
    assert len(seen) == 1


def test_warnings_in_a_thread_reach_the_run_that_listens(two_threads):
    both = threading.Barrier(2)

    def job(name, tell):
        both.wait(WAIT)
        warn(f"{name} is odd")
        tell(1)

    heard = []
    with listening(heard), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_jobs([partial(job, name) for name in "ab"], 2, lambda _: None)
    assert sorted(heard) == ["a is odd", "b is odd"]


def test_blas_that_another_thread_limits_leaves_the_jobs_in_turn(two_threads):
    """threadpoolctl lets one thread set OpenBLAS's limits: a limit that was ignored must not be relied on."""
    seen, entered, leave = [], threading.Event(), threading.Event()

    def hold():
        with threadpool_limits(2, user_api="blas"):
            entered.set()
            leave.wait(WAIT)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert entered.wait(WAIT)
    assert told_by([count(1, seen), count(1, seen)], 2) == [(1, 0), (1, 0)]
    assert seen == [(threading.current_thread().name, 2)] * 2
    leave.set()
    holder.join(WAIT)


def fit_in_threads(Y, progress=None, **options):
    """A fit that is worked on in threads."""
    X = np.random.default_rng(0).standard_normal((Y.shape[0], 8))
    folds = the_folds.make_folds(len(X), n_folds=3, chunk_length=5)
    return cv.ridge_cv(X, Y, alphas=[1.0, 10.0], folds=folds, tile=20, progress=progress, **options)


def cancel_in_threads(*_):
    """Progress that cancels at the first step of the tiles."""
    if n_threads() == 1:
        raise Cancelled


@pytest.fixture
def threaded(two_threads, monkeypatch):
    monkeypatch.setattr(_problem, "THREADED_VALUES", 0)
    return np.random.default_rng(5).standard_normal((60, 2000)).astype("f4")


def test_of_two_fits_at_once_the_cancelled_one_leaves_the_others_limit(threaded):
    """Their limits on BLAS overlap, and the first to enter is the first to leave."""
    expected = fit_in_threads(threaded)
    reading, blas = threading.Barrier(2), []
    first, second, over = threading.Event(), threading.Event(), threading.Event()

    def at_tiles(action):
        """Progress that does this at the first step of the tiles."""
        steps = iter(range(1000))

        def progress(done, total):
            number = next(steps)
            if number == 0:
                reading.wait(WAIT)  # both count BLAS's threads before either limits them
            if number == 100 + 3 * 2:  # after the steps of the reading and of the operators
                action()

        return progress

    def cancel():
        first.set()
        assert second.wait(WAIT)
        raise Cancelled

    def go_on():
        assert first.wait(WAIT)
        second.set()
        assert over.wait(WAIT)
        blas.append(n_threads())

    def cancelled():
        with pytest.raises(Cancelled):
            fit_in_threads(threaded, at_tiles(cancel))
        over.set()

    other = threading.Thread(target=cancelled, daemon=True)
    other.start()
    found = fit_in_threads(threaded, at_tiles(go_on))
    other.join(WAIT)
    assert blas == [1] and n_threads() == 2 and not workers()
    np.testing.assert_array_equal(found.cv_scores, expected.cv_scores)


def test_a_cancelled_fit_leaves_no_weights_no_thread_and_no_limit(threaded, tmp_path):
    reads, at_cancel = [], []

    class Watched:
        shape, dtype = threaded.shape, threaded.dtype

        def __getitem__(self, key):
            reads.append(key)
            if threading.current_thread() in workers():
                time.sleep(0.005)
            return threaded[key]

    def progress(done, total):
        if n_threads() == 1:
            assert list(tmp_path.iterdir()), "a draft, by now"
            at_cancel.append(len(reads))
            raise Cancelled

    with pytest.raises(Cancelled):
        fit_in_threads(Watched(), progress, weights_path=tmp_path / "w.npy")
    assert list(tmp_path.iterdir()) == [] and not workers() and n_threads() == 2
    assert len(at_cancel) == 1 and 100 < len(reads) < 150, "of 200, the first 100 of which are no thread's"


def test_a_cancelled_fit_is_not_kept_in_memory(threaded):
    class Plain:
        shape, dtype = threaded.shape, threaded.dtype

        def __getitem__(self, key):
            return threaded[key]

    gc.disable()
    try:
        Y = Plain()
        kept = weakref.ref(Y)
        with pytest.raises(Cancelled):
            fit_in_threads(Y, cancel_in_threads)
        del Y
        assert kept() is None
    finally:
        gc.enable()


def test_an_error_in_a_tile_does_not_keep_the_fit_in_memory(threaded):
    class Fails:
        shape, dtype = threaded.shape, threaded.dtype

        def __getitem__(self, key):
            if threading.current_thread() in workers():
                raise OSError("the disk is away")
            return threaded[key]

    gc.disable()
    try:
        Y = Fails()
        kept = weakref.ref(Y)
        try:
            fit_in_threads(Y)
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
    monkeypatch.setattr(
        _fit, "_in_threads", lambda jobs, *how: used.append(len(jobs)) or in_threads(jobs, *how)
    )
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
