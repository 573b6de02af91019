"""Cancelled at every call of a run's progress: nothing half-done is left behind, and the next run is right.

Only activations leave something: the finished part of a story, in whole files of its own, which the next run takes up.
"""

import gc
import os
import tempfile
import threading
import warnings
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from joblib import Memory
from threadpoolctl import threadpool_info

from encoding_nb import Cancelled, layer_activations
from encoding_nb.features import cache_info
from encoding_nb.features.activations import activations_cached
from encoding_nb.pipeline import plan_run, run
from encoding_nb.settings import Settings

from .test_runs import NO_CACHE, RATE, TRIM, assembly  # noqa: F401 - a fixture

SPLIT = replace(RATE, trimming=TRIM, n_permutations=20)
RUNS = {
    "split": SPLIT,
    "single alpha": replace(SPLIT, single_alpha=True),
    "nested": replace(SPLIT, use_train_test_split=False, n_outer_folds=3, n_inner_folds=3),
}


def held() -> dict:
    """What a cancelled run could leave: threads, temporary files, open files, limits on BLAS."""
    gc.collect()
    return {
        # no run makes a panel's thread: it is one of another test in this process, which may end now
        "threads": {thread.name for thread in threading.enumerate()} - {"encoding_nb-panel"},
        "files": {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("encoding_nb")},
        "blas": [(pool["user_api"], pool["num_threads"]) for pool in threadpool_info()],
    }


def stop_at(number: int):
    """A progress function that raises Cancelled at its call of this number, and the calls so far."""
    calls = []

    def progress(*step):
        calls.append(step)
        if len(calls) == number:
            raise Cancelled

    return progress, calls


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.filterwarnings("ignore:.*no variance")
def test_a_run_cancelled_at_any_step_leaves_nothing(assembly, name):  # noqa: F811
    settings, every = RUNS[name], []
    expected = run(assembly, settings, memory=NO_CACHE, progress=every.append)
    before = held()
    assert len(every) > 8
    for number in range(1, len(every) + 1):
        progress, calls = stop_at(number)
        with pytest.raises(Cancelled):
            run(assembly, settings, memory=NO_CACHE, progress=progress)
        assert len(calls) == number and held() == before
    again = run(assembly, settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(again.scores, expected.scores)
    np.testing.assert_array_equal(again.pvalues, expected.pvalues)


@pytest.mark.parametrize("error", [Cancelled, KeyboardInterrupt, ValueError, ZeroDivisionError])
@pytest.mark.filterwarnings("ignore:.*no variance")
def test_what_progress_raises_comes_out_as_it_is(assembly, error):  # noqa: F811
    raised = error("mine")

    def progress(step):
        if step.stage == "ridge":
            raise raised

    with pytest.raises(error) as caught:
        run(assembly, SPLIT, memory=NO_CACHE, progress=progress)
    assert caught.value is raised


def test_an_extraction_cancelled_at_any_step_keeps_what_is_finished_and_no_half_written_entry(demo, tmp_path):
    name = next(iter(demo.stories))
    words = demo.stories[name].words.text[:60]
    spec = Settings(lookback=4).feature_specs["language_model"].activation
    expected = layer_activations(words, spec, layer_idx=2, memory=Memory(tmp_path / "whole", verbose=0))
    before = held()
    for number in count(1):
        memory = Memory(tmp_path / f"stopped{number}", verbose=0)
        progress, calls = stop_at(number)
        try:
            layer_activations(words, spec, layer_idx=2, memory=memory, progress=progress)
        except Cancelled:
            assert len(calls) == number and held() == before
            folder = Path(tmp_path / f"stopped{number}")
            left = [path for path in folder.rglob("*") if path.is_file() and path.name != ".gitignore"]
            # the first call comes before anything is read
            assert [path.name for path in left] == (["array.zip"] if number > 1 else [])
            assert cache_info(folder).by_model.keys() <= {"unfinished"} and not activations_cached(
                words, spec, 2, memory
            )
        else:
            break  # there were fewer calls: batches go by time
        again = layer_activations(words, spec, layer_idx=2, memory=memory)
        np.testing.assert_allclose(again, expected, rtol=1e-3, atol=1e-3)
        assert "unfinished" not in cache_info(memory).by_model
    assert number > 2


def test_a_run_with_features_cancelled_at_any_step_keeps_whole_stories_only(demo, tmp_path):
    train, test = list(demo.stories)[:2]
    settings = Settings(
        stories=(train, test), test_stories=(test,), layer_idx=1, lookback=4, significance="parametric"
    )
    every: list = []
    expected = run(demo, settings, memory=Memory(tmp_path / "whole", verbose=0), progress=every.append)
    numbers = [i for i, step in enumerate(every, 1) if step.stage == "features"][:-1]
    before = held()
    for number in numbers[:: max(1, len(numbers) // 6)]:
        memory = Memory(tmp_path / f"stopped{number}", verbose=0)
        progress, calls = stop_at(number)
        with pytest.raises(Cancelled), warnings.catch_warnings():
            warnings.simplefilter("error")
            run(demo, settings, memory=memory, progress=progress)
        assert held() == before
        done = {train, test} - set(plan_run(demo, settings, memory=memory).missing)
        assert done == {train: set(), test: {train}}.get(calls[-1][0].detail, {train, test})
    again = run(demo, settings, memory=memory, progress=False)
    np.testing.assert_allclose(again.scores, expected.scores, atol=1e-3)
