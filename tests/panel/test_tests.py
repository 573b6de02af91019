"""Significance on the page: by which test, and that nothing is called significant where there is no test."""

from dataclasses import replace

import numpy as np
import pytest

from encoding_nb import brain_view
from encoding_nb._progress import Progress
from encoding_nb.panel import ControlPanel
from encoding_nb.panel.brain_tab import BrainTab
from encoding_nb.panel.runs_tab import comparison_html, runs_html
from encoding_nb.panel.session import BestLayer, Session, best_layers
from encoding_nb.panel.tabs import metrics_html, region_html, sentence
from encoding_nb.pipeline import run
from encoding_nb.records import compare_runs, list_runs, save_run

from ..pipeline.test_runs import RATE, TRIM, assembly, result  # noqa: F401 - fixtures
from .test_brain_view import make_mapped
from .test_panel import NO_CACHE, texts

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
NESTED = replace(RATE, trimming=TRIM, use_train_test_split=False, n_outer_folds=3)
NOT_TESTED = 'not tested: nested cross-validation needs significance="shift"'
WHITE = "parametric test, assumes white noise"
REGIONS = {"A": np.array([True, True, False]), "B": np.array([False, True, True])}


@pytest.fixture(scope="module")
def untested(assembly):  # noqa: F811
    return run(replace(assembly, rois=REGIONS), NESTED, memory=NO_CACHE, progress=False)


@pytest.fixture(scope="module")
def parametric(assembly):  # noqa: F811
    settings = replace(RATE, trimming=TRIM, significance="parametric")
    return run(replace(assembly, rois=REGIONS), settings, memory=NO_CACHE, progress=False)


@pytest.fixture(scope="module")
def mapped():
    """The same numbers on a surface: tested by permutations, by formula, not at all."""
    full = make_mapped()
    white = replace(full, settings=replace(full.settings, significance="parametric"))
    nested = replace(full.settings, use_train_test_split=False)
    return full, white, replace(full, settings=nested, pvalues=None, significant=None)


def test_a_run_without_pvalues_shows_why_and_counts_nothing(untested):
    assert not untested.tested
    line, table, regions = sentence(untested), metrics_html(untested), region_html(untested)
    for text in (line, table, regions):
        assert "not tested: nested cross-validation needs significance=&quot;shift&quot;" in text
        assert "0 significant" not in text and "0 voxels significant" not in text
    assert "<th scope='col'>significant</th>" not in regions and "n significant" not in table


def test_each_test_is_named(parametric, result):  # noqa: F811
    for shown in (sentence(parametric), metrics_html(parametric), region_html(parametric)):
        assert WHITE in shown
    assert "<th scope='col'>significant</th>" in region_html(parametric)
    assert "permutation test)" in sentence(result) and "white noise" not in sentence(result)


def test_the_map_names_the_test(mapped):
    tested, white, not_tested = map(brain_view, mapped)
    assert tested._facts["verdicts"] == ["not significant", "significant"]
    assert tested._scale["note"] == "faded: not significant (permutation test)"
    assert white._facts["verdicts"] == [
        "not significant (assumes white noise)",
        "significant (assumes white noise)",
    ]
    assert white._scale["note"] == f"faded: not significant ({WHITE})" and WHITE in white._alt
    n = len(mapped[0].scores)
    assert not_tested._facts["verdicts"] == ["not tested"] * 2 and len(not_tested._facts["significant"]) == n
    assert not_tested._scale["note"] == NOT_TESTED and NOT_TESTED in not_tested._alt
    assert "significant," not in not_tested._alt and "0 of" not in not_tested._alt
    assert not_tested._picture != tested._picture, "no voxel is faded"


def test_a_shift_test_that_is_running_leaves_no_significance_on_the_map(mapped):
    tab = BrainTab(Session(None), height=128)
    tab.look(True)
    tab.show(mapped[0])
    tab.preview(Progress("scores", 0, 1, 0.6, "shift test", scores=mapped[0].scores))
    assert tab.view._scale["note"] == "not tested yet: the test of this run is running"
    assert tab.view._facts["significant"] == b"" and "the test of this run is running" in tab.view._alt


def test_all_values_of_a_run_without_pvalues_can_be_shown(mapped):
    not_tested = mapped[2]
    session = Session(None)
    n = len(not_tested.scores)
    session.best = BestLayer(np.zeros(n), (0, 1), not_tested.settings, None, NOT_TESTED)
    tab = BrainTab(session, height=128)
    tab.look(True)
    tab.show(not_tested)
    for values in tab.values.options:
        for voxels in tab.voxels.options.values():
            tab.values.value, tab.voxels.value = values, voxels
            assert tab.drawn(30) and tab.trouble.value == "", values
    tab.values.value = "best layer"
    assert tab.drawn(30) and NOT_TESTED in tab.view._scale["units"]


def test_the_best_layer_of_runs_without_pvalues_is_that_of_all_voxels(untested, result):  # noqa: F811
    better = replace(untested, scores=untested.scores + 0.1)
    np.testing.assert_array_equal(best_layers({0: untested, 3: better}), [3, 3, np.nan])
    np.testing.assert_array_equal(best_layers({0: result, 3: result}), [0, np.nan, np.nan])


def test_the_runs_name_their_tests(untested, parametric, result, tmp_path):  # noqa: F811
    for each in (untested, parametric, result):
        save_run(each, tmp_path, figures=False)
    table = runs_html(list_runs(tmp_path))
    for cell in ("not tested", "1 (assumes white noise)", "1"):
        assert f"<td>{cell}</td>" in table
    both = (untested, parametric)
    compared = comparison_html(compare_runs(both))
    assert (
        f"<td>significance</td><td>{NOT_TESTED.replace(chr(34), '&quot;')}</td><td>{WHITE}</td>" in compared
    )


def test_a_nested_fit_fills_every_tab(assembly, tmp_path):  # noqa: F811
    panel = ControlPanel(
        replace(assembly, rois=REGIONS), memory=NO_CACHE, results_dir=tmp_path, settings=NESTED
    )
    for _ in range(2):
        panel.fit()
        assert panel.join(60)
    for tab in panel.results.tabs:
        panel.results.bring_to_front(tab)
        assert tab.drawn(60) and tab.trouble.value == "", tab.title
    panel.results.runs.first.index, panel.results.runs.second.index = 1, 2
    panel.results.runs.compare.click()
    assert panel.results.runs.drawn(60) and panel.results.runs.trouble.value == ""
    assert "\u26a0" not in panel.results.runs._comparison.value
    assert "not tested" in texts(panel.results) and "0 voxels significant" not in texts(panel.results)
    assert panel.save().is_dir() and panel._repr_mimebundle_()["image/png"]
