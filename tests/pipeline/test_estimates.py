"""Estimates: what they count, what they refuse, and that the peak they state is near a real run's."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from joblib import Memory

from encoding_nb import Settings, Story, Words, _machine, features, run
from encoding_nb.assembly import Assembly
from encoding_nb.design import Trimming
from encoding_nb.pipeline import FitShape, estimates, plan_run
from encoding_nb.settings import SettingsError

NO_CACHE = Memory(None)
RATE = Settings(modality="wordrate", trimming=Trimming())


class Shape:
    """BOLD that has a shape and must not be read."""

    def __init__(self, *shape):
        self.shape = shape

    def __getitem__(self, key):
        pytest.fail("an estimate read BOLD")


def made(n_stories=6, n_trs=350, n_voxels=95_556):
    words = Words([f"w{i}" for i in range(900)], np.arange(900) * 0.7, np.arange(900) * 0.7 + 0.3)
    stories = {
        f"s{i}": Story(f"s{i}", words, 2.0 * np.arange(n_trs), Shape(n_trs, n_voxels))
        for i in range(n_stories)
    }
    return Assembly("S", 2.0, stories, test_stories=(f"s{n_stories - 1}",))


def test_counts_rows_columns_and_voxels():
    assembly = made()
    shape = plan_run(assembly, replace(RATE, joined_with=("language_model",))).shape
    assert shape == FitShape(5 * 350, 350, 4 * (1 + 192), 95_556, 350)
    nested = plan_run(assembly, replace(RATE, use_train_test_split=False)).shape
    assert (nested.n_rows, nested.n_test_rows) == (6 * 350, 6 * 350)


def test_memory_grows_with_voxels_and_holds_the_responses(monkeypatch):
    monkeypatch.setattr(_machine, "free_memory", lambda: 24_000_000_000)
    small, large = (estimates.estimate(made(n_voxels=n), RATE, memory=NO_CACHE) for n in (10_000, 95_556))
    assert large.fits and large.problem is None and not large.on_disk
    for stage in ("design", "ridge"):
        added = large.bytes[stage] - small.bytes[stage]
        assert added > 4 * 6 * 350 * (95_556 - 10_000)
    assert large.peak == max(large.bytes.values())


def test_responses_that_are_large_for_the_machine_count_as_a_file():
    assembly = made()
    shape = plan_run(assembly, RATE).shape
    responses = 4 * shape.n_rows * shape.n_voxels
    held = estimates.bytes_needed(RATE, shape, {}, free=10 * responses)
    filed = estimates.bytes_needed(RATE, shape, {}, free=2 * responses)
    assert held["design"] - filed["design"] == responses
    assert estimates.file_bytes(shape, free=2 * responses) == responses
    assert estimates.file_bytes(shape, free=10 * responses) == 0


def test_responses_count_as_memory_where_temporary_files_are_memory(monkeypatch):
    shape = plan_run(made(), RATE).shape
    monkeypatch.setattr(_machine, "is_memory", lambda folder: True)
    assert estimates.file_bytes(shape, free=1) == 0
    responses = 4 * shape.n_rows * shape.n_voxels
    assert estimates.bytes_needed(RATE, shape, {}, free=1)["design"] > responses


def files_of(room, monkeypatch, *, address_space=sys.maxsize):
    """A machine whose responses go to a temporary file, in a folder with some bytes free."""
    monkeypatch.setattr(_machine, "free_memory", lambda: 10_000_000_000)
    monkeypatch.setattr("encoding_nb.pipeline.matrices.SHARE_IN_MEMORY", 0.0)
    monkeypatch.setattr(_machine, "temporary_room", lambda: room)
    monkeypatch.setattr(_machine, "address_space", lambda: address_space)
    monkeypatch.setattr(_machine, "is_memory", lambda folder: False)


def test_a_disk_without_room_for_the_responses_is_refused_before_work(monkeypatch):
    assembly = made()
    plan = plan_run(assembly, RATE, memory=NO_CACHE)
    responses = 4 * plan.shape.n_rows * plan.shape.n_voxels
    files_of(responses, monkeypatch)
    estimates.refuse_too_large(plan)
    assert estimates.estimate(assembly, RATE, memory=NO_CACHE).fits
    files_of(responses - 1, monkeypatch)
    with pytest.raises(
        SettingsError, match=r"responses take 0\.67 GB.* has 0\.67 GB free; set TMPDIR"
    ) as raised:
        run(assembly, RATE, memory=NO_CACHE, progress=False)  # its BOLD must not be read
    assert raised.value.field == "stories"
    found = estimates.estimate(assembly, RATE, memory=NO_CACHE)
    assert found.on_disk and not found.fits and found.problem == str(raised.value)


def test_a_map_needs_address_space(monkeypatch):
    plan = plan_run(made(), RATE, memory=NO_CACHE)
    files_of(10**12, monkeypatch, address_space=10**8)
    with pytest.raises(SettingsError, match=r"GB of address space, .*ulimit -v\) leaves 0\.1 GB"):
        estimates.refuse_too_large(plan)


@pytest.fixture
def no_libraries(monkeypatch):
    """As in a process that has not imported transformers yet."""
    monkeypatch.delitem(sys.modules, "transformers", raising=False)


@pytest.mark.usefixtures("no_libraries")
def test_a_model_that_must_be_read_is_counted_and_its_words_named():
    settings = replace(RATE, modality="language_model", lookback=8)
    found = estimates.estimate(made(), settings, memory=NO_CACHE)
    assert not found.cached and found.n_words == 6 * 900
    assert found.bytes["features"] > estimates.LIBRARY_BYTES
    assert found.seconds["features"] > estimates.LIBRARY_SECONDS
    assert "features of 5,400 words to compute" in str(found)
    longer = estimates.estimate(made(), replace(settings, lookback=256), memory=NO_CACHE)
    assert longer.seconds["features"] > found.seconds["features"]
    quick = replace(settings, lookback=256, context_type="nocontext")
    assert estimates.estimate(made(), quick, memory=NO_CACHE).seconds["features"] < longer.seconds["features"]


@pytest.mark.usefixtures("no_libraries")
def test_a_models_own_embedding_needs_the_model_but_no_pass(tmp_path):
    settings = replace(RATE, modality="embeddings", lookback=8)
    found = estimates.estimate(made(), settings, memory=NO_CACHE)
    assert not found.cached and found.n_words == 0
    assert "word embeddings to look up in the model" in str(found)
    assert found.bytes["features"] > estimates.LIBRARY_BYTES
    read = estimates.estimate(made(), replace(settings, modality="language_model"), memory=NO_CACHE)
    assert estimates.LIBRARY_SECONDS < found.seconds["features"] < read.seconds["features"]
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("w1 0.5 1.0\n")
    from_file = estimates.estimate(made(), replace(settings, embedding=str(vectors)), memory=NO_CACHE)
    assert from_file.cached and from_file.bytes["features"] == 0


def test_words_of_a_joined_run_that_are_cached_are_not_counted_again(monkeypatch):
    """Word embeddings are not kept on disk; the activations are."""
    settings = replace(RATE, modality="language_model", joined_with=("wordrate", "embeddings"), lookback=8)
    assert estimates.estimate(made(), settings, memory=NO_CACHE).n_words == 6 * 900
    kept = features.is_cached
    monkeypatch.setattr(
        features,
        "is_cached",
        lambda story, spec, **o: spec.modality == "language_model" or kept(story, spec, **o),
    )
    found = estimates.estimate(made(), settings, memory=NO_CACHE)
    assert found.n_words == 0 and "words to compute" not in str(found) and not found.cached


def test_libraries_that_are_imported_take_no_time(monkeypatch):
    settings = replace(RATE, modality="language_model", lookback=8)
    with monkeypatch.context() as patched:
        patched.delitem(sys.modules, "transformers", raising=False)
        first = estimates.estimate(made(), settings, memory=NO_CACHE).seconds["features"]
    monkeypatch.setitem(sys.modules, "transformers", object())
    second = estimates.estimate(made(), settings, memory=NO_CACHE).seconds["features"]
    assert second < first - 0.9 * estimates.LIBRARY_SECONDS


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.1, "1 or 2 s"),
        (3.0, "2 to 4 s"),
        (57.0, "40 to 85 s"),
        (90.0, "1 to 2 min"),
        (6480.0, "1.2 to 3 h"),
    ],
)
def test_a_time_is_a_range(seconds, said):
    assert estimates.time_range(seconds) == said


def test_a_shortage_says_how_many_stories_would_fit(monkeypatch):
    assembly = made(n_stories=20)
    nested = replace(RATE, use_train_test_split=False)  # keeps predictions of every row
    plan = plan_run(assembly, nested, memory=NO_CACHE)
    free = int(0.9 * max(estimates.bytes_needed(nested, plan.shape, {}, free=1).values()))
    monkeypatch.setattr(_machine, "free_memory", lambda: free)
    found = estimates.estimate(assembly, nested, memory=NO_CACHE)
    assert not found.fits
    number = int(found.problem.split("the first ")[1].split(" ")[0])
    assert 1 <= number < 20
    with pytest.raises(SettingsError, match=f"the first {number} training stories would fit") as raised:
        estimates.refuse_too_large(plan)
    assert raised.value.field == "stories"
    fewer = replace(nested, stories=tuple(f"s{i}" for i in range(number)))
    estimates.refuse_too_large(plan_run(assembly, fewer, memory=NO_CACHE))


def test_a_model_too_large_is_the_models_problem(monkeypatch):
    monkeypatch.setattr(_machine, "free_memory", lambda: 100_000_000)
    settings = replace(RATE, modality="language_model")
    with pytest.raises(
        SettingsError, match=r"demo has 4 million parameters: choose a smaller model"
    ) as raised:
        estimates.refuse_too_large(plan_run(made(n_voxels=10), settings, memory=NO_CACHE))
    assert raised.value.field == "model_name"


RUN = """
import pathlib, re
import numpy as np
from joblib import Memory
from encoding_nb import Settings, Story, Words, assembly, estimate, run
from encoding_nb.design import Trimming
rng = np.random.default_rng(0)
words = Words([f"w{i}" for i in range(600)], np.arange(600.) , np.arange(600.) + 0.3)
stories = {f"s{i}": Story(f"s{i}", words, 2.0 * np.arange(300), rng.standard_normal((300, 12_000), np.float32))
           for i in range(6)}
data = assembly.Assembly("S", 2.0, stories, test_stories=("s5",))
settings = Settings(modality="wordrate", trimming=Trimming(), fir_delays=tuple(range(1, 60)))
import encoding_nb.pipeline, scipy.sparse.linalg, threadpoolctl, sklearn.model_selection
stated = estimate(data, settings, memory=Memory(None)).peak
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the largest resident set counts anew from here
def largest():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = largest()
run(data, settings, memory=Memory(None), progress=False)
print(stated, largest() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
def test_the_stated_peak_is_near_a_real_runs():
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    stated, taken = map(int, done.stdout.split())
    assert 0.9 * taken < stated < 2.5 * taken
