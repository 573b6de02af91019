"""The tabs: each shows what the run holds, draws when it is looked at, and says what it cannot."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from encoding_nb import pipeline
from encoding_nb.panel import ControlPanel
from encoding_nb.panel.brain_tab import BrainTab
from encoding_nb.panel.session import BestLayer, LayerError, Session, best_layers, fit_layers
from encoding_nb.panel.tabs import code_of, metrics_html, region_html, sentence, variable_of
from encoding_nb.pipeline import Result, run
from encoding_nb.records import save_run
from encoding_nb.settings import Settings

from ..pipeline.test_runs import RATE, TRIM, assembly, result  # noqa: F401 - fixtures
from .test_panel import NO_CACHE, TINY_MODEL, texts

pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")
MODEL = replace(
    RATE, modality="language_model", model_name=str(TINY_MODEL), layer_idx=1, lookback=8, trimming=TRIM
)


@pytest.fixture(scope="module")
def swept(assembly, tmp_path_factory):  # noqa: F811
    """Every layer of the tiny model, and what came on the way."""
    from joblib import Memory

    memory, seen = Memory(tmp_path_factory.mktemp("activations"), verbose=0), []
    found = fit_layers(assembly, MODEL, memory=memory, progress=seen.append)
    return (seen, found), memory


@pytest.fixture
def panel(assembly, tmp_path):  # noqa: F811
    made = ControlPanel(
        assembly, memory=NO_CACHE, results_dir=tmp_path, settings=replace(RATE, trimming=TRIM)
    )
    made.fit()
    assert made.join(60)
    return made


def in_front(panel, tab):
    panel.results.bring_to_front(tab)
    assert tab.drawn(60)
    assert tab.trouble.value == ""


def test_tabs_have_the_names_of_what_they_show(panel):
    assert list(panel.results.box.titles) == ["Summary", "Brain", "Stories", "Layers", "Runs", "Code"]
    assert panel.results.box.selected_index == 1


def test_summary(panel, result):  # noqa: F811
    tab = panel.results.summary
    assert tab.alphas.png == b"", "not before it is looked at"
    in_front(panel, tab)
    assert "median score" in texts(tab) and tab.alphas.png.startswith(b"\x89PNG")
    assert "1 voxels significant at FDR 0.05" in sentence(result)
    assert "Simulated BOLD" in sentence(replace(result, simulated=True))
    assert "<td>n voxels</td><td>3</td>" in metrics_html(result)


def test_regions(result):  # noqa: F811
    table = region_html(
        replace(result, rois={"A<B": np.array([True, True, False]), "C": np.array([False, True, True])})
    )
    assert "A&lt;B" in table and re.findall(r"<td>(\d)</td><td>2</td>", table) == ["1", "0"]
    assert "no regions" in region_html(result)


def test_brain_shows_scores_ceiling_and_alphas(panel):
    tab = panel.results.brain
    assert tab.view.result is panel.result
    assert list(tab.values.options) == ["score", "noise ceiling", "share of the ceiling", "chosen alpha"]
    before = tab.view._picture
    tab.values.value = "noise ceiling"
    assert tab.drawn(30) and tab.view._picture != before
    panel.session.best = BestLayer(
        np.array([1.0, np.nan, 2.0]), (0, 1, 2), MODEL, panel.assembly, "permutation test"
    )
    tab.swept()
    tab.values.value = "best layer"
    assert tab.drawn(30) and "layer" in tab.view._scale["units"]
    assert "tiny-gpt2" in tab.view._scale["units"] and len(tab.view._look["categories"]) == 3
    tab.view.threshold, tab.view.vmax = 1.5, 0.1
    panel.session.best = None
    tab.swept()
    assert tab.values.value == "score" and tab.drawn(30)
    assert tab.view.threshold is None and tab.view.vmax is None, "they were of layers, not of scores"
    tab.view.threshold = 0.2
    tab.voxels.value = "hide"
    assert tab.drawn(30) and tab.view.threshold == 0.2, "the same numbers, shown in another way"
    tab.values.value = "chosen alpha"
    assert tab.drawn(30) and tab.view.threshold is None


def test_the_scores_are_on_the_map_before_their_permutation_test(panel, monkeypatch):
    """The second fit of the same data shows them; one that is cancelled then gives the map of the first back."""
    tab, seen, steps = panel.results.brain, [], []
    truly = pipeline.run

    def watched(*args, progress, **options):
        def tell(step):
            progress(step)
            if step.scores is not None:  # it has been shown
                steps.append(step)
                seen.append((step.scores, tab.view._values, tab.view._scale["note"], tab.view._facts))
                if len(seen) == 2:
                    panel.cancel()

        return truly(*args, progress=tell, **options)

    monkeypatch.setattr(pipeline, "run", watched)
    first = panel.result
    panel.fit()
    assert panel.join(60) and tab.drawn(30)
    scores, on_map, note, facts = seen[0]
    assert on_map is scores and "the test of this run is running" in note
    assert [row["name"] for row in facts["rows"]] == ["r"] and facts["significant"] == b"", "of no other run"
    assert panel.result is not first and tab.view.result is panel.result
    np.testing.assert_array_equal(panel.result.scores, scores)
    assert tab.view._values is panel.result.scores and "is running" not in tab.view._scale["note"]
    assert [row["name"] for row in tab.view._facts["rows"]] == ["r", "alpha", "noise ceiling"]
    assert len(tab.view._facts["significant"]) == 3

    second = panel.result
    panel.fit()
    assert panel.join(60) and panel.session.outcome == "cancelled"
    assert tab.drawn(30) and len(seen) == 2 and seen[1][1] is seen[1][0]
    assert panel.result is second and tab.view._values is second.scores
    assert "is running" not in tab.view._scale["note"] and len(tab.view._facts["significant"]) == 3

    for change in (
        lambda: setattr(tab.values, "value", "noise ceiling"),
        lambda: (setattr(tab.values, "value", "score"), tab.look(False)),
    ):
        change()
        assert tab.drawn(30)
        before = tab.view._picture
        tab.preview(replace(steps[0], scores=-second.scores))
        assert tab.view._picture == before, "other numbers, another tab in front"


def test_regions_on_and_off_and_significant_only(demo):
    rng = np.random.default_rng(0)
    scores = rng.uniform(0, 1, demo.n_voxels).astype(np.float32)
    found = Result(
        settings=Settings(), scores=scores, story_scores={"s": scores}, best_alphas=np.ones(demo.n_voxels),
        pvalues=np.ones(demo.n_voxels), significant=scores > 0.5, noise_ceiling=None, predictions={}, measured={},
        row_times={}, metrics={}, provenance={"seconds": {}}, subject=demo.subject, surface=demo.surface,
        rois=demo.rois, simulated=True,
    )  # fmt: skip
    tab = BrainTab(Session(demo), height=384)
    tab.look(True)
    tab.show(found)
    pictures = [tab.view._picture]
    tab.regions.value = False
    assert tab.drawn(60)
    pictures.append(tab.view._picture)
    tab.voxels.value = "hide"
    assert tab.drawn(60)
    pictures.append(tab.view._picture)
    assert len(set(pictures)) == 3 and all(p.startswith(b"\x89PNG") for p in pictures)
    tab.show(found)
    assert tab.view._picture == pictures[-1], "another run is shown in the way that was chosen"


def test_stories_follow_the_selected_voxel(panel):
    tab = panel.results.stories
    in_front(panel, tab)
    assert tab.voxel.value == "0", "the best predicted voxel at first"
    first = tab.course.png
    assert first.startswith(b"\x89PNG") and tab.scores.png.startswith(b"\x89PNG")
    assert "Words:" in texts(tab) and "w3" in texts(tab)
    panel.results.brain.view.selected = 1
    assert tab.drawn(30) and tab.voxel.value == "1" and tab.course.png != first
    words = texts(tab)
    tab.start.value = tab.start.value + 20
    assert tab.drawn(30) and texts(tab) != words
    for typed, said in (("1e0", "whole number"), ("3", "from 0 to 2, got 3"), ("", "got nothing")):
        tab.voxel.value = typed
        assert tab.drawn(30) and said in texts(tab) and tab.course.png == b"", (
            "said, and no other voxel shown"
        )
    tab.voxel.value = "2"
    assert tab.drawn(30) and "\u26a0" not in texts(tab) and tab.course.png.startswith(b"\x89PNG")


def test_a_sweep_gives_what_single_runs_give(swept, assembly):  # noqa: F811
    (seen, found), memory = swept
    assert list(found) == [0, 1, 2, 3, 4]
    assert [step.settings.layer_idx for step in seen if isinstance(step, Result)] == [0, 1, 2, 3, 4]
    overall = [step.overall for step in seen if not isinstance(step, Result)]
    assert np.diff(overall).min() > -1e-9 and overall[-1] > 0.9
    alone = run(assembly, replace(MODEL, layer_idx=3), memory=memory, progress=False)
    np.testing.assert_allclose(found[3].scores, alone.scores, atol=1e-6)


def test_a_layer_that_fails_ends_the_sweep_with_its_message(swept, assembly):  # noqa: F811
    _, memory = swept
    story = assembly.stories["storya"]
    bold = np.array(story.bold)
    bold[10, 1] = np.nan
    broken = replace(assembly, stories={**assembly.stories, "storya": replace(story, bold=bold)})
    seen = []
    with pytest.raises(LayerError, match=r"^Layer 0: ValueError: storya: 1 NaN or infinite values"):
        fit_layers(broken, MODEL, memory=memory, progress=seen.append)
    assert seen and not any(isinstance(step, Result) for step in seen)


def test_best_layers(swept):
    (_, found), _ = swept
    best = best_layers(found)
    scores = np.array([r.scores for r in found.values()])
    significant = np.any([r.significant for r in found.values()], axis=0)
    for voxel in range(3):
        if significant[voxel] and np.isfinite(scores[:, voxel]).any():
            assert best[voxel] == np.nanargmax(scores[:, voxel])
        else:
            assert np.isnan(best[voxel])


def test_the_panel_sweeps_and_remembers(panel, swept, tmp_path):
    _, memory = swept
    panel.session.memory = memory
    panel.settings = MODEL
    tab = panel.results.layers
    panel.results.bring_to_front(tab)
    tab.button.click()
    assert panel.join(120)
    assert tab.drawn(30) and "5 layers done" in texts(tab) and "complete" in texts(tab)
    assert "best layer" in panel.results.brain.values.options
    assert sum("layer" in label for label in panel.session.remembered) == 5
    assert tab.profile.png.startswith(b"\x89PNG") or "voxel" in texts(tab)
    # the layers can be compared without a look into the folder
    runs_tab = panel.results.runs
    in_front(panel, runs_tab)
    assert sum("layer" in label for label, _ in runs_tab.first.options) == 5

    # a panel that is made anew shows the sweep, too
    again = ControlPanel(
        panel.assembly, memory=memory, results_dir=tmp_path, settings=MODEL, session=panel.session
    )
    assert "best layer" in again.results.brain.values.options
    in_front(again, again.results.layers)
    assert "The sweep is complete" in texts(again.results.layers)

    # the best layer goes when anything but a layer of this sweep is fitted
    panel.settings = replace(panel.settings, layer_idx=2)
    panel.fit()
    assert panel.join(60) and "best layer" in panel.results.brain.values.options
    panel.settings = replace(panel.settings, lookback=7)
    panel.fit()
    assert panel.join(60) and "best layer" not in panel.results.brain.values.options


def test_a_sweep_that_is_cancelled_ends_within_two_seconds_and_keeps_its_layers(panel, swept):
    _, memory = swept
    panel.session.memory = memory
    panel.settings = MODEL
    asked = []

    def watcher(news, value):
        if news == "progress" and isinstance(value, Result) and value.settings.layer_idx == 1:
            asked.append(time.monotonic())
            panel.cancel()

    panel.session.watch(watcher)
    panel.sweep_layers()
    thread = panel.session._thread
    assert panel.join(60)
    thread.join(60)
    assert time.monotonic() - asked[0] < 2
    assert panel.session.outcome == "cancelled" and not panel.session.swept_whole
    assert list(panel.session.layers) == [0, 1]
    tab = panel.results.layers
    tab.look(True)
    assert tab.drawn(30) and "2 layers done" in texts(tab) and "ended early" in texts(tab)
    panel.fit()
    assert panel.join(60) and panel.session.outcome == "done"


def test_the_runs_tab_follows_a_sweep_that_ends_while_it_is_in_front(panel, swept):
    _, memory = swept
    panel.session.memory = memory
    panel.settings = MODEL
    tab = panel.results.runs
    in_front(panel, tab)
    panel.sweep_layers()
    assert panel.join(120) and tab.drawn(30)
    assert sum("layer" in label for label, _ in tab.first.options) == 5


def test_what_a_sweep_takes_is_said_beforehand(panel, swept):
    _, memory = swept
    panel.session.memory = memory
    assert panel.fit_status.estimating.join(30)
    assert "needs the language model" in texts(panel.results.layers)
    panel.settings = MODEL
    assert panel.fit_status.estimating.join(30)
    said = texts(panel.results.layers)
    assert "A sweep: 5 layers, 1 or 2 s" in said and "features are cached" in said


def test_a_saved_run_is_called_what_it_is(panel, tmp_path):
    panel.save()
    model = replace(MODEL, layer_idx=3)
    for settings in (model, replace(model, joined_with=("wordrate", "embeddings"))):
        save_run(replace(panel.result, settings=settings), tmp_path, figures=False)
    save_run(replace(panel.result, settings=replace(model, modality="wordrate", joined_with=("language_model",))),
             tmp_path, figures=False)  # fmt: skip
    tab = panel.results.runs
    tab.changed()
    in_front(panel, tab)
    saved = [label for label, _ in tab.first.options if label.startswith("saved: ")]
    alone = "tiny-gpt2, layer 3, lookback 8"
    expected = [alone, f"{alone} + word rate + embeddings", "word rate", f"word rate + {alone}"]
    assert sorted(label.split(" ", 3)[3] for label in saved) == expected
    for label in expected:
        assert f"<td>S, {label}</td>" in tab._table.value
    remembered = panel.session.remembered
    panel.session._remember(replace(panel.result, settings=replace(model, joined_with=("wordrate",))))
    assert list(panel.session.remembered)[-1].endswith(f"{alone} + word rate") and remembered


def test_a_sweep_without_a_language_model_is_refused(panel):
    panel.sweep_layers()
    assert not panel.running and "needs the language model" in texts(panel)


def test_two_runs_are_compared(panel):
    panel.settings = replace(panel.settings, use_corr=False)
    panel.fit()
    assert panel.join(60)
    tab = panel.results.runs
    in_front(panel, tab)
    tab.compare.click()
    assert "Choose two runs" in texts(tab)
    tab.first.index, tab.second.index = 1, 2
    tab.compare.click()
    assert tab.drawn(60)
    assert "use corr" in texts(tab) and "correlate with r" in texts(tab)
    assert tab.scatter.png.startswith(b"\x89PNG")
    tab.first.index = 2
    tab.take.click()
    assert panel.settings.use_corr is True


def test_the_code_makes_the_same_run(panel, assembly, monkeypatch):  # noqa: F811
    named = replace(assembly, source="demo", source_options={"stories": ("storya",)})
    code = code_of(panel.result, named)
    assert "load_assembly('demo', stories=('storya',))" in code
    code = code_of(panel.result, replace(assembly, source=None))
    assert "load_assembly" not in code and "\nassembly = assembly\n" in code
    names = {"assembly": assembly}
    exec(code.replace("run(assembly, settings)", "run(assembly, settings, progress=False)"), names)
    np.testing.assert_allclose(names["result"].scores, panel.result.scores, atol=1e-6)
    assert panel.results.code.view.code

    shell = type("Shell", (), {"user_ns": {"_": assembly, "my_data": assembly}})()
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    assert variable_of(assembly) == "my_data" and variable_of(object()) is None
    assert "assembly = my_data" in code_of(panel.result, assembly)


def test_a_tab_that_cannot_be_drawn_says_so(panel, monkeypatch, caplog):
    monkeypatch.setattr("encoding_nb.plots.plot_alphas", lambda run: 1 / 0)
    tab = panel.results.summary
    panel.results.box.selected_index = 0
    assert tab.drawn(30)
    assert "This tab could not be drawn: division by zero" in tab.trouble.value
