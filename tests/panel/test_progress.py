"""What is said of an error: its own sentence, or what was being done and what to try; the line of a run."""

from dataclasses import replace

import pytest

from encoding_nb._progress import Progress
from encoding_nb.design import downsampling
from encoding_nb.features import language_model
from encoding_nb.features.models import ModelError
from encoding_nb.panel import progress_view
from encoding_nb.panel.layer_sweep import LayerError
from encoding_nb.panel.progress_view import ProgressView, explained
from encoding_nb.panel.runs import Runs
from encoding_nb.settings import Settings

from ..pipeline.test_runs import RATE, assembly  # noqa: F401 - a fixture


def failed(assembly, settings, raise_it):  # noqa: F811
    """The runs after a fit that failed in its first stage; other settings stand at the controls by then."""

    def job(tell):
        tell(Progress("features", 0, 1, 0.0))
        raise_it()

    runs = Runs(assembly)
    runs.start("fit", job, settings)
    assert runs.join(10)
    runs.settings = replace(settings, model_name="another-model")
    return runs


def test_the_model_is_blamed_for_what_failed_in_loading_it(assembly, monkeypatch):  # noqa: F811
    def broken(*_, **__):
        raise OSError("header too short")

    monkeypatch.setattr(language_model, "_refuse_too_large", broken)
    info = type("Info", (), {"folder": None})
    monkeypatch.setattr(language_model, "identity", lambda folder: "x")
    runs = failed(assembly, Settings(model_name="gpt2-large"), lambda: language_model.load_model(info))
    said = explained(runs.error, runs)
    assert "gpt2-large could not be read or used (OSError: header too short)" in said and "demo" in said


@pytest.mark.parametrize("settings", [RATE, Settings(model_name="gpt2-large")])
def test_no_model_is_blamed_for_other_errors(assembly, settings):  # noqa: F811
    runs = failed(assembly, settings, lambda: 1 / 0)
    said = explained(runs.error, runs)
    assert "'features' failed (ZeroDivisionError: division by zero)" in said and "setting" in said
    assert "demo" not in said and "gpt2-large" not in said
    runs = failed(assembly, settings, lambda: downsampling.downsample(None, None, None))
    assert "could not be read" not in explained(runs.error, runs)


def test_data_that_break_their_reader_are_said_as_such(assembly):  # noqa: F811
    runs = failed(assembly, RATE, lambda: {}["words"])
    runs.kind = "open"
    assert explained(runs.error, runs).startswith(
        "These data could not be read (KeyError: 'words'); choose others"
    )
    assert explained(FileNotFoundError(2, "No such file", "x.h5"), runs) == "[Errno 2] No such file: 'x.h5'"


def test_a_model_that_cannot_be_loaded_leaves_another(assembly):  # noqa: F811
    def broken():
        raise ModelError("big: its model cannot be loaded; choose another.")

    def layer():
        raise LayerError("Layer 0: ModelError: big: its model cannot be loaded; choose another.")

    for raise_it in (broken, layer):
        runs = failed(assembly, RATE, raise_it)
        assert explained(runs.error, runs).endswith(
            "choose another. The bundled model, demo, is always there."
        )


def test_own_sentences_stay_and_memory_is_said(assembly):  # noqa: F811
    def short():
        raise MemoryError("Unable to allocate 8 GiB")

    runs = failed(assembly, RATE, lambda: int("x"))
    assert explained(runs.error, runs).startswith("invalid literal")
    runs = failed(assembly, RATE, short)
    assert "not enough memory (MemoryError: Unable to allocate 8 GiB); choose" in explained(runs.error, runs)


def test_an_answer_stands_while_the_run_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress_view.time, "monotonic", lambda: now[0])
    view = ProgressView()
    view.begin("Starting.")
    view.show(Progress("features", 1, 4, 0.2, "a story"))
    assert view.status.value == "features: a story"
    view.answer("Something is <running> already.")
    now[0] += progress_view.UPDATE_SECONDS
    view.show(Progress("ridge", 1, 4, 0.6, "a fold"))
    assert view.status.value == "Something is &lt;running&gt; already."
    assert view.bar.value == 0.6 and "ridge" in view.stages.value  # these go on
    now[0] += progress_view.ANSWER_SECONDS
    view.show(Progress("ridge", 2, 4, 0.7, "another fold"))
    assert view.status.value == "ridge: another fold"
    view.answer("Stopping.")
    view.end("warning", "Cancelled.")
    assert view.status.value == "Cancelled."
    view.answer("Something is running already.")
    view.begin("Starting.")
    view.show(Progress("design", 1, 4, 0.3, "delays"))
    assert view.status.value == "design: delays"  # a new run's steps are not held back
