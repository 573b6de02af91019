"""Cancelling a sweep: whatever its caller's progress function raises ends it, and nothing is left."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import joblib
import psutil
import pytest
from joblib import Memory

from encoding_nb._machine import n_threads
from encoding_nb._progress import Cancelled
from encoding_nb.pipeline import Result, run
from encoding_nb.records import list_runs
from encoding_nb.sweep import run_sweep, settings_grid

from .test_runs import MODEL, NAMES, RATE, assert_equal_to_single_runs, make_assembly

GRID = [MODEL, RATE]
N_VOXELS = 20_000
# With `N_VOXELS`, long enough that a run goes on for a second or two, with many steps.
SLOW = settings_grid(
    replace(RATE, significance="permutation", n_permutations=5_000),
    alphas=[(float(a),) for a in range(1, 5)],
)


class CallerError(ValueError):
    """An error of the progress function's own."""


def raiser(error, number, told):
    """A progress function that raises `error` at its call of this number, and remembers all steps."""

    def progress(step):
        told.append(step)
        if len(told) == number + 1:
            raise error

    return progress


def processes():
    """Child processes of this one, without joblib's resource tracker, which lasts as long as it."""
    children = psutil.Process().children(recursive=True)
    return {child for child in children if "resource_tracker" not in " ".join(child.cmdline())}


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """A function that checks that a sweep has left no thread, process, BLAS limit or file of its own."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    threads, limit, children = set(threading.enumerate()), n_threads(), processes()

    def check(cache):
        for _ in range(500):  # a pool's threads end a moment after it, those with a run at its next step
            new = [thread for thread in threading.enumerate() if thread not in threads]
            if not new:
                break
            time.sleep(0.02)
        assert [thread.name for thread in new] == []
        assert processes() <= children
        assert n_threads() == limit
        assert list((tmp_path / "temporary").rglob("encoding_nb*")) == []
        files = [path for path in Path(cache).rglob("*") if path.is_file()]
        kept = [path for path in files if "activations" in path.parts and path.name[0] != "."]
        left = [path for path in files if path not in kept and path.name != ".gitignore"]
        assert left == []

    return check


def ended(told):
    """Results of the runs that ended, by their number."""
    return {step.number: step.result for step in told if step.number is not None}


def sweep_that_raises(assembly, grid, error, number, folder, **options):
    """Run a sweep whose progress function raises at one call; returns the steps that were told."""
    told = []
    with pytest.raises(type(error)) as raised:
        run_sweep(
            assembly,
            grid,
            memory=Memory(folder / "cache", verbose=0),
            results_dir=folder / "runs",
            progress=raiser(error, number, told),
            **options,
        )
    assert raised.value is error and error.__cause__ is None is error.__context__
    assert len(told) == number + 1, "no step is told after it"
    return told


def n_calls(assembly, grid, folder, **options):
    told = []
    run_sweep(assembly, grid, memory=Memory(folder, verbose=0), progress=told.append, **options)
    return len(told)


def test_whatever_the_caller_raises_at_any_step_of_a_sweep_passes_and_leaves_nothing(tmp_path, nothing_left):
    assembly = make_assembly(names=NAMES[2:])
    kinds = (Cancelled, CallerError, KeyboardInterrupt, MemoryError)
    # A model's batches go by time, so a busy machine may tell a few steps more or fewer.
    for number in range(n_calls(assembly, GRID, tmp_path / "whole") - 4):
        folder = tmp_path / str(number)
        error = kinds[number % len(kinds)]("by the caller")
        told = sweep_that_raises(assembly, GRID, error, number, folder)
        nothing_left(folder / "cache")
        results = ended(told)
        assert all(isinstance(result, Result) for result in results.values()), "no run is taken for a failure"
        assert len(list_runs(folder / "runs")) == len(results), "finished runs are recorded, and no others"


@pytest.mark.parametrize("number", [0, 3, 11, 28])
def test_a_sweep_goes_on_where_it_was_cancelled(tmp_path, number):
    assembly = make_assembly(names=NAMES[2:])
    told = sweep_that_raises(assembly, GRID, Cancelled(), number, tmp_path)
    finished, memory, again = ended(told), Memory(tmp_path / "cache", verbose=0), []
    results = run_sweep(assembly, GRID, memory=memory, results_dir=tmp_path / "runs", progress=again.append)
    recorded = [result.provenance["record"] for result in finished.values()]
    assert [ended(again)[n].provenance["record"] for n in finished] == recorded, "these are not run again"
    assert len(list_runs(tmp_path / "runs")) == len(GRID)
    assert_equal_to_single_runs(results, assembly, GRID, memory)


def test_cancelled_without_a_cache(tmp_path, nothing_left):
    assembly = make_assembly(names=NAMES[2:])
    with pytest.raises(Cancelled):
        run_sweep(assembly, GRID, memory=Memory(None), progress=raiser(Cancelled(), 20, []))
    nothing_left(tmp_path)


# When the caller raises, by the steps that it has seen so far.
MOMENTS = {
    "before the first run": lambda told: told[-1].stage == "fits",
    "first run": lambda told: len(ended(told)) == 1,
    "third run": lambda told: len(ended(told)) == 3,
    "last run": lambda told: len(ended(told)) == len(SLOW),
}


@pytest.mark.parametrize(
    ("backend", "error", "moments"),
    [
        ("threading", Cancelled(), tuple(MOMENTS)),
        ("threading", CallerError("of the caller"), ("first run",)),
        ("threading", KeyboardInterrupt(), ("first run",)),
        ("loky", Cancelled(), tuple(MOMENTS)),
        ("loky", CallerError("of the caller"), ("first run",)),
        ("loky", KeyboardInterrupt(), ("third run",)),
    ],
)
def test_cancelled_with_workers_at_any_moment(tmp_path, nothing_left, backend, error, moments):
    assembly = make_assembly(n_voxels=N_VOXELS)
    for moment in moments:
        told, folder, comes = [], tmp_path / moment.replace(" ", "-"), MOMENTS[moment]

        def progress(step, told=told, comes=comes):
            told.append(step)
            if comes(told):
                raise error

        with joblib.parallel_config(backend, n_jobs=2), pytest.raises(type(error)) as raised:
            run_sweep(
                assembly,
                SLOW,
                memory=Memory(folder / "cache", verbose=0),
                results_dir=folder / "runs",
                progress=progress,
            )
        assert raised.value is error and comes(told)
        nothing_left(folder / "cache")
        results = ended(told)
        assert all(isinstance(result, Result) for result in results.values()), "no run is taken for a failure"
        records = list_runs(folder / "runs") if (folder / "runs").exists() else []
        assert len(results) <= len(records) <= len(results) + 2, "runs that had ended stay"
        assert all(Path(result.provenance["record"]).is_dir() for result in results.values())


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_a_sweep_with_workers_goes_on_where_it_was_cancelled(tmp_path, backend):
    assembly, grid = make_assembly(), settings_grid(RATE, alphas=[(float(a),) for a in range(1, 7)])
    memory, told = Memory(tmp_path / "cache", verbose=0), []

    def progress(step):
        told.append(step)
        if len(ended(told)) == 2:
            raise Cancelled

    with joblib.parallel_config(backend, n_jobs=2):
        with pytest.raises(Cancelled):
            run_sweep(assembly, grid, memory=memory, results_dir=tmp_path / "runs", progress=progress)
        finished = {number: result.provenance["record"] for number, result in ended(told).items()}
        results = run_sweep(assembly, grid, memory=memory, results_dir=tmp_path / "runs", progress=False)
    assert {number: results[number].provenance["record"] for number in finished} == finished
    # threads are not waited for: two that were at work when the first sweep was cancelled may still save their runs
    made_twice = range(3 if backend == "threading" else 1)
    assert len(list_runs(tmp_path / "runs")) - len(grid) in made_twice
    assert_equal_to_single_runs(results, assembly, grid, memory)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_the_caller_is_told_in_its_thread_when_a_run_ends(tmp_path, backend):
    assembly, calls = make_assembly(), []
    with joblib.parallel_config(backend, n_jobs=2):
        run_sweep(
            assembly,
            SLOW,
            memory=Memory(tmp_path, verbose=0),
            progress=lambda step: calls.append((threading.current_thread(), step)),
        )
    threads, steps = zip(*calls, strict=True)
    assert set(threads) == {threading.current_thread()}
    assert sorted(ended(steps)) == list(range(len(SLOW)))
    assert len([step for step in steps if step.number is not None]) == len(SLOW), "each result comes once"
    overall = [step.overall for step in steps]
    assert overall == sorted(overall) and overall[-1] == 1


# ---------------------------------------------------------------------- notes


@pytest.mark.filterwarnings("ignore:test_stories")
@pytest.mark.parametrize("backend", ["sequential", "threading", "loky"])
def test_warnings_of_runs_are_in_the_notes_of_their_results(tmp_path, backend):
    assembly, memory = make_assembly(), Memory(tmp_path, verbose=0)
    nested = replace(RATE, use_train_test_split=False, test_stories=("storyz",))
    grid = [nested, RATE, replace(nested, alphas=(3.0,))]
    with joblib.parallel_config(backend, n_jobs=1 if backend == "sequential" else 2):
        results = run_sweep(assembly, grid, memory=memory, progress=False)
    single = run(assembly, nested, memory=memory, progress=False)
    starts = [[note.split()[0] for note in result.notes] for result in results]
    of_nested = ["test_stories", "Nested", "There"]  # not used; what is held out; no p-values
    assert starts == [of_nested, [], of_nested]
    assert results[0].notes == results[2].notes == single.notes


# ---------------------------------------------------------------------- what progress can be


def test_a_progress_that_is_no_function_is_refused_before_any_work(tmp_path):
    with pytest.raises(TypeError, match="progress: expected True, False or a function of one step, got 1"):
        run_sweep(make_assembly(), [RATE], memory=Memory(tmp_path / "cache", verbose=0), progress=1)
    assert not (tmp_path / "cache" / "joblib" / "encoding_nb").exists()


def test_a_bar_or_nothing(tmp_path, capsys):
    memory = Memory(tmp_path, verbose=0)
    run_sweep(make_assembly(), [RATE], memory=memory, progress=False)
    assert capsys.readouterr() == ("", "")
    run_sweep(make_assembly(), [RATE], memory=memory)
    assert "fits 1/1: S 100% |" in capsys.readouterr().err
