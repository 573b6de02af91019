"""Responses kept from one fit to the next: equal results, less work, and nothing of other data."""

from dataclasses import replace

import numpy as np
import pytest

from encoding_nb import _machine
from encoding_nb.assembly import Assembly
from encoding_nb.pipeline import Inputs as Anew
from encoding_nb.pipeline import KeptResponses, check, matrices, prepare, run
from encoding_nb.settings import SettingsError

from .test_runs import NO_CACHE, RATE, TRIM, make_story

SETTINGS = replace(RATE, trimming=TRIM)
pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")


@pytest.fixture
def arrays():
    """The user's own arrays, which can be changed where an assembly's view of them cannot."""
    names = ("storya", "storyb", "storyc", "storyz")
    return {name: np.array(make_story(name, seed).bold) for seed, name in enumerate(names)}


@pytest.fixture
def assembly(arrays):
    stories = {
        name: replace(make_story(name, seed), bold=bold) for seed, (name, bold) in enumerate(arrays.items())
    }
    heard = make_story("storyz", 3, repeats=4).repeats
    stories["storyz"] = replace(stories["storyz"], repeats=heard)
    return Assembly("S", 2.0, stories, test_stories=("storyz",))


@pytest.fixture
def made(monkeypatch):
    """Names of the stories whose training responses are z-scored, as it happens."""
    seen, true = [], matrices.response_rows

    def rows(story, trimming, *, test):
        seen.extend([] if test else [story.name])
        return true(story, trimming, test=test)

    monkeypatch.setattr(matrices, "response_rows", rows)
    return seen


def fit(assembly, settings, inputs=None):
    return run(assembly, settings, memory=NO_CACHE, inputs=inputs, progress=False)


def assert_same(found, expected):
    for name in ("scores", "best_alphas", "pvalues", "significant", "noise_ceiling"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    for story, predicted in expected.predictions.items():
        np.testing.assert_array_equal(found.predictions[story], predicted)
        np.testing.assert_array_equal(found.measured[story], expected.measured[story])
    assert found.notes == expected.notes and found.notes, "every run has its notes"


WIDER = replace(SETTINGS, fir_delays=(1, 2, 3, 4, 5, 6))
OTHERS = {
    "nothing": (SETTINGS, []),
    "delays": (WIDER, []),
    "alphas": (replace(SETTINGS, alphas=(3.0, 30.0)), []),
    "trimming": (
        replace(SETTINGS, trimming=replace(TRIM, train_features_start=12, train_targets_start=2)),
        ["storya", "storyb", "storyc"],
    ),
    "fewer stories": (replace(SETTINGS, stories=("storya", "storyc"), test_stories=("storyz",)), []),
    "test story": (replace(SETTINGS, test_stories=("storyb",)), ["storyz"]),
    "selection": (replace(SETTINGS, use_corr=False), []),
    "folds": (replace(SETTINGS, n_inner_folds=3), []),
    "nested": (replace(SETTINGS, use_train_test_split=False, n_outer_folds=3), ["storyz"]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_a_run_gives_what_it_gives_alone_and_makes_only_what_is_new(assembly, other, made):
    settings, fresh = OTHERS[other]
    alone = {each: fit(assembly, each) for each in (SETTINGS, settings)}
    inputs = KeptResponses()
    made.clear()
    assert_same(fit(assembly, SETTINGS, inputs), alone[SETTINGS])
    assert made == ["storya", "storyb", "storyc"]
    made.clear()
    assert_same(fit(assembly, settings, inputs), alone[settings])
    assert made == fresh
    assert_same(fit(assembly, SETTINGS, inputs), alone[SETTINGS])


@pytest.mark.parametrize(
    "change",
    {
        "one value": lambda bold: bold.__setitem__((20, 1), 50.0),
        # an even number of signs in every row and column: sums of bits would not see it
        "signs": lambda bold: bold.__setitem__((slice(None), slice(0, 2)), -bold[:, :2]),
        "order": lambda bold: bold.__setitem__((slice(None), 1), bold[::-1, 1].copy()),
    }.values(),
    ids=["one value", "signs", "order"],
)
def test_bold_that_the_user_changes_in_place_is_read_again(assembly, arrays, change, made):
    inputs = KeptResponses()
    before = fit(assembly, SETTINGS, inputs)
    change(arrays["storyb"])
    made.clear()
    after = fit(assembly, SETTINGS, inputs)
    assert made == ["storyb"]
    assert_same(after, fit(assembly, SETTINGS))
    assert not np.array_equal(after.predictions["storyz"], before.predictions["storyz"], equal_nan=True)


def test_other_data_under_the_same_names_are_read(assembly, made):
    other = {
        name: replace(story, bold=np.asarray(story.bold)[::-1].copy())
        for name, story in assembly.stories.items()
    }
    inputs = KeptResponses()
    fit(assembly, SETTINGS, inputs)
    found = fit(replace(assembly, stories=other), SETTINGS, inputs)
    assert made[3:] == ["storya", "storyb", "storyc"]
    assert_same(found, fit(replace(assembly, stories=other), SETTINGS))


class Lazy:
    """BOLD that is read from somewhere else."""

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
        inputs = KeptResponses()
        fit(data, SETTINGS, inputs)
        made.clear()
        assert_same(fit(data, SETTINGS, inputs), fit(data, SETTINGS))
        assert made == 2 * ["storya", "storyb", "storyc"]
        assert not inputs.forget(), "nothing is held"
        monkeypatch.setattr(matrices, "KEPT_BYTES", 1000)


def test_an_error_leaves_nothing_half_made(assembly, arrays):
    inputs = KeptResponses()
    expected = fit(assembly, SETTINGS, inputs)
    good = arrays["storyb"][3, 1]
    arrays["storyb"][3, 1] = np.nan
    for _ in range(2):
        with pytest.raises(ValueError, match="storyb: 1 NaN"):
            fit(assembly, SETTINGS, inputs)
    arrays["storyb"][3, 1] = good
    assert_same(fit(assembly, SETTINGS, inputs), expected)


def test_a_result_does_not_share_memory_with_what_is_kept(assembly):
    nested = replace(SETTINGS, use_train_test_split=False, n_outer_folds=3)
    inputs = KeptResponses()
    found = fit(assembly, nested, inputs)
    for measured in found.measured.values():
        measured[:] = 0
    assert_same(fit(assembly, nested, inputs), fit(assembly, nested))


def test_where_memory_is_short_a_run_lets_go_of_what_the_last_one_left(assembly, monkeypatch):
    inputs = KeptResponses()
    expected = fit(assembly, SETTINGS, inputs)
    free = iter([1000, 10**10])
    monkeypatch.setattr(_machine, "free_memory", lambda: next(free, 10**10))
    assert_same(fit(assembly, SETTINGS, inputs), expected)
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    for _ in range(2):
        with pytest.raises(SettingsError, match="memory"):
            fit(assembly, SETTINGS, inputs)
    assert not inputs.forget() and not Anew().forget()


def test_prepare_leaves_a_run_nothing_but_its_own_work(assembly, monkeypatch):
    settings = replace(RATE, trimming=replace(TRIM, test_features_start=17, test_targets_start=7))
    prepare(assembly, settings, memory=NO_CACHE)
    monkeypatch.setattr(matrices.scoring, "noise_ceiling", lambda repeats: pytest.fail("computed again"))
    assert fit(assembly, settings).noise_ceiling[0] > 0.8
    broken = replace(settings, fdr_q=7.0)
    assert check(assembly, broken)
    prepare(assembly, broken, memory=NO_CACHE)
