"""The panel without a browser: its state, its refusals, its thread, and what it leaves."""

import base64
import json
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import ipywidgets as widgets
import numpy as np
import pytest
from joblib import Memory

from encoding_nb import _machine, features, pipeline
from encoding_nb._progress import Progress
from encoding_nb.assembly import assembly_digest
from encoding_nb.design import TRIMMINGS
from encoding_nb.features import is_cached, model_info, spaces
from encoding_nb.panel import ControlPanel, control_panel
from encoding_nb.panel.progress_view import describe, stages_html
from encoding_nb.pipeline import matrices, run
from encoding_nb.records import list_runs, load_run
from encoding_nb.settings import Settings

from ..pipeline.test_runs import RATE, TRIM, assembly  # noqa: F401 - a fixture

NO_CACHE = Memory(None)
TINY_MODEL = Path(__file__).parents[1] / "golden" / "hf" / "tiny-gpt2"
INPUTS = (widgets.Text, widgets.IntText, widgets.FloatText, widgets.IntSlider, widgets.FloatSlider,
          widgets.Dropdown, widgets.SelectMultiple, widgets.Checkbox, widgets.Combobox, widgets.Button,
          widgets.ToggleButton)  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")


@pytest.fixture
def panel(assembly, tmp_path):  # noqa: F811
    return ControlPanel(
        assembly,
        memory=NO_CACHE,
        results_dir=tmp_path,
        settings=replace(RATE, trimming=TRIMMINGS["lebel"]),
    )


def use_trimming(panel, trimming):
    for name, box in panel._controls.trimming.numbers.items():
        value = getattr(trimming, name)
        box.value = "" if value is None else str(value)


def texts(widget) -> str:
    """All HTML in a widget and its children, but for pictures."""
    own = getattr(widget, "value", "") if type(widget).__name__ == "HTML" else ""
    return str(own) + "".join(texts(child) for child in getattr(widget, "children", ()))


def all_controls(widget):
    if isinstance(widget, INPUTS):
        yield widget
    for child in getattr(widget, "children", ()):
        yield from all_controls(child)


def slow_run(release: threading.Event):
    """In place of `pipeline.run`: goes on until `release` is set, and then fails."""

    def run(*_, progress, **__):
        while not release.wait(0.01):
            progress(Progress("features", 1, 10, 0.1, "storya"))
        raise RuntimeError("the disk is <full>")

    return run


@pytest.fixture
def release(panel, monkeypatch):
    """The panel's next fit goes on until this is set, and then fails."""
    event = threading.Event()
    use_trimming(panel, TRIM)
    monkeypatch.setattr(pipeline, "run", slow_run(event))
    yield event
    event.set()


# ---------------------------------------------------------------------- fit and save


def test_nothing_is_saved_before_a_fit(panel):
    assert panel._save_button.disabled and not panel._page.enabled
    with pytest.raises(RuntimeError, match="press Fit first"):
        panel.save()
    _, content, said = panel._pack()
    assert content is None and "no saved run" in said


def test_fit_gives_the_result_of_run_and_save_writes_it(panel, assembly, tmp_path):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    expected = run(assembly, panel.settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(panel.result.scores, expected.scores)
    assert "Done in" in texts(panel) and "voxels significant" in texts(panel)
    assert not panel._fit_button.disabled and panel._cancel_button.disabled
    assert panel._results.brain.view.result is panel.result

    folder = panel.save()
    assert panel.save() == folder and [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert folder.name in texts(panel._progress) and "scores.csv" in texts(panel._progress)
    assert {p.name for p in folder.iterdir()} >= {"stories.png", "stories.svg", "scores.csv", "settings.json"}
    assert Settings.from_json((folder / "settings.json").read_text()) == panel.settings
    assert json.loads((folder / "metrics.json").read_text())["n_voxels"] == 3
    np.testing.assert_array_equal(load_run(folder).scores, panel.result.scores)

    name, content, _ = panel._pack()
    (tmp_path / name).write_bytes(content)
    packed = ZipFile(tmp_path / name)
    assert packed.testzip() is None
    assert f"{tmp_path.name}/{folder.name}/scores.csv" in packed.namelist()


def test_an_error_in_saving_is_said_and_the_panel_goes_on(panel, tmp_path):
    use_trimming(panel, TRIM)
    panel.fit()
    panel.join(60)
    (tmp_path / "taken").write_text("a file")
    panel._record.results_dir = tmp_path / "taken"
    panel._save_button.click()
    assert panel._saving.join(30)
    assert "Nothing was saved" in texts(panel) and "taken" in panel._gate.error.value
    assert not panel._fit_button.disabled
    panel._record.results_dir = tmp_path / "free"
    panel._save_button.click()
    assert panel._saving.join(30)
    assert "Saved in" in texts(panel) and panel._gate.error.value == ""


# ---------------------------------------------------------------------- refusals


def test_what_cannot_be_stands_beside_the_control_and_stops_fit(panel):
    use_trimming(panel, replace(TRIM, train_features_start=70))
    field = panel._controls.trimming
    assert "storya" in texts(field) and panel._fit_button.disabled
    assert "Fit is off until this is mended: trimming" in texts(panel._gate.readiness)
    use_trimming(panel, TRIM)
    assert texts(field).count("\u26a0") == 0 and not panel._fit_button.disabled
    assert "Fit is off" not in texts(panel._gate.readiness)


def test_a_box_without_a_number_is_said(panel):
    panel._controls.trimming.numbers["test_targets_end"].value = "five"
    assert "end of test BOLD must be a whole number of TRs, got &#x27;five&#x27;" in texts(panel)
    assert panel._fit_button.disabled


def test_a_second_fit_is_refused_and_an_error_leaves_the_panel_usable(panel, release):
    panel.fit()
    first = panel._runs._worker
    panel.fit()
    assert panel._runs._worker is first and "running already" in texts(panel)
    panel.sweep()
    panel.open_data("demo", {})
    assert panel._runs._worker is first and panel._runs.kind == "fit"
    release.set()
    with pytest.raises(RuntimeError, match="the disk is <full>"):
        panel.join(10)
    assert "the disk is &lt;full&gt;" in texts(panel) and "traceback" in texts(panel)
    assert not panel._fit_button.disabled and panel.result is None


def test_fit_stays_off_after_a_run_when_a_setting_went_wrong_meanwhile(panel, release):
    panel.fit()
    use_trimming(panel, replace(TRIM, train_features_start=70))
    panel.cancel()
    assert panel.join(10)
    assert panel._fit_button.disabled
    use_trimming(panel, TRIM)
    assert not panel._fit_button.disabled


def test_a_fit_after_an_error_gives_a_result(panel, release, monkeypatch):
    release.set()
    panel.fit()
    with pytest.raises(RuntimeError):
        panel.join(10)
    monkeypatch.undo()
    panel.fit()
    assert panel.join(60)
    assert panel.result is not None and panel._gate.error.value == ""


def test_nothing_of_one_data_set_is_kept_for_another(panel, assembly):  # noqa: F811
    use_trimming(panel, TRIM)
    before = panel._runs.inputs
    panel.fit()
    assert panel.join(60)
    assert panel._runs.inputs is before, "the next fit on these data finds what this one left"
    assert panel._runs.start("open", opening(replace(assembly, subject="T"))) and panel.join(10)
    assert panel._runs.inputs is not before


def test_the_next_fit_takes_the_responses_that_the_last_left(panel, assembly, monkeypatch):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    panel._controls.time.delays.control.value = "1, 2, 3"
    expected = run(assembly, panel.settings, memory=NO_CACHE, progress=False)
    rows, truly = [], matrices.response_rows

    def counted(story, trimming, *, test):
        rows.append((story.name, test))
        return truly(story, trimming, test=test)

    monkeypatch.setattr(matrices, "response_rows", counted)
    panel.fit()
    assert panel.join(60)
    assert panel.settings.fir_delays == (1, 2, 3) and rows == [("storyz", True)]
    np.testing.assert_array_equal(panel.result.scores, expected.scores)
    assert panel.result.notes == expected.notes


def test_cancel(panel, release):
    panel.fit()
    assert not panel._cancel_button.disabled and panel._fit_button.disabled
    panel.cancel()
    assert panel.join(10)
    assert "Cancelled" in texts(panel) and not panel._fit_button.disabled


def test_progress_names_story_rate_and_time_left():
    step = Progress("features", 500, 2000, 0.2, "gravy", seconds_left=30.0, rate=50.0)
    assert describe(step) == "features: gravy, 50 words/s, about 30 s left in this stage"
    assert describe(Progress("ridge", 1, 10, 0.5, "one alpha per voxel")) == "ridge: one alpha per voxel"
    line = stages_html("ridge")
    assert "\u2713 features" in line and "\u25b6 ridge" in line and "\u00b7 scores" in line


def test_a_model_that_cannot_be_read_is_said_beside_it(panel, tmp_path):
    panel._controls.show(replace(Settings(), trimming=TRIM))
    model = panel._controls.model
    for number, text in enumerate(("[]", '{"n_layer": 2, "n_embd": 8, "text_config": null}', "{")):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        (folder / "config.json").write_text(text)
        model.control.value = str(folder)
        if text.startswith('{"n'):  # a field that is null may also be taken for one that is not there
            continue
        assert texts(model).count("\u26a0") == 1 and panel._fit_button.disabled, text
        assert "Fit is off until this is mended: model" in texts(panel._gate.readiness)
        model.control.value = str(TINY_MODEL)
        assert not panel._fit_button.disabled
    model.control.value = "a" * 300
    assert panel._lookup._seeking.join(30)
    assert texts(model).count("\u26a0") == 1 and "Looking this model up" not in texts(model)
    model.control.value = str(TINY_MODEL)
    assert not panel._fit_button.disabled


def test_an_embedding_path_that_cannot_be_is_said_beside_it(panel):
    use_trimming(panel, TRIM)
    models = panel._controls.models
    models.spaces.boxes["embeddings"].value = True
    models.embedding.control.value = "a" * 300
    assert "cannot be a file of word vectors" in texts(models.embedding) and panel._fit_button.disabled
    assert "vectors" in texts(panel._gate.readiness)


def test_a_check_that_fails_itself_is_said_beside_the_setting_that_makes_it(panel, monkeypatch):
    use_trimming(panel, TRIM)
    truly = pipeline.check

    def fails(assembly, settings):  # noqa: F811
        if settings.cutoff_mult > 5:
            raise TypeError("no such cutoff")
        return truly(assembly, settings)

    monkeypatch.setattr(pipeline, "check", fails)
    panel._controls.time.cutoff.control.value = "6"
    assert "cannot be checked (TypeError: no such cutoff)" in texts(panel._controls.time.cutoff)
    assert panel._fit_button.disabled and panel._controls.sections["time"].unfolded
    panel._controls.time.cutoff.control.value = "1"
    assert not panel._fit_button.disabled
    monkeypatch.setattr(panel._gate.readiness, "examine", lambda controls: 1 / 0)
    panel._controls.time.cutoff.control.value = "2"
    assert "cannot be checked (ZeroDivisionError" in panel._gate.error.value and panel._fit_button.disabled


def test_a_run_that_ends_while_the_buttons_are_set_leaves_them_right(panel, monkeypatch):
    """Fit stayed off, and Cancel on, where a run ended between the look at it and the buttons."""
    use_trimming(panel, TRIM)
    state, looked, ended = {"running": True}, threading.Event(), threading.Event()

    def running(_):
        was = state["running"]
        if was and threading.current_thread() is not threading.main_thread():
            looked.set()
            ended.wait(0.5)  # what has looked is slow; the run ends meanwhile
        return was

    monkeypatch.setattr(type(panel._runs), "running", property(running))
    slow = threading.Thread(target=panel._gate.allow)
    slow.start()
    assert looked.wait(10)
    state["running"] = False
    panel._news("idle", None)
    ended.set()
    slow.join(10)
    assert not panel._fit_button.disabled and panel._cancel_button.disabled


def test_a_look_at_older_settings_does_not_stay(panel):
    """The thread that looks models up examines the controls too; what it saw first must not be shown last."""
    use_trimming(panel, TRIM)
    truly, seen, go = panel._gate.readiness.examine, threading.Event(), threading.Event()

    def slow(controls):
        found = truly(controls)
        if threading.current_thread() is not threading.main_thread():
            seen.set()
            go.wait(0.5)
        return found

    panel._gate.readiness.examine = slow
    panel._controls.time.delays.control.value = "one"
    other = threading.Thread(target=panel._settings_changed)
    other.start()
    assert seen.wait(10)
    panel._controls.time.delays.control.value = "1-4"
    go.set()
    other.join(10)
    assert not panel._fit_button.disabled and "\u26a0" not in texts(panel._controls.time.delays)


def test_news_that_cannot_be_shown_are_said(panel, release, monkeypatch):
    monkeypatch.setattr(panel._progress, "show", lambda step: 1 / 0)
    panel.fit()
    while "could not show" not in panel._gate.error.value:
        time.sleep(0.01)
    assert "ZeroDivisionError" in panel._gate.error.value and panel.running
    panel.cancel()
    assert panel.join(10) and "Cancelled" in texts(panel)


def test_stories_that_were_finished_stay_cached_after_cancel(assembly, tmp_path, monkeypatch):  # noqa: F811
    memory = Memory(tmp_path / "cache", verbose=0)
    settings = Settings(model_name=str(TINY_MODEL), layer_idx=1, lookback=8, trimming=TRIM)
    stories = {
        name: replace(story, words=replace(story.words, text=tuple(f"{name} {w}" for w in story.words.text)))
        for name, story in assembly.stories.items()
    }  # each with words of its own: what is cached goes by the text
    assembly = replace(assembly, stories=stories)
    panel = ControlPanel(assembly, memory=memory, results_dir=tmp_path, settings=settings)
    truly, second, go, names = spaces.layer_activations, threading.Event(), threading.Event(), []

    def stuck(words, *arguments, progress, **options):
        names.append(words)
        if len(names) == 2:
            progress(0, 1)
            second.set()
            go.wait(30)
            progress(0, 1)
        return truly(words, *arguments, progress=progress, **options)

    monkeypatch.setattr(spaces, "layer_activations", stuck)
    panel.fit()
    assert second.wait(60)
    panel.cancel()
    assert panel.join(10) and "finished stay cached" in texts(panel)
    go.set()
    panel._runs._leaving.join(10)
    specs = settings.feature_specs.values()
    cached = [all(is_cached(s, spec, memory=memory) for spec in specs) for s in assembly.stories.values()]
    assert cached == [True, False, False, False]


def test_a_run_that_does_not_fit_into_memory_keeps_fit_off(panel, monkeypatch):
    use_trimming(panel, TRIM)
    assert panel._gate.readiness.estimated(30) and not panel._fit_button.disabled
    free = _machine.free_memory()
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    panel._controls.fit.seed.control.value = "5"
    assert panel._gate.readiness.estimated(30)
    assert panel._fit_button.disabled and "GB are free" in texts(panel._controls.stories)
    assert "Fit is off until this is mended: stories" in texts(panel._gate.readiness)
    monkeypatch.setattr(_machine, "free_memory", lambda: free)  # another program has ended
    panel._gate.readiness._look_again(panel.settings)
    assert panel._gate.readiness.estimated(30)
    assert not panel._fit_button.disabled and "GB are free" not in texts(panel._controls.stories)


def test_what_the_last_fit_left_keeps_no_fit_off(panel, monkeypatch):
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60) and panel._gate.readiness.estimated(30)
    free, forget = [1000], panel._runs.inputs.forget
    monkeypatch.setattr(_machine, "free_memory", lambda: free[0])
    monkeypatch.setattr(
        panel._runs.inputs, "forget", lambda: forget() and free.__setitem__(0, 10**10) is None
    )
    panel._controls.fit.seed.control.value = "5"
    assert panel._gate.readiness.estimated(30)
    assert not panel._fit_button.disabled and "GB are free" not in texts(panel._controls.stories)


def test_a_model_that_is_too_large_names_one_that_would_do(panel, monkeypatch):
    truly = model_info
    large = replace(truly(str(TINY_MODEL)), n_parameters=10**14)
    monkeypatch.setattr(
        features, "model_info", lambda name, **o: large if name == str(TINY_MODEL) else truly(name, **o)
    )
    panel._controls.show(Settings(model_name=str(TINY_MODEL), layer_idx=1, lookback=8, trimming=TRIM))
    assert panel._gate.readiness.estimated(30)
    said = texts(panel._controls.model)
    assert (
        "smaller model" in said and "bundled model, demo, it would fit" in said and panel._fit_button.disabled
    )


def test_warnings_of_a_run_are_shown_as_notes(panel):
    use_trimming(panel, TRIM)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for _ in range(2):  # the second run says it again
            panel.fit()
            assert panel.join(60)
            assert "1 of 3 columns have no variance" in panel._notes.value
    assert "<details>" in panel._notes.value and "about this run" in panel._notes.value


def test_warnings_of_saving_and_of_opening_are_shown_as_notes(panel, assembly, monkeypatch):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    monkeypatch.setattr("encoding_nb.plots.plot_alphas", lambda run: 1 / 0)

    def opened(source, **_):
        warnings.warn("a story lacks its words", stacklevel=1)
        return assembly

    monkeypatch.setattr("encoding_nb.datasets.load_assembly", opened)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        panel.save()
        assert "alphas.png was not drawn" in panel._notes.value
        panel.open_data("demo", {})
        assert panel.join(10)
    assert "a story lacks its words" in panel._notes.value and "not drawn" not in panel._notes.value


def test_errors_of_the_panel_print_nothing(tmp_path):
    """In a process of its own, where nobody has set up logging."""
    code = (
        "from encoding_nb.panel.background import Latest\n"
        "latest = Latest(lambda: 1 / 0)\nlatest.ask()\nprint(latest.join(10))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True" and done.stderr == ""


def test_every_control_has_a_label_and_a_tooltip(panel):
    found = list(all_controls(panel))
    assert len(found) >= 55
    for control in found:
        assert control.description, f"{control.tooltip} has no label"
        assert control.tooltip, f"{control.description} has no tooltip"


def test_the_estimate_stands_there_before_the_start(panel):
    use_trimming(panel, TRIM)
    assert panel._gate.readiness.estimated(30)
    assert "of memory" in texts(panel._gate.readiness) and "cached" in texts(panel._gate.readiness)


# ---------------------------------------------------------------------- data


def test_opening_data_changes_the_stories_and_forgets_none(panel, assembly, tmp_path, monkeypatch):  # noqa: F811
    other = replace(assembly, stories={k: s for k, s in assembly.stories.items() if k != "storya"})
    monkeypatch.setattr("encoding_nb.datasets.load_assembly", lambda source, **options: other)
    (tmp_path / "data.h5").write_text("")
    data = panel._controls.data
    data.source.value, data.path.value = "file", str(tmp_path / "data.h5")
    data.open_button.click()
    assert panel.join(10)
    assert panel.assembly is other and "3 stories" in texts(panel)
    assert panel._controls.stories.train.options == ("storyb", "storyc", "storyz")
    assert panel.settings.stories is None


@pytest.mark.parametrize(
    ("source", "path", "subject", "said"),
    [
        ("file", "", "", "Expected the path of a file"),
        ("file", "nowhere.pkl", "", "There is no file at"),
        ("folder", "nowhere", "UTS03", "There is no folder at"),
    ],
)
def test_data_that_cannot_be_are_said_beside_open(panel, source, path, subject, said):
    data = panel._controls.data
    data.source.value, data.path.value, data.subject.value = source, path, subject
    data.open_button.click()
    assert said in texts(data) and not panel.running


def test_data_that_cannot_be_opened_leave_those_from_before(panel, assembly, tmp_path):  # noqa: F811
    (tmp_path / "data.txt").write_text("no data")
    panel.open_data(str(tmp_path / "data.txt"), {})
    with pytest.raises(ValueError):
        panel.join(10)
    assert panel.assembly is assembly and "\u26a0" in texts(panel._controls.data)
    assert "those from before stay" in texts(panel)


def test_a_result_stays_with_its_data_when_others_are_opened(panel, assembly, tmp_path):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    stories = {f"other {name}": story for name, story in assembly.stories.items()}
    other = replace(assembly, subject="T", stories=stories, test_stories=("other storyz",), source="t.h5")
    assert panel._runs.start("open", opening(other)) and panel.join(10)
    assert panel.assembly is other and panel.result.subject == "S"
    folder = panel.save()
    described = json.loads((folder / "dataset_description.json").read_text())
    assert described["DataDigest"] == assembly_digest(assembly) and described["SourceDatasets"] == []
    # a new panel on the same runs shows the result with its own data
    again = ControlPanel(
        other, memory=NO_CACHE, results_dir=tmp_path, settings=panel.settings, runs=panel._runs
    )
    for made in (panel, again):
        stories_tab = made._results.stories
        made._results.box.selected_index = made._results.tabs.index(stories_tab)
        assert stories_tab.drawn(60) and stories_tab._trouble.value == ""
        assert (
            "t.h5" not in made._results.code.view.code
            and "assembly = assembly" in made._results.code.view.code
        )


def opening(value):
    def job(tell):
        tell(Progress("features", 0, 1, 0.0))
        return value

    return job


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a" * 300, "nul\0"])
def test_what_cannot_be_a_path_is_said_beside_open(panel, path):
    data = panel._controls.data
    for source in ("file", "folder"):
        data.source.value, data.path.value = source, path
        data.open_button.click()
        assert texts(data).count("\u26a0") == 1 and not panel.running
        data.show_problem(None)


# ---------------------------------------------------------------------- panels and views


def test_the_same_name_finds_the_panel_and_its_run_again(assembly, tmp_path, monkeypatch):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    panel = control_panel(assembly, results_dir=tmp_path, settings=settings, name="one", memory=NO_CACHE)
    event = threading.Event()
    monkeypatch.setattr(pipeline, "run", slow_run(event))
    panel.fit()
    same = control_panel(assembly, results_dir=tmp_path, settings=settings, name="one", memory=NO_CACHE)
    assert same is panel
    # asked for otherwise: a new panel on the same run
    compact = control_panel(assembly, results_dir=tmp_path, name="one", compact=True, memory=NO_CACHE)
    assert compact is not panel and compact.running and compact._fit_button.disabled
    assert compact.settings == settings
    other = control_panel(assembly, results_dir=tmp_path, settings=settings, name="two", memory=NO_CACHE)
    assert not other.running and not other._fit_button.disabled
    compact.cancel()
    assert panel.join(10) and not panel.running and "Cancelled" in texts(compact)
    # the panel that was there before follows the runs no more, and says so
    assert "newer panel" in texts(panel) and panel._fit_button.disabled and panel._cancel_button.disabled
    event.set()


@pytest.mark.parametrize(
    ("data", "options", "kind", "says"),
    [
        (
            "demo",
            {},
            TypeError,
            r"control_panel: expected an Assembly, got 'demo'; write control_panel\(load_ass",
        ),
        (
            None,
            {"settings": {"layer_idx": 2}},
            TypeError,
            r"control_panel: .* write Settings\(\*\*{'layer_idx': 2}",
        ),
        (None, {"memory": 3}, ValueError, "memory: expected a joblib.Memory or a folder, got 3"),
        (
            None,
            {"results_dir": "file"},
            ValueError,
            "results_dir: expected a folder for records, but .*file is a f",
        ),
    ],
)
def test_what_no_panel_can_be_made_of(assembly, tmp_path, monkeypatch, data, options, kind, says):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    with pytest.raises(kind, match=says):
        control_panel(assembly if data is None else data, **options)


def test_a_panel_opens_where_nothing_can_be_saved(assembly, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    Path("results").write_text("no folder")
    panel = control_panel(assembly, settings=replace(RATE, trimming=TRIM), memory=NO_CACHE)
    panel.fit()
    assert panel.join(60)
    panel._save_button.click()
    assert panel._saving.join(30)
    assert "Nothing was saved" in texts(panel) and "results is a file" in panel._gate.error.value


def test_two_panels_run_at_once_and_do_not_disturb_each_other(assembly, tmp_path):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    one, two = (
        control_panel(assembly, results_dir=tmp_path, settings=settings, name=f"apart {i}", memory=NO_CACHE)
        for i in range(2)
    )
    two._controls.fit.criterion.control.value = False
    two._controls.time.delays.control.value = "one"
    assert two._fit_button.disabled and not one._fit_button.disabled
    two._controls.time.delays.control.value = "1, 2"
    one.fit()
    two.fit()
    assert one.join(60) and two.join(60)
    assert one.result.settings == settings and two.result.settings.fir_delays == (1, 2)
    assert one.result.settings.use_corr and not two.result.settings.use_corr
    assert len(one._runs.remembered) == len(two._runs.remembered) == 1
    alone = run(assembly, settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(one.result.scores, alone.scores)
    one._results.brain.view.selected = 1
    assert two._results.brain.view.selected == -1
    first = one.save()
    assert two.result is not one.result and two._runs.saved is None and two.save() != first


def test_a_fit_seen_by_two_panels_is_remembered_once(assembly, tmp_path):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    options = {"results_dir": tmp_path, "settings": settings, "name": "seen twice", "memory": NO_CACHE}
    control_panel(assembly, **options)
    panel = control_panel(assembly, compact=True, **options)
    panel.fit()
    assert panel.join(60) and len(panel._runs.remembered) == 1


def test_unnamed_panels_outside_cells_are_apart(assembly, tmp_path):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    one, two = (control_panel(assembly, results_dir=tmp_path, settings=settings) for _ in range(2))
    one.fit()
    assert one.join(60)
    assert one.result is not None and two.result is None


def test_a_viewer_without_a_kernel_gets_a_picture(panel):
    assert "image/png" not in panel._repr_mimebundle_()
    use_trimming(panel, TRIM)
    panel.fit()
    panel.join(60)
    bundle = panel._repr_mimebundle_()
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_layer_that_the_next_model_lacks_is_not_moved_in_silence(assembly, tmp_path):  # noqa: F811
    settings = Settings(layer_idx=6, trimming=TRIM)
    panel = ControlPanel(assembly, memory=NO_CACHE, results_dir=tmp_path, settings=settings)
    panel._controls.model.control.value = str(TINY_MODEL)
    assert panel.settings.layer_idx == 4
    assert "layer 6 does not exist here" in texts(panel)


def test_the_history_lists_what_was_saved(panel, tmp_path):
    use_trimming(panel, TRIM)
    panel.fit()
    panel.join(60)
    panel.save()
    runs = panel._results.runs
    runs.look(True)
    assert runs.drawn(30)
    assert len(list_runs(tmp_path)) == 1 and "wordrate" in texts(runs)
    assert [label.split(":")[0] for label, _ in runs.first.options[1:]] == ["this session", "saved"]


def test_an_executed_notebook_holds_a_picture_beside_the_widget(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = [
        "from encoding_nb.design import Trimming\nfrom encoding_nb.panel import control_panel\n"
        "from joblib import Memory\n"
        "from tests.pipeline.test_runs import RATE, TRIM, make_story\nfrom encoding_nb.assembly import Assembly\n"
        "from dataclasses import replace\n"
        "stories = {n: make_story(n, i) for i, n in enumerate(('a', 'b'))}\n"
        "data = Assembly('S', 2.0, stories, test_stories=('b',))\n"
        "panel = control_panel(data, settings=replace(RATE, trimming=TRIM), memory=Memory(None))\npanel",
        "panel.fit(); panel.join(60)",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    root = Path(__file__).resolve().parents[2]
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(root)}}).execute()
    shown = [o for o in notebook.cells[0].outputs if "data" in o]
    assert len(shown) == 1
    assert "application/vnd.jupyter.widget-view+json" in shown[0]["data"]
    assert base64.b64decode(shown[0]["data"]["image/png"]).startswith(b"\x89PNG")


def test_two_threads_may_be_the_first_to_need_a_tokenizer():
    """In a process of its own: transformers must not have been imported yet."""
    code = (
        "import threading, sys; from pathlib import Path; from encoding_nb.features import load_tokenizer\n"
        f"folder = Path({str(TINY_MODEL)!r})\n"
        "found = []; load = lambda: found.append(type(load_tokenizer(folder)).__name__)\n"
        "threads = [threading.Thread(target=load) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; print(len(found))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "4", done.stderr[-2000:]
