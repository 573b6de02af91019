"""The time left of a stage: soon there, and not spoilt by what comes before the first piece of work."""

from dataclasses import replace

import numpy as np
import pytest
from joblib import Memory

from encoding_nb.features import FEATURE_SPACES, FeatureSpec, joined_features
from encoding_nb.pipeline import clock, matrices, plan_run

from .test_runs import RATE, TRIM, assembly  # noqa: F401 - a fixture


@pytest.fixture
def now(monkeypatch):
    """The clock's time, in a list of one."""
    time = [0.0]
    monkeypatch.setattr(clock.time, "monotonic", lambda: time[0])
    return time


def test_a_model_that_takes_long_to_load_does_not_spoil_the_time_left(now):
    """20 s of loading, then 0.4 words a second: after three of 9,702 words it is known how long that takes."""
    seen = []
    measured = clock.Clock(seen.append, dict.fromkeys(clock.STAGES, 1.0))
    with measured.stage("features"):
        measured.tell(0, 9702, "deepend")
        now[0] += 20
        for word in range(1, 41):
            now[0] += 2.5
            measured.tell(word, 9702, "deepend")
    assert seen[0].seconds_left is None and seen[0].rate is None
    assert all(step.seconds_left is not None for step in seen[1:]), "a time from the first word on"
    assert seen[2].rate == pytest.approx(0.4) and seen[2].seconds_left == pytest.approx(2.5 * (9702 - 2))
    assert seen[-1].rate == pytest.approx(0.4) and [step.done for step in seen] == list(range(41))


def test_each_stage_has_its_own_pace(now):
    seen = []
    measured = clock.Clock(seen.append, dict.fromkeys(clock.STAGES, 1.0))
    for stage, pace in (("features", 1.0), ("ridge", 10.0)):
        with measured.stage(stage):
            for done in range(1, 4):
                now[0] += pace
                measured.tell(done, 10, stage)
    assert [round(step.seconds_left) for step in seen] == [9, 8, 7, 90, 80, 70]


@pytest.mark.parametrize("order", [("language_model", "wordrate"), ("wordrate", "language_model")])
def test_the_words_of_a_joined_run_are_those_that_the_model_has_read(assembly, monkeypatch, now, order):  # noqa: F811
    """Word rate takes no time: it neither adds words at once nor makes the model look faster."""
    settings = replace(RATE, modality=order[0], joined_with=order[1:], lookback=8, trimming=TRIM)
    plan = plan_run(assembly, settings, memory=Memory(None))

    def model(story, spec, sample, *, progress, **_):
        for tenth in range(11):
            now[0] += 3.0 if tenth else 0.0
            progress(tenth, 10)
        return np.zeros((story.n_trs, 1))

    monkeypatch.setitem(FEATURE_SPACES, "language_model", model)
    seen = []
    matrices.story_features(plan, clock.Clock(seen.append, dict.fromkeys(clock.STAGES, 1.0)))
    done = [step.done for step in seen]
    assert done == sorted(done) and done[-1] == seen[-1].total
    total, rate = seen[-1].total, seen[-1].total / now[0]
    for step in seen:
        if step.rate is not None:
            assert step.rate == pytest.approx(rate, rel=0.1)
            assert step.seconds_left == pytest.approx((total - step.done) / rate, abs=0.1 * now[0])


def test_a_story_of_many_tokens_moves_the_bar_with_each_batch(assembly, monkeypatch):  # noqa: F811
    """A story of a slow model is one of several spaces and takes long: less than a percent of it counts."""
    story, seen = assembly.stories["storya"], []

    def slow(story, spec, sample, *, progress, **_):
        for done in (0, 3, 6, 100_000):
            progress(done, 100_000)
        return np.zeros((story.n_trs, 1))

    monkeypatch.setitem(FEATURE_SPACES, "wordrate", slow)
    joined_features(story, {"wordrate": FeatureSpec("wordrate")}, progress=lambda *step: seen.append(step))
    assert [done / total for done, total in seen] == pytest.approx([0, 3e-5, 6e-5, 1])
