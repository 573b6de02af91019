"""Curves of sweeps: their numbers against plain numpy, and what the figures show and refuse."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from encoding_nb.pipeline import Result
from encoding_nb.settings import Settings
from encoding_nb.sweep import (
    SweepFailure,
    curve_table,
    plot_layer_profiles,
    plot_learning_curve,
    plot_lookback,
    plot_model_comparison,
    plot_sweep,
)

N_VOXELS = 300
BEST = {"demo": 4, "/models/large": 3}


def make_result(subject="S1", seed=0, **change):
    """Two thirds of the voxels are predicted, best at a layer that the model has."""
    settings = replace(Settings(), **change)
    rng = np.random.default_rng([seed, settings.layer_idx, settings.lookback, len(settings.stories or ())])
    height = 0.5 + 0.1 * (settings.model_name != "demo") + 0.02 * np.log2(settings.lookback)
    height += 0.03 * len(settings.stories or ())
    strength = height * np.exp(-((settings.layer_idx - BEST[settings.model_name]) ** 2) / 8)
    signal = np.arange(N_VOXELS) % 3 > 0
    scores = np.where(signal, strength, 0) + 0.1 * rng.standard_normal(N_VOXELS)
    scores[5] = np.nan
    return Result(
        settings=settings, scores=scores, story_scores={"storyz": scores}, best_alphas=scores,
        pvalues=scores, significant=signal & (scores > 0.3), noise_ceiling=None, predictions={}, measured={},
        row_times={}, metrics={}, provenance={}, subject=subject, rois={"AC": signal}, simulated=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def layers():
    return [
        make_result(subject, seed=seed, model_name=model, layer_idx=layer)
        for seed, subject in enumerate(("S1", "S2", "S3"))
        for model in BEST
        for layer in (0, 2, 3, 4, 6)
    ]


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines if not line.get_label().startswith("_")}


def test_the_numbers_of_a_curve(layers):
    table = curve_table(layers, x="layer_idx", by="model_name")
    assert len(table) == 3 * 2 * 5
    run = layers[7]
    shown = np.any([r.significant for r in layers if r.subject == "S1"], axis=0)
    row = table[
        (table.subject == "S1") & (table.model_name == "/models/large") & (table.layer_idx == 3)
    ].iloc[0]
    assert row.n_voxels == shown.sum() and run.settings.layer_idx == 3
    assert row["median"] == pytest.approx(np.nanmedian(run.scores[shown]))
    assert row.first_quartile == pytest.approx(np.nanpercentile(run.scores[shown], 25))
    assert row.percentile_95 == pytest.approx(np.nanpercentile(run.scores[shown], 95))


def test_voxels_may_be_given_for_all_or_by_subject(layers):
    mask = np.arange(N_VOXELS) < 50
    assert set(curve_table(layers, x="layer_idx", by="model_name", voxels=mask).n_voxels) == {50}
    table = curve_table(layers, x="layer_idx", by="model_name", voxels={"S2": mask})
    assert set(table[table.subject == "S2"].n_voxels) == {50}
    assert set(table[table.subject == "S1"].n_voxels) != {50}


def test_layer_profiles_of_models_with_each_subject(layers):
    figure = plot_layer_profiles(layers)
    assert isinstance(figure, Figure)
    found = lines(figure)
    assert {"demo: mean of 3 subjects", "demo: each subject", "large: mean of 3 subjects"} <= set(found)
    table = curve_table(layers, x="layer_idx", by="model_name")
    expected = table[table.model_name == "demo"].groupby("layer_idx")["median"].mean()
    np.testing.assert_allclose(found["demo: mean of 3 subjects"].get_ydata(), expected)
    rings = [line for line in figure.axes[0].lines if line.get_fillstyle() == "none"]
    assert sorted(line.get_xdata()[0] for line in rings) == [3, 4]
    assert figure.get_suptitle().startswith("3 subjects (simulated BOLD), lookback 64\n")


def test_one_subject_and_one_model_make_one_line_with_bands():
    figure = plot_layer_profiles([make_result(layer_idx=i) for i in (4, 0, 2)])
    assert set(lines(figure)) == {"median voxel"}
    assert {c.get_label() for c in figure.axes[0].collections} == {"middle half of voxels", "middle 90 %"}
    assert "S1 (simulated BOLD), demo, lookback 64" in figure.get_suptitle()


def test_lookback_is_logarithmic_and_ticked_at_its_values():
    figure = plot_lookback([make_result(lookback=n) for n in (8, 64, 16)])
    ax = figure.axes[0]
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.get_xticklabels()] == ["8", "16", "64"]
    assert ax.get_xlabel() == "lookback (tokens)"


def test_a_learning_curve_averages_draws():
    draws = [("a", "storyz"), ("b", "storyz"), ("a", "b", "storyz")]
    results = [make_result(stories=stories, seed=i) for i, stories in enumerate(draws)]
    table = curve_table(results, x="n_stories")
    assert table.n_stories.tolist() == [1, 2] and table.n_runs.tolist() == [2, 1]
    shown = np.any([result.significant for result in results], axis=0)
    medians = [np.nanmedian(result.scores[shown]) for result in results]
    np.testing.assert_allclose(table["median"], [np.mean(medians[:2]), medians[2]])
    assert plot_learning_curve(results).axes[0].get_xlabel() == "training stories"
    with pytest.raises(ValueError, match=r"got stories=None; make the grid with stories=story_subsets"):
        curve_table([*results, make_result()], x="n_stories")


def test_models_are_compared_at_their_best_layer(layers):
    figure = plot_model_comparison(layers)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["large (layer 3)", "demo (layer 4)"]
    medians = [line.get_xdata()[0] for line in ax.lines if line.get_markeredgecolor() == "black"]
    table = curve_table(layers, x="layer_idx", by="model_name").groupby(["model_name", "layer_idx"])["median"]
    np.testing.assert_allclose(medians, [table.mean()["/models/large", 3], table.mean()["demo", 4]])
    assert "dots: subjects" in ax.get_xlabel()


def test_a_language_model_beside_word_rate_is_named_without_settings_that_word_rate_lacks(layers):
    figure = plot_model_comparison(
        [*layers[:5], make_result(modality="wordrate", layer_idx=2, lookback=16)], by="modality"
    )
    names = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert sorted(names) == ["language model (layer 4)", "word rate"]


def test_failures_are_left_out_and_counted(layers):
    failed = SweepFailure(layers[0].settings, "S1", "ValueError: no")
    figure = plot_layer_profiles([failed, *layers[1:10]])
    assert " ".join(figure.get_suptitle().split()).endswith("(permutation test); 1 failed run left out")
    with pytest.raises(ValueError, match="along layer_idx, got only failures"):
        plot_layer_profiles([failed])


def test_without_a_test_all_voxels_are_shown_and_the_title_says_why(layers):
    """A voxel that is not significant in the runs that are tested may be so in one that is not."""
    nested = {"use_train_test_split": False}
    untested = [
        replace(r, settings=replace(r.settings, **nested), pvalues=None, significant=None) for r in layers[:5]
    ]
    for results, says in (
        (untested, "all; not tested: nested"),
        ([*untested[:2], *layers[2:5]], "all; not tested in 2 of 5 runs"),
    ):
        table = curve_table(results, x="layer_idx")
        assert set(table.n_voxels) == {N_VOXELS}
        assert table["median"][0] == pytest.approx(np.nanmedian(results[0].scores))
        title = " ".join(plot_layer_profiles(results).get_suptitle().split())
        assert f"{N_VOXELS} voxels, {says}" in title
    assert "(permutation test)" in plot_layer_profiles(layers[:5]).get_suptitle()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda r: plot_layer_profiles([]), "results of a sweep along layer_idx, got none"),
        (lambda r: plot_lookback(r), "differ in lookback, got 64 only"),
        (lambda r: plot_sweep(r, x="layer_idx"), "layer_idx=.*got 2, which differ in model_name"),
        (lambda r: plot_sweep(r, x="model_name", by="layer_idx"), "numeric setting along the x axis"),
        (lambda r: plot_sweep(r, x="layer_idx", voxels=np.zeros(300, bool)), r"mask of 300 voxels .* of S1"),
        (lambda r: plot_model_comparison(r[:5]), "differ in model_name, got 'demo'"),
        (
            lambda r: plot_sweep(r, x="nope"),
            "x: expected the name of a setting or 'n_stories', got 'nope'; these results differ in model_name, lay",
        ),
        (lambda r: plot_sweep(r, x=3), "x: expected the name of a setting .* got 3"),
        (
            lambda r: curve_table(r, x="layer_idx", by="nope"),
            "by: expected the name of a setting, got 'nope'",
        ),
        (
            lambda r: plot_model_comparison(r, by="n_stories"),
            "by: expected the name of a setting, got 'n_stories'",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(layers, call, says):
    with pytest.raises(ValueError, match=says):
        call(layers)


@pytest.mark.parametrize("call", [curve_table, plot_sweep, plot_model_comparison])
def test_one_result_in_place_of_a_list(layers, call):
    options = {} if call is plot_model_comparison else {"x": "layer_idx"}
    with pytest.raises(
        TypeError, match=f"{call.__name__}: expected results of run_sweep in a list, got a Result"
    ):
        call(layers[0], **options)


def test_it_draws_on_given_axes(layers):
    ax = plot_lookback([make_result(lookback=n) for n in (8, 64)]).add_subplot()
    assert plot_layer_profiles(layers, ax=ax) is ax.figure
    assert plot_model_comparison(layers, ax=ax) is ax.figure
