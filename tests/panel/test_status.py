"""The lines under the Fit button: what a run tells while it goes on."""

from dataclasses import replace

import pytest

from encoding_nb._progress import Progress
from encoding_nb.panel import status
from encoding_nb.panel.status import ProgressView, describe, stages_html


def test_progress_names_story_rate_and_time_left():
    step = Progress("features", 500, 2000, 0.2, "gravy", seconds_left=30.0, rate=50.0)
    assert describe(step) == "features: gravy, 500 of 2,000 words, 50 words/s, about 30 s left in this stage"
    assert describe(Progress("ridge", 1, 10, 0.5, "one alpha per voxel")) == "ridge: one alpha per voxel"
    line = stages_html("ridge")
    assert "\u2713 features" in line and "\u25b6 ridge" in line and "\u00b7 scores" in line


def test_an_answer_stays_while_the_run_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    view = ProgressView()
    view.begin("Starting.")
    view.show(Progress("features", 1, 4, 0.2, "a story"))
    assert view.status.value == "features: a story, 1 of 4 words"
    view.write("Something is <running> already.", answer=True)
    now[0] += status.UPDATE_SECONDS
    view.show(Progress("ridge", 1, 4, 0.6, "a fold"))
    assert view.status.value == "Something is &lt;running&gt; already."
    assert view.bar.value == 0.6 and "ridge" in view.stages.value  # these go on
    now[0] += status.ANSWER_SECONDS
    view.show(Progress("ridge", 2, 4, 0.7, "another fold"))
    assert view.status.value == "ridge: another fold"
    view.write("Stopping.", answer=True)
    view.end("warning", "Cancelled.")
    assert view.status.value == "Cancelled."
    view.write("Something is running already.", answer=True)
    view.begin("Starting.")
    view.show(Progress("design", 1, 4, 0.3, "delays"))
    assert view.status.value == "design: delays"  # a new run's steps are not held back


def test_a_slow_model_tells_its_words_and_a_time():
    step = Progress("features", 12.4, 9702, 0.001, "deepend", seconds_left=24_000.0, rate=0.4)
    assert describe(step) == (
        "features: deepend, 12 of 9,702 words, 0.4 words/s, about 6.7 h left in this stage"
    )
    assert "about 10 min left" in describe(replace(step, seconds_left=600.0))
    first = describe(Progress("features", 0, 9702, 0.0, "deepend"))
    assert first == "features: deepend, 0 of 9,702 words; the time left is known after the first ones"
    assert describe(Progress("features", 0, 1, 0.0, "opening demo")) == "features: opening demo"


@pytest.mark.parametrize(("style", "text"), [("warning", "Cancelled."), ("danger", "The fit stopped.")])
def test_after_a_run_that_did_not_finish_no_stage_is_marked_as_running(style, text):
    view = ProgressView()
    view.begin("Starting.")
    view.show(Progress("features", 1, 4, 0.2, "a story"))
    view.show(Progress("ridge", 1, 4, 0.6, "a fold"))  # too soon after the last to be drawn
    assert "\u25b6 features" in view.stages.value
    view.end(style, text)
    assert "\u25b6" not in view.stages.value and "enb-now" not in view.stages.value
    assert view.stages.value.count("\u2713") == 2, "features and design were done"
