"""The lines under the Fit button: what a run tells while it goes on."""

from encoding_nb._progress import Progress
from encoding_nb.panel import status
from encoding_nb.panel.status import ProgressView, describe, stages_html


def test_progress_names_story_rate_and_time_left():
    step = Progress("features", 500, 2000, 0.2, "gravy", seconds_left=30.0, rate=50.0)
    assert describe(step) == "features: gravy, 50 words/s, about 30 s left in this stage"
    assert describe(Progress("ridge", 1, 10, 0.5, "one alpha per voxel")) == "ridge: one alpha per voxel"
    line = stages_html("ridge")
    assert "\u2713 features" in line and "\u25b6 ridge" in line and "\u00b7 scores" in line


def test_an_answer_stays_while_the_run_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(status.time, "monotonic", lambda: now[0])
    view = ProgressView()
    view.begin("Starting.")
    view.show(Progress("features", 1, 4, 0.2, "a story"))
    assert view.status.value == "features: a story"
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
