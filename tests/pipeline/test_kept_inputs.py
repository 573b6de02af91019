"""What runs leave for each other: equal results, less work, and nothing taken of other data."""

import gc
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest

from encoding_nb import _machine
from encoding_nb.assembly import Assembly
from encoding_nb.pipeline import KeptInputs, kept_inputs, matrices, preparing, runs
from encoding_nb.ridge import _fit, _problem, _solvers, cv, folds
from encoding_nb.settings import SettingsError

from .test_runs import NO_CACHE, RATE, TRIM, make_story

SETTINGS = replace(RATE, trimming=TRIM)
pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")
WAIT = 30  # seconds, for what takes none


@pytest.fixture
def assembly():
    stories = {name: make_story(name, seed) for seed, name in enumerate(("storya", "storyb", "storyc"))}
    stories["storyz"] = make_story("storyz", 9, repeats=4)
    return Assembly("S", 2.0, stories, test_stories=("storyz",))


@pytest.fixture
def made(monkeypatch):
    """Names what is made, as it is made."""
    seen = []
    for module, name in (
        (matrices, "stack_features"),
        (matrices, "stack_responses"),
        (_solvers, "eigen_basis"),
        (_fit, "build_operators"),
    ):
        true = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, _t=true, _n=name, **o: seen.append(_n) or _t(*a, **o))
    return seen


def fit(assembly, settings, inputs=None):
    steps = runs.run_steps(assembly, settings, memory=NO_CACHE, inputs=inputs)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def prepare(assembly, settings, inputs):
    return inputs.prepare(settings, preparing.prepare_steps(assembly, settings, inputs, memory=NO_CACHE))


def assert_same(found, expected):
    for name in ("scores", "best_alphas", "pvalues", "significant", "noise_ceiling"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for story, predicted in expected.predictions.items():
        np.testing.assert_array_equal(found.predictions[story], predicted)
        np.testing.assert_array_equal(found.measured[story], expected.measured[story])
    assert found.notes == expected.notes and found.notes, "what is noticed is said by every run"


WIDER = replace(SETTINGS, fir_delays=(1, 2, 3, 4, 5, 6))
OTHERS = {
    "nothing": SETTINGS,
    "delays": WIDER,
    "alphas": replace(SETTINGS, alphas=(3.0, 30.0)),
    "trimming": replace(SETTINGS, trimming=replace(TRIM, train_features_start=12, train_targets_start=2)),
    "training stories": replace(SETTINGS, stories=("storya", "storyc"), test_stories=("storyz",)),
    "test story": replace(SETTINGS, test_stories=("storyb",)),
    "selection": replace(SETTINGS, use_corr=False),
    "folds": replace(SETTINGS, n_inner_folds=3),
    "nested": replace(SETTINGS, use_train_test_split=False, n_outer_folds=3),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("prepared", [False, True])
def test_a_run_gives_what_it_gives_alone(assembly, other, prepared):
    inputs = KeptInputs()
    for settings in (SETTINGS, other, SETTINGS):
        if prepared:
            assert prepare(assembly, settings, inputs)
        assert_same(fit(assembly, settings, inputs), fit(assembly, settings))


def test_only_what_is_new_is_made(assembly, made):
    inputs = KeptInputs()
    fit(assembly, SETTINGS, inputs)
    assert sorted(made) == ["build_operators", "eigen_basis", "stack_features", "stack_responses"]
    for settings, expected in (
        (replace(SETTINGS, fdr_q=0.01), []),
        (WIDER, ["stack_features", "eigen_basis", "build_operators"]),
        (replace(WIDER, alphas=(3.0,)), ["build_operators"]),
        (OTHERS["training stories"], ["stack_features", "stack_responses", "eigen_basis", "build_operators"]),
    ):
        made.clear()
        fit(assembly, settings, inputs)
        assert sorted(made) == sorted(expected)


def test_bold_that_was_changed_in_place_is_read_again(assembly):
    inputs = KeptInputs()
    before = fit(assembly, SETTINGS, inputs)
    assembly.stories["storyb"].bold[20, 1] += 50
    after = fit(assembly, SETTINGS, inputs)
    assert_same(after, fit(assembly, SETTINGS))
    assert (after.predictions["storyz"][:, 1] != before.predictions["storyz"][:, 1]).any()


def test_features_that_come_out_otherwise_are_stacked_again(assembly, monkeypatch):
    """As of a model whose files were changed under the same name."""
    inputs, true = KeptInputs(), matrices.sampled_steps
    fit(assembly, SETTINGS, inputs)

    def other(*arguments, **options):
        joined = yield from true(*arguments, **options)
        return replace(joined, values=joined.values[::-1].copy())

    monkeypatch.setattr(matrices, "sampled_steps", other)
    assert_same(fit(assembly, SETTINGS, inputs), fit(assembly, SETTINGS))


class Lazy:
    """BOLD that lies elsewhere."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, 2

    def __getitem__(self, key):
        return self.values[key]

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


def test_responses_that_are_not_in_memory_or_large_are_not_kept(assembly, made, monkeypatch):
    first = assembly.stories["storya"]
    lazy = replace(assembly, stories={**assembly.stories, "storya": replace(first, bold=Lazy(first.bold))})
    for data in (lazy, assembly):
        inputs = KeptInputs()
        fit(data, SETTINGS, inputs)
        made.clear()
        assert_same(fit(data, SETTINGS, inputs), fit(data, SETTINGS))
        assert made.count("stack_responses") == 2
        monkeypatch.setattr(kept_inputs, "free_memory", lambda: 1000)


def slowly(steps, entered, go_on):
    """Steps that, after the first, say so and wait for leave to go on."""
    yield next(steps)
    entered.set()
    assert go_on.wait(WAIT)
    yield from steps


def in_thread(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()

    def result():
        thread.join(WAIT)
        assert found, "still running, or failed"
        return found[0]

    return result


def wait_until(holds):
    deadline = time.monotonic() + WAIT
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.parametrize("wanted", [SETTINGS, WIDER], ids=["the same", "others"])
def test_a_run_waits_for_what_is_prepared_for_it_and_stops_what_is_not(assembly, made, wanted):
    inputs, entered, go_on = KeptInputs(), threading.Event(), threading.Event()
    steps = slowly(preparing.prepare_steps(assembly, SETTINGS, inputs, memory=NO_CACHE), entered, go_on)
    prepared = in_thread(lambda: inputs.prepare(SETTINGS, steps))
    assert entered.wait(WAIT)
    ran = in_thread(lambda: fit(assembly, wanted, inputs))
    if wanted is not SETTINGS:
        wait_until(lambda: inputs._unwanted)
    assert not made
    go_on.set()
    assert_same(ran(), fit(assembly, wanted))
    assert prepared() is (wanted is SETTINGS)


def test_what_is_prepared_can_be_left_and_is_followed_by_the_next(assembly):
    inputs, entered, go_on = KeptInputs(), threading.Event(), threading.Event()
    steps = slowly(preparing.prepare_steps(assembly, SETTINGS, inputs, memory=NO_CACHE), entered, go_on)
    first = in_thread(lambda: inputs.prepare(SETTINGS, steps))
    assert entered.wait(WAIT)
    inputs.leave(SETTINGS)
    inputs.leave(WIDER)
    second = in_thread(lambda: prepare(assembly, WIDER, inputs))
    go_on.set()
    assert first() is False and second() is True
    inputs.leave(WIDER)  # nothing is being prepared any more
    assert prepare(assembly, SETTINGS, inputs)


def test_an_error_in_preparing_leaves_the_way_free(assembly):
    assembly.stories["storyb"].bold[3, 1] = np.nan
    inputs = KeptInputs()
    for _ in range(2):
        with pytest.raises(ValueError, match="storyb: 1 NaN"):
            prepare(assembly, SETTINGS, inputs)
        with pytest.raises(ValueError, match="storyb: 1 NaN"):
            fit(assembly, SETTINGS, inputs)


def test_bold_that_was_negated_in_place_is_read_again(assembly):
    """An even number of signs in every row and column: sums of bits would not see it."""
    stories = {name: replace(s, bold=np.array(s.bold[:60], float)) for name, s in assembly.stories.items()}
    for story in stories.values():
        story.bold[:, 2] += np.random.default_rng(1).standard_normal(60)
    assembly = replace(assembly, stories={n: replace(s, repeats=None) for n, s in stories.items()})
    inputs = KeptInputs()
    before = fit(assembly, SETTINGS, inputs)
    for name in ("storya", "storyb", "storyc"):
        assembly.stories[name].bold[:, :2] *= -1
    after = fit(assembly, SETTINGS, inputs)
    np.testing.assert_array_equal(after.scores, fit(assembly, SETTINGS).scores)
    assert not np.array_equal(after.scores, before.scores)


def test_what_is_large_for_this_machine_is_not_kept(assembly, made, monkeypatch):
    inputs = KeptInputs()
    monkeypatch.setattr(kept_inputs, "free_memory", lambda: 1000)
    for _ in range(2):
        made.clear()
        assert_same(fit(assembly, SETTINGS, inputs), fit(assembly, SETTINGS))
        assert made.count("stack_features") == made.count("eigen_basis") == 2
    assert not inputs.forget(), "nothing is held"
    assert prepare(assembly, SETTINGS, inputs)


def test_the_last_design_is_freed_before_the_next_is_made(assembly, monkeypatch):
    inputs = KeptInputs()
    fit(assembly, SETTINGS, inputs)
    X = weakref.ref(inputs._made["X"].value)
    true = matrices.stack_features

    def stack(*arguments):
        assert X() is None
        return true(*arguments)

    monkeypatch.setattr(matrices, "stack_features", stack)
    gc.disable()
    try:
        fit(assembly, WIDER, inputs)
    finally:
        gc.enable()


@pytest.mark.parametrize("limit", [1e9, 100])
def test_operators_of_the_test_rows_are_kept_where_they_are_small(limit, monkeypatch):
    monkeypatch.setattr(_problem, "KEPT_BYTES", limit)
    rng = np.random.default_rng(0)
    X, Y = rng.standard_normal((40, 90)), rng.standard_normal((40, 7))
    options = {
        "alphas": [1.0, 10.0],
        "folds": folds.make_folds(40, n_folds=4, chunk_length=5),
        "X_test": X[:9],
        "Y_test": Y[:9],
    }
    derived = {}
    expected = cv.ridge_cv(X, Y, **options)
    for _ in range(2):
        found = cv.ridge_cv(X, Y, derived=derived, **options)
        np.testing.assert_array_equal(found.correlations, expected.correlations)
        assert ("test operators" in derived) == ("held-out operators" in derived) == (limit > 100)


def test_where_memory_is_short_a_run_lets_go_of_what_the_last_one_left(assembly, monkeypatch):
    inputs = KeptInputs()
    expected = fit(assembly, SETTINGS, inputs)
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000 if inputs._made else 10**10)
    assert_same(fit(assembly, SETTINGS, inputs), expected)
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    for _ in range(2):
        with pytest.raises(SettingsError, match="memory"):
            fit(assembly, SETTINGS, inputs)


def test_forgetting_ends_what_is_being_prepared(assembly):
    inputs, entered, go_on = KeptInputs(), threading.Event(), threading.Event()
    steps = slowly(preparing.prepare_steps(assembly, SETTINGS, inputs, memory=NO_CACHE), entered, go_on)
    prepared = in_thread(lambda: inputs.prepare(SETTINGS, steps))
    assert entered.wait(WAIT)
    forgotten = in_thread(inputs.forget)
    wait_until(lambda: inputs._unwanted)
    go_on.set()
    assert forgotten() is True and prepared() is False
    assert not inputs.forget()
