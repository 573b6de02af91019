"""The panel without a browser: its state, its refusals, its thread, and what it leaves."""

import base64
import html
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import ipywidgets as widgets
import numpy as np
import pytest
from joblib import Memory

from encoding_nb import _machine, features, pipeline, records
from encoding_nb._progress import Progress, warn
from encoding_nb.assembly import assembly_digest
from encoding_nb.design import TRIMMINGS
from encoding_nb.features import is_cached, model_info, spaces
from encoding_nb.panel import ControlPanel, control_panel
from encoding_nb.pipeline import run
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
    for name, box in panel.controls.trimming.numbers.items():
        value = getattr(trimming, name)
        box.value = "" if value is None else str(value)


def box(panel, setting):
    """The widget of a setting."""
    return panel.controls.fields[setting].control


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


def test_nothing_is_saved_before_a_fit(panel, tmp_path):
    assert panel.save_button.disabled and not panel.page.enabled
    with pytest.raises(RuntimeError, match="press Fit first"):
        panel.save()
    _, content, said = panel.session.pack(tmp_path)
    assert content is None and "no saved run" in said


def test_fit_gives_the_result_of_run_and_save_writes_it(panel, assembly, tmp_path):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    expected = run(assembly, panel.settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(panel.result.scores, expected.scores)
    assert "Done in" in texts(panel) and "voxels significant" in texts(panel)
    assert not panel.fit_button.disabled and panel.cancel_button.disabled
    assert panel.results.brain.view.result is panel.result

    folder = panel.save()
    assert panel.save() == folder and [p.name for p in tmp_path.iterdir()] == [folder.name]
    assert folder.name in texts(panel.progress) and "scores.csv" in texts(panel.progress)
    assert {p.name for p in folder.iterdir()} >= {"stories.png", "stories.svg", "scores.csv", "settings.json"}
    assert Settings.from_json((folder / "settings.json").read_text()) == panel.settings
    assert json.loads((folder / "metrics.json").read_text())["n_voxels"] == 3
    np.testing.assert_array_equal(load_run(folder).scores, panel.result.scores)

    name, content, _ = panel.session.pack(tmp_path)
    (tmp_path / name).write_bytes(content)
    packed = ZipFile(tmp_path / name)
    assert packed.testzip() is None
    assert f"{tmp_path.name}/{folder.name}/scores.csv" in packed.namelist()


def test_an_error_in_saving_is_said_and_the_panel_goes_on(panel, tmp_path):
    use_trimming(panel, TRIM)
    panel.fit()
    panel.join(60)
    (tmp_path / "taken").write_text("a file")
    panel.results_dir = tmp_path / "taken"
    panel.save_button.click()
    assert panel.saving.join(30)
    assert "Nothing was saved" in texts(panel) and "taken" in texts(panel.fit_status.error)
    assert not panel.fit_button.disabled
    panel.results_dir = tmp_path / "free"
    panel.save_button.click()
    assert panel.saving.join(30)
    assert "Saved in" in texts(panel) and texts(panel.fit_status.error) == ""


# ---------------------------------------------------------------------- refusals


def test_what_cannot_be_stands_beside_the_control_and_stops_fit(panel):
    use_trimming(panel, replace(TRIM, train_features_start=70))
    field = panel.controls.trimming
    assert "storya" in texts(field) and panel.fit_button.disabled
    assert "Fit is disabled: fix trimming first." in texts(panel.fit_status)
    use_trimming(panel, TRIM)
    assert texts(field).count("\u26a0") == 0 and not panel.fit_button.disabled
    assert "Fit is disabled" not in texts(panel.fit_status)


def test_a_box_without_a_number_is_said(panel):
    panel.controls.trimming.numbers["test_targets_end"].value = "five"
    assert (
        "Expected the end of test BOLD as a whole number in digits, such as 16, got &#x27;five&#x27;"
        in texts(panel)
    )
    assert panel.fit_button.disabled


def test_a_second_fit_is_refused_and_an_error_leaves_the_panel_usable(panel, release):
    panel.fit()
    first = panel.session.notes  # each run has a list of its own
    panel.fit()
    assert panel.session.notes is first and "running already" in panel.status
    panel.sweep_layers()
    panel.open_data("demo", {})
    assert panel.session.notes is first and panel.session.kind == "fit"
    release.set()
    with pytest.raises(RuntimeError, match="the disk is <full>"):
        panel.join(10)
    assert "the disk is &lt;full&gt;" in texts(panel) and "traceback" in texts(panel)
    assert not panel.fit_button.disabled and panel.result is None


def test_fit_stays_off_after_a_run_when_a_setting_went_wrong_meanwhile(panel, release):
    panel.fit()
    use_trimming(panel, replace(TRIM, train_features_start=70))
    panel.cancel()
    assert panel.join(10)
    assert panel.fit_button.disabled
    use_trimming(panel, TRIM)
    assert not panel.fit_button.disabled


def test_a_fit_after_an_error_gives_a_result(panel, release, monkeypatch):
    release.set()
    panel.fit()
    with pytest.raises(RuntimeError):
        panel.join(10)
    monkeypatch.undo()
    panel.fit()
    assert panel.join(60)
    assert panel.result is not None and texts(panel.fit_status.error) == ""


def test_cancel(panel, release):
    panel.fit()
    assert not panel.cancel_button.disabled and panel.fit_button.disabled
    panel.cancel()
    assert panel.join(10)
    assert "Cancelled" in texts(panel) and not panel.fit_button.disabled


def test_a_model_that_cannot_be_read_is_said_beside_it(panel, tmp_path):
    panel.controls.show(replace(Settings(), trimming=TRIM))
    model = panel.controls.fields["model_name"]
    for number, text in enumerate(("[]", '{"n_layer": 2, "n_embd": 8, "text_config": null}', "{")):
        folder = tmp_path / f"model{number}"
        folder.mkdir()
        (folder / "config.json").write_text(text)
        model.control.value = str(folder)
        if text.startswith('{"n'):  # a field that is null may also be taken for one that is not there
            continue
        assert texts(model).count("\u26a0") == 1 and panel.fit_button.disabled, text
        assert "Fit is disabled: fix model first." in texts(panel.fit_status)
        model.control.value = str(TINY_MODEL)
        assert not panel.fit_button.disabled
    model.control.value = "a" * 300
    assert panel.lookup.seeking.join(30)
    assert texts(model).count("\u26a0") == 1 and "Looking up this model" not in texts(model)
    model.control.value = str(TINY_MODEL)
    assert not panel.fit_button.disabled


def test_an_embedding_path_that_cannot_be_is_said_beside_it(panel):
    use_trimming(panel, TRIM)
    panel.controls.spaces.boxes["embeddings"].value = True
    box(panel, "embedding").value = "a" * 300
    assert "Expected a path for vectors" in texts(panel.controls.fields["embedding"])
    assert panel.fit_button.disabled and "vectors" in texts(panel.fit_status)


def test_a_check_that_fails_itself_is_shown_and_stops_fit(panel, monkeypatch):
    use_trimming(panel, TRIM)
    truly = pipeline.check

    def fails(assembly, settings):  # noqa: F811
        if settings.cutoff_mult > 5:
            raise TypeError("no such cutoff")
        return truly(assembly, settings)

    monkeypatch.setattr(pipeline, "check", fails)
    box(panel, "cutoff_mult").value = "6"
    assert "cannot be checked (TypeError: no such cutoff)" in texts(panel.fit_status.error)
    assert panel.fit_button.disabled
    box(panel, "cutoff_mult").value = "1"
    assert not panel.fit_button.disabled and texts(panel.fit_status.error) == ""


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

    monkeypatch.setattr(type(panel.session), "running", property(running))
    slow = threading.Thread(target=panel.fit_status.allow)
    slow.start()
    assert looked.wait(10)
    state["running"] = False
    panel.session._tell("idle", None)
    ended.set()
    slow.join(10)
    assert not panel.fit_button.disabled and panel.cancel_button.disabled


def test_a_look_at_older_settings_does_not_stay(panel, monkeypatch):
    """The thread that looks models up checks the controls too; what it read first must not be shown last."""
    use_trimming(panel, TRIM)
    truly, seen, go = pipeline.check, threading.Event(), threading.Event()

    def slow(*arguments):
        found = truly(*arguments)
        if threading.current_thread() is not threading.main_thread():
            seen.set()
            go.wait(0.5)
        return found

    monkeypatch.setattr(pipeline, "check", slow)
    box(panel, "fir_delays").value = "one"
    other = threading.Thread(target=panel.fit_status.check)
    other.start()
    assert seen.wait(10)
    box(panel, "fir_delays").value = "1-4"
    go.set()
    other.join(10)
    assert not panel.fit_button.disabled and "\u26a0" not in texts(panel.controls.fields["fir_delays"])


def test_news_that_cannot_be_shown_are_said(panel, release, monkeypatch):
    monkeypatch.setattr(panel.progress, "show", lambda step: 1 / 0)
    panel.fit()
    while "could not show" not in texts(panel.fit_status.error):
        time.sleep(0.01)
    assert "ZeroDivisionError" in texts(panel.fit_status.error) and panel.running
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
    assert panel.join(10) and "Finished stories stay cached" in texts(panel)
    go.set()
    panel.session.released.join(10)
    specs = settings.feature_specs.values()
    cached = [all(is_cached(s, spec, memory=memory) for spec in specs) for s in assembly.stories.values()]
    assert cached == [True, False, False, False]


def test_a_run_that_does_not_fit_into_memory_keeps_fit_off(panel, monkeypatch):
    use_trimming(panel, TRIM)
    assert panel.fit_status.estimating.join(30) and not panel.fit_button.disabled
    free = _machine.free_memory()
    monkeypatch.setattr(_machine, "free_memory", lambda: 1000)
    box(panel, "seed").value = "5"
    assert panel.fit_status.estimating.join(30)
    assert panel.fit_button.disabled and "GB are free" in texts(panel.controls.stories)
    assert "Fit is disabled: fix stories first." in texts(panel.fit_status)
    monkeypatch.setattr(
        _machine, "free_memory", lambda: free
    )  # another program has ended, and a setting changes
    box(panel, "seed").value = "6"
    assert panel.fit_status.estimating.join(30)
    assert not panel.fit_button.disabled and "GB are free" not in texts(panel.controls.stories)


def test_a_model_that_is_too_large_names_one_that_would_do(panel, monkeypatch):
    truly = model_info
    large = replace(truly(str(TINY_MODEL)), n_parameters=10**14)
    monkeypatch.setattr(
        features, "model_info", lambda name, **o: large if name == str(TINY_MODEL) else truly(name, **o)
    )
    panel.controls.show(Settings(model_name=str(TINY_MODEL), layer_idx=1, lookback=8, trimming=TRIM))
    assert panel.fit_status.estimating.join(30)
    said = texts(panel.controls.fields["model_name"])
    assert "smaller model" in said and "'demo' would fit" in html.unescape(said) and panel.fit_button.disabled


def test_warnings_of_a_run_are_shown_as_notes(panel):
    use_trimming(panel, TRIM)
    for _ in range(2):  # Python shows a warning of one place once, the panel each time
        panel.fit()
        assert panel.join(60)
        assert "1 of 3 columns have no variance" in panel.notes.value
    assert f"<summary>{len(set(panel.session.notes))} notes about this run" in panel.notes.value


def test_warnings_of_saving_and_of_opening_are_shown_as_notes(panel, assembly, monkeypatch):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    truly, n_notes = records.save_run, len(panel.session.notes)

    def saved(*arguments, **options):
        warn("alphas.png was not <drawn>")
        return truly(*arguments, **options)

    def opened(source, **_):
        warn("a story lacks its words")
        return assembly

    monkeypatch.setattr("encoding_nb.records.save_run", saved)
    monkeypatch.setattr("encoding_nb.datasets.load_assembly", opened)
    with pytest.warns(UserWarning):
        panel.save()
        assert "alphas.png was not &lt;drawn&gt;" in panel.notes.value
        assert f"{n_notes + 1} notes" in panel.notes.value
        panel.open_data("demo", {})
        assert panel.join(10)
    assert "a story lacks its words" in panel.notes.value and "drawn" not in panel.notes.value


def test_errors_of_the_panel_print_nothing(tmp_path):
    """In a process of its own, where nobody has set up logging."""
    code = (
        "from encoding_nb.panel._threads import Latest\n"
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
    assert panel.fit_status.estimating.join(30)
    assert "of memory" in texts(panel.fit_status) and "cached" in texts(panel.fit_status)


# ---------------------------------------------------------------------- data


def test_opening_data_changes_the_stories_and_forgets_none(panel, assembly, tmp_path, monkeypatch):  # noqa: F811
    other = replace(assembly, stories={k: s for k, s in assembly.stories.items() if k != "storya"})
    monkeypatch.setattr("encoding_nb.datasets.load_assembly", lambda source, **options: other)
    (tmp_path / "data.h5").write_text("")
    data = panel.controls.data
    data.source.value, data.path.value = "file", str(tmp_path / "data.h5")
    data.open_button.click()
    assert panel.join(10)
    assert panel.assembly is other and "3 stories" in texts(panel)
    assert panel.controls.stories.lists["stories"].options == ("storyb", "storyc", "storyz")
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
    data = panel.controls.data
    data.source.value, data.path.value, data.subject.value = source, path, subject
    data.open_button.click()
    assert said in texts(data) and not panel.running
    assert ("Relative paths start at" in texts(data)) == (path != "")


def test_an_absolute_path_starts_nowhere(panel, tmp_path):
    data = panel.controls.data
    data.source.value, data.path.value = "file", str(tmp_path / "nowhere.h5")
    data.open_button.click()
    assert "check the path." in texts(data) and "Relative" not in texts(data)


def test_data_that_cannot_be_opened_leave_those_from_before(panel, assembly, tmp_path):  # noqa: F811
    (tmp_path / "data.txt").write_text("no data")
    panel.open_data(str(tmp_path / "data.txt"), {})
    with pytest.raises(ValueError):
        panel.join(10)
    assert panel.assembly is assembly and "\u26a0" in texts(panel.controls.data)
    assert "the previous data stay open" in texts(panel)


def test_a_result_stays_with_its_data_when_others_are_opened(panel, assembly, tmp_path):  # noqa: F811
    use_trimming(panel, TRIM)
    panel.fit()
    assert panel.join(60)
    stories = {f"other {name}": story for name, story in assembly.stories.items()}
    other = replace(assembly, subject="T", stories=stories, test_stories=("other storyz",), source="t.h5")
    assert panel.session.start("open", opening(other)) and panel.join(10)
    assert panel.assembly is other and panel.result.subject == "S"
    folder = panel.save()
    described = json.loads((folder / "dataset_description.json").read_text())
    assert described["DataDigest"] == assembly_digest(assembly) and described["SourceDatasets"] == []
    # a new panel on the same runs shows the result with its own data
    again = ControlPanel(
        other, memory=NO_CACHE, results_dir=tmp_path, settings=panel.settings, session=panel.session
    )
    for made in (panel, again):
        stories_tab = made.results.stories
        made.results.box.selected_index = made.results.tabs.index(stories_tab)
        assert stories_tab.drawn(60) and stories_tab.trouble.value == ""
        assert (
            "t.h5" not in made.results.code.view.code and "assembly = assembly" in made.results.code.view.code
        )


def opening(value):
    def job(tell):
        tell(Progress("features", 0, 1, 0.0))
        return value

    return job


@pytest.mark.parametrize("path", ["~nosuchuser/x", "a" * 300, "nul\0"])
def test_what_cannot_be_a_path_is_said_beside_open(panel, path):
    data = panel.controls.data
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
    assert compact is not panel and compact.running and compact.fit_button.disabled
    assert compact.settings == settings
    other = control_panel(assembly, results_dir=tmp_path, settings=settings, name="two", memory=NO_CACHE)
    assert not other.running and not other.fit_button.disabled
    compact.cancel()
    assert panel.join(10) and not panel.running and "Cancelled" in texts(compact)
    # the panel that was there before follows the runs no more, and says so
    assert "newer panel" in texts(panel) and panel.fit_button.disabled and panel.cancel_button.disabled
    event.set()


@pytest.mark.parametrize(
    ("data", "options", "kind", "says"),
    [
        (
            "demo",
            {},
            TypeError,
            r"'demo'.* write control_panel\(load_ass",
        ),
        (
            None,
            {"settings": {"layer_idx": 2}},
            TypeError,
            r"write Settings\(\*\*{'layer_idx': 2}",
        ),
        (None, {"memory": 3}, ValueError, "memory: expected a joblib.Memory or a folder, got 3"),
        (
            None,
            {"results_dir": "file"},
            ValueError,
            "results_dir: expected a folder for records, but .*file",
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
    panel.save_button.click()
    assert panel.saving.join(30)
    assert "Nothing was saved" in texts(panel) and "folder for records, but results" in texts(
        panel.fit_status.error
    )


def test_two_panels_run_at_once_and_do_not_disturb_each_other(assembly, tmp_path):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    one, two = (
        control_panel(assembly, results_dir=tmp_path, settings=settings, name=f"apart {i}", memory=NO_CACHE)
        for i in range(2)
    )
    box(two, "use_corr").value = False
    box(two, "fir_delays").value = "one"
    assert two.fit_button.disabled and not one.fit_button.disabled
    box(two, "fir_delays").value = "1, 2"
    one.fit()
    two.fit()
    assert one.join(60) and two.join(60)
    assert one.result.settings == settings and two.result.settings.fir_delays == (1, 2)
    assert one.result.settings.use_corr and not two.result.settings.use_corr
    assert len(one.session.remembered) == len(two.session.remembered) == 1
    alone = run(assembly, settings, memory=NO_CACHE, progress=False)
    np.testing.assert_array_equal(one.result.scores, alone.scores)
    one.results.brain.view.selected = 1
    assert two.results.brain.view.selected == -1
    first = one.save()
    assert two.result is not one.result and two.session.saved[0] is None and two.save() != first


def test_a_fit_seen_by_two_panels_is_remembered_once(assembly, tmp_path):  # noqa: F811
    settings = replace(RATE, trimming=TRIM)
    options = {"results_dir": tmp_path, "settings": settings, "name": "seen twice", "memory": NO_CACHE}
    control_panel(assembly, **options)
    panel = control_panel(assembly, compact=True, **options)
    panel.fit()
    assert panel.join(60) and len(panel.session.remembered) == 1


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
    box(panel, "model_name").value = str(TINY_MODEL)
    assert panel.settings.layer_idx == 4
    assert "no layer 6" in texts(panel)


def test_the_history_lists_what_was_saved(panel, tmp_path):
    use_trimming(panel, TRIM)
    panel.fit()
    panel.join(60)
    panel.save()
    runs = panel.results.runs
    runs.look(True)
    assert runs.drawn(30)
    assert len(list_runs(tmp_path)) == 1 and "word rate" in texts(runs)
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
