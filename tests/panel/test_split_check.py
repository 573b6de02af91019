"""The check of the split in the panel: its answer, when it is outdated, and how it ends."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from encoding_nb import pipeline
from encoding_nb._progress import Progress
from encoding_nb.panel import ControlPanel

from ..pipeline.test_runs import RATE, TRIM, assembly  # noqa: F401 - a fixture
from .test_panel import NO_CACHE, box, texts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def panel(assembly, tmp_path):  # noqa: F811
    return ControlPanel(
        assembly, memory=NO_CACHE, results_dir=tmp_path, settings=replace(RATE, trimming=TRIM)
    )


def check(panel):
    panel.controls.split.button.click()
    assert panel.join(60)
    return texts(panel.controls.split)


@pytest.mark.parametrize("split", [{}, {"use_train_test_split": False, "n_outer_folds": 3}])
def test_the_sentence_of_the_check_is_shown(panel, assembly, split):  # noqa: F811
    panel.settings = replace(panel.settings, **split)
    shown = check(panel)
    found = pipeline.split_check(assembly, panel.settings, progress=False)
    assert found.sentence.replace('"', "&quot;").replace("'", "&#x27;") in shown
    assert panel.status == "The split is checked." and panel.result is None
    assert "\u26a0" not in shown


def test_it_leaves_the_last_fit_and_its_notes_as_they_are(panel):
    panel.fit()
    assert panel.join(60)
    result, notes = panel.result, list(panel.session.notes)
    check(panel)
    assert panel.result is result and set(notes) <= set(panel.session.notes)
    assert panel.results.shown.value == "Shown: word rate." and not panel.save_button.disabled


def test_it_turns_amber_when_the_split_changes_and_back(panel):
    assert "\u26a0" not in check(panel)
    box(panel, "fdr_q").value = "0.01"
    panel.controls.spaces.boxes["position"].value = True
    assert "\u26a0" not in texts(panel.controls.split), "not of the split"
    for name, value, before in (("chunk_length", "7", "5"), ("high_pass", "128", "")):
        box(panel, name).value = value
        label = panel.controls.label_of(name)
        assert f"The split has changed since ({label}): check it again." in texts(panel.controls.split)
        assert "enb-outdated" in panel.controls.split.line.value
        box(panel, name).value = before
        assert "\u26a0" not in texts(panel.controls.split)


def test_other_data_clear_it(panel, assembly):  # noqa: F811
    assert "knows only time" in check(panel)
    panel.session.start("open", lambda tell: replace(assembly, subject="T"))
    assert panel.join(10) and texts(panel.controls.split) == ""


def test_it_is_cancelled_like_a_run(panel, monkeypatch):
    began = threading.Event()

    def endless(*_, progress, **__):
        while True:
            began.set()
            progress(Progress("ridge", 0, 1, 0.1, "time alone"))
            threading.Event().wait(0.01)

    monkeypatch.setattr(pipeline, "split_check", endless)
    panel.controls.split.button.click()
    assert began.wait(10) and panel.controls.split.button.disabled and panel.fit_button.disabled
    panel.cancel_button.click()
    assert panel.join(10) and "Cancelled" in panel.status and texts(panel.controls.split) == ""
    assert not panel.controls.split.button.disabled
    monkeypatch.setattr(pipeline, "split_check", lambda *_, **__: SimpleNamespace(sentence="They <do>."))
    assert "They &lt;do&gt;." in check(panel)


def test_what_fails_is_shown_in_words(panel, monkeypatch):
    def failing(*_, **__):
        raise ValueError("storya: too few rows for the gap.")

    monkeypatch.setattr(pipeline, "split_check", failing)
    panel.controls.split.button.click()
    with pytest.raises(ValueError, match="too few rows"):
        panel.join(10)
    assert "storya: too few rows for the gap." in texts(panel.fit_status.error)
    assert "could not be checked" in panel.status and not panel.fit_button.disabled


def test_settings_with_a_problem_cannot_be_checked(panel):
    box(panel, "chunk_length").value = "five"
    assert panel.controls.split.button.disabled
    box(panel, "chunk_length").value = "5"
    assert not panel.controls.split.button.disabled
