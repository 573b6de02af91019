"""Which run the panel shows, and whether the controls and the data are still those of that run."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from encoding_nb import pipeline
from encoding_nb._progress import Progress
from encoding_nb.design import Trimming
from encoding_nb.panel import ControlPanel
from encoding_nb.settings import Settings

from ..pipeline.test_runs import RATE, TRIM, assembly  # noqa: F401 - a fixture
from .test_panel import NO_CACHE, TINY_MODEL, box, opening

pytestmark = pytest.mark.filterwarnings("ignore:.*no variance")
MODEL = replace(
    RATE, modality="language_model", model_name=str(TINY_MODEL), layer_idx=1, lookback=8, trimming=TRIM
)


@pytest.fixture
def panel(assembly, tmp_path):  # noqa: F811
    made = ControlPanel(assembly, memory=NO_CACHE, results_dir=tmp_path, settings=MODEL)
    assert made.results.shown.value == ""
    made.fit()
    assert made.join(60)
    return made


def assert_current(panel):
    assert panel.results.shown.value == "Shown: tiny-gpt2, layer 1, lookback 8."
    assert panel.status.startswith("Done in ") and panel.progress.bar.bar_style == "success"
    assert panel.progress.stages.value.count("\u2713") == 4


def assert_outdated(panel, what):
    assert f"\u26a0 Shown: tiny-gpt2, layer 1, lookback 8. The settings have changed ({what}): press Fit" in (
        panel.results.shown.value
    )
    assert "enb-outdated" in panel.results.shown.value
    assert f"have changed ({what})" in panel.status and panel.progress.bar.bar_style == "warning"
    assert "\u2713" not in panel.progress.stages.value


def test_a_changed_layer_outdates_the_run_until_it_is_changed_back_or_fitted(panel):
    assert_current(panel)
    box(panel, "layer_idx").value = 0
    assert_outdated(panel, "layer")
    box(panel, "lookback").value = "16"
    assert_outdated(panel, "layer, lookback")
    box(panel, "layer_idx").value, box(panel, "lookback").value = 1, "8"
    assert_current(panel)
    box(panel, "layer_idx").value = 0
    panel.fit()
    assert panel.join(60)
    assert panel.results.shown.value == "Shown: tiny-gpt2, layer 0, lookback 8."
    assert panel.status.startswith("Done in ")


@pytest.mark.parametrize(
    ("change", "label"),
    [
        ({"joined_with": ("wordrate",)}, "features"),
        ({"trimming": Trimming()}, "trimming"),
        ({"stories": ("storya", "storyb", "storyz")}, "stories"),
        ({"alphas": (1.0, 10.0)}, "alphas"),
        ({"fdr_q": 0.1}, "FDR"),
        ({"seed": 7}, "random seed"),
        ({"test_stories": ("storya",)}, "test on"),
        ({"use_train_test_split": False, "test_stories": ("storya",)}, "scores from"),
    ],
)
def test_whatever_decides_the_result_outdates_it(panel, change, label):
    panel.settings = replace(MODEL, **change)
    assert_outdated(panel, label)


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cpu"},
        {"n_permutations": 300, "significance": MODEL.significance, "stride": 4, "n_outer_folds": 3},
        {"stories": ("storya", "storyb", "storyc", "storyz")},  # all, as by default
        {"stories": ("storya", "storyb", "storyc")},  # storyz is for testing in any case
    ],
)
def test_what_does_not_decide_the_result_leaves_it(panel, change):
    if "n_permutations" in change:  # an effect only with the permutation test
        panel.settings = parametric = replace(MODEL, significance="parametric")
        panel.fit()
        assert panel.join(60)
        change = {**change, "significance": parametric.significance}
    panel.settings = replace(MODEL, **change)
    assert_current(panel)


def test_many_changes_are_counted(panel):
    panel.settings = replace(MODEL, layer_idx=0, lookback=4, seed=3, fdr_q=0.2, fir_delays=(1, 2))
    assert "(layer, lookback, delays (TR) and 2 more)" in panel.results.shown.value


def test_other_data_outdate_it_and_their_fit_does_not(panel, assembly):  # noqa: F811
    other = replace(assembly, subject="T", source="t.h5")
    assert panel.session.start("open", opening(other)) and panel.join(10)
    shown = panel.results.shown.value
    assert "Shown: S, tiny-gpt2, layer 1, lookback 8. Other data are open now: press Fit to update." in shown
    assert panel.status == "Opened T: 4 stories." and "\u2713" not in panel.progress.stages.value
    panel.fit()
    assert panel.join(60)
    assert_current(panel)


def test_a_sweep_is_outdated_by_any_setting_but_the_layer(panel):
    panel.sweep_layers()
    assert panel.join(60)
    assert panel.status == "Done: 5 layers."
    box(panel, "layer_idx").value = 3
    assert panel.status == "Done: 5 layers." and "have changed (layer)" in panel.results.shown.value
    box(panel, "lookback").value = "4"
    assert "have changed (lookback)" in panel.status


def test_during_a_fit_the_former_run_is_named_and_then_the_preview(panel, monkeypatch):
    """The map shows the new scores while their permutation test runs."""
    go_on, previewed = threading.Event(), threading.Event()

    def run(*_, progress, **__):
        progress(Progress("ridge", 1, 2, 0.5, "one alpha per voxel"))
        progress(Progress("scores", 0, 1, 0.8, "test", scores=np.zeros(3), significant=np.zeros(3, bool)))
        previewed.set()
        assert go_on.wait(20)
        return replace(panel.result, settings=replace(MODEL, layer_idx=0))

    monkeypatch.setattr(pipeline, "run", run)
    box(panel, "layer_idx").value = 0
    panel.fit()
    assert previewed.wait(20)
    shown = panel.results.shown.value
    go_on.set()
    assert panel.join(20)
    assert shown == "Shown: tiny-gpt2, layer 0, lookback 8, before its test of significance."
    assert panel.results.shown.value == "Shown: tiny-gpt2, layer 0, lookback 8."


def test_a_new_panel_of_the_session_compares_too(panel, assembly, tmp_path):  # noqa: F811
    changed = replace(MODEL, layer_idx=2)
    again = ControlPanel(
        assembly, memory=NO_CACHE, results_dir=tmp_path, settings=changed, session=panel.session
    )
    assert "have changed (layer)" in again.results.shown.value


def test_every_setting_can_be_compared(panel):
    """No setting is forgotten: each has a control, whose row says where it has an effect."""
    assert set(vars(Settings())) == set(panel.controls.fields)


def test_a_shorter_list_of_stories_never_holds_an_old_choice(panel, assembly, monkeypatch):  # noqa: F811
    """A page applies labels and choice one after the other, and throws on a choice beyond the end of its list."""
    other = replace(assembly, stories={k: assembly.stories[k] for k in ("storya", "storyz")})
    for field in panel.controls.stories.lists.values():
        state = {"_options_labels": field._options_labels, "index": field.index}

        def sent(change, state=state):
            state[change["name"]] = change["new"]
            assert all(i < len(state["_options_labels"]) for i in state["index"]), state

        field.observe(sent, ["_options_labels", "index"])
    panel.controls.use(other)
    lists = panel.controls.stories.lists
    assert lists["stories"].options == lists["stories"].value == ("storya", "storyz")
    assert lists["test_stories"].value == ("storyz",)
