from dataclasses import dataclass, replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from encoding_nb import Settings, Story, Trimming, Words, brain
from encoding_nb.features import word_rate
from encoding_nb.pipeline import Result
from encoding_nb.plots import comparison, design, found_in_any, regions, voxel
from encoding_nb.plots import results as the_results
from encoding_nb.plots.regions import draw_regions
from encoding_nb.scoring import summarise

N_VOXELS, N_ROWS = 400, 120
STORIES = ("wheretheressmoke", "adventuresinsayingyes", "avatar")


def make_result(layer=4, stories=STORIES, seed=0):
    """Every fourth voxel is predicted, best at layer 4."""
    rng = np.random.default_rng(seed)
    signal = np.arange(N_VOXELS) % 4 == 0
    strength = np.where(signal, 0.8 * np.exp(-((layer - 4) ** 2) / 4), 0)
    predictions = {s: rng.normal(size=(N_ROWS, N_VOXELS)) for s in stories}
    measured = {
        s: strength * p + np.sqrt(1 - strength**2) * rng.normal(size=p.shape) for s, p in predictions.items()
    }
    scores = {
        s: np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(measured[s].T, predictions[s].T, strict=True)])
        for s in stories
    }
    return Result(
        settings=Settings(
            model_name="/somewhere/models/small-gpt",
            layer_idx=layer,
            lookback=64,
            alphas=(1.0, 10.0, 100.0, 1000.0),
            trimming=Trimming(test_features_start=30, test_features_end=-20),
        ),
        scores=np.mean(list(scores.values()), axis=0),
        story_scores=scores,
        best_alphas=np.where(signal, 10.0, 1000.0),
        pvalues=np.where(signal & (strength > 0.1), 0.001, 0.5),
        significant=signal & (strength > 0.1),
        noise_ceiling=np.where(signal, 0.85, 0.1),
        predictions=predictions,
        measured=measured,
        row_times={s: 60 + 2.0 * np.arange(N_ROWS) for s in stories},
        metrics=summarise(np.mean(list(scores.values()), axis=0), signal & (strength > 0.1)),
        provenance={},
        subject="S1",
        rois={"AC": signal},
        simulated=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result():
    return make_result()


@pytest.fixture(scope="module")
def layers():
    return [make_result(layer, STORIES[:1], seed=layer) for layer in (3, 0, 4, 6)]


def texts(figure):
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def assert_uncut(figure):
    """Nothing is drawn beyond the figure's edges."""
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


@pytest.mark.parametrize("stories", [STORIES[:1], STORIES, tuple(f"astoryofalongname{i}" for i in range(12))])
def test_plot_stories(stories):
    figure = the_results.plot_stories(make_result(stories=stories))
    assert isinstance(figure, Figure)
    assert_uncut(figure)
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == list(stories)
    assert "correlation (r)" in ax.get_xlabel()
    for said in ("S1 (simulated BOLD)", "small-gpt", "layer 4", "all 400 voxels", "100 significant (FDR 0.05)",
                 "noise ceiling"):  # fmt: skip
        assert said in texts(figure)


def test_plot_stories_puts_medians_and_ceiling_where_they_are(result):
    (ax,) = the_results.plot_stories(result).axes
    at = [line.get_xdata() for line in ax.lines]
    drawn = {round(float(x[0]), 9) for x in at if len(set(x)) == 1 and len(x) == 2}
    for scores in result.story_scores.values():
        assert {round(float(np.median(s)), 9) for s in (scores, scores[result.significant])} <= drawn
    # which stories were heard again is not known here: their mean is drawn, and on no story's line
    mean = next(
        line for line in the_results.plot_stories(result).axes[0].lines if line.get_linestyle() == ":"
    )
    assert list(mean.get_xdata()) == [0.85, 0.85] and "mean of the repeated stories" in mean.get_label()


def diamonds(figure):
    """{story: where its noise ceiling is drawn}."""
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    return {
        names[row]: at
        for line in ax.lines
        if line.get_marker() == "D"
        for at, row in zip(*line.get_data(), strict=True)
    }


def test_a_story_has_a_ceiling_only_where_its_own_is_known(result):
    own = {STORIES[0]: np.full(N_VOXELS, 0.7), STORIES[2]: np.where(result.significant, 0.9, 0.0)}
    figure = the_results.plot_stories(replace(result, story_noise_ceiling=own))
    assert diamonds(figure) == {STORIES[0]: 0.7, STORIES[2]: 0.9}
    one = replace(make_result(stories=STORIES[:1]), story_noise_ceiling={})
    assert diamonds(the_results.plot_stories(one)) == {STORIES[0]: 0.85}, "the mean over one story is its own"


def test_plot_stories_without_significant_voxels_or_ceiling(result):
    none = replace(result, significant=np.zeros(N_VOXELS, bool), noise_ceiling=None)
    assert "0 significant" in texts(the_results.plot_stories(none))
    nan = {story: np.full(N_VOXELS, np.nan) for story in STORIES}
    assert_uncut(the_results.plot_stories(replace(none, story_scores=nan)))


def ceiling_marks(figure):
    """{story: whether the diamond of its noise ceiling is filled}."""
    (ax,) = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    return {
        names[row]: line.get_fillstyle() == "full"
        for line in ax.lines
        if line.get_marker() == "D"
        for row in line.get_ydata()
    }


def test_the_ceiling_of_a_story_is_empty_where_it_is_not_above_chance(result):
    own = {story: np.full(N_VOXELS, 0.5) for story in STORIES}
    chance = dict(zip(STORIES, (0.4, 0.6, 0.1), strict=True))
    figure = the_results.plot_stories(replace(result, story_noise_ceiling=own, story_chance_ceiling=chance))
    assert_uncut(figure)
    assert ceiling_marks(figure) == {STORIES[0]: True, STORIES[1]: False, STORIES[2]: True}
    said = " ".join(texts(figure).split())
    assert "noise ceiling, median, not above chance" in said and "single voxels can exceed it" in said
    low = {story: np.full(N_VOXELS, 0.2) for story in STORIES}
    assert not any(ceiling_marks(the_results.plot_stories(replace(result, story_noise_ceiling=low))).values())
    old = replace(result, noise_ceiling=np.full(N_VOXELS, 0.2))
    assert "not above chance" in texts(the_results.plot_stories(old)), "the mean of old records, too"


def untested(result):
    """As nested cross-validation without shifts gives it."""
    metrics = {name: value for name, value in result.metrics.items() if "significant" not in name}
    return replace(result, pvalues=None, significant=None, metrics=metrics)


def parametric(result):
    return replace(result, settings=replace(result.settings, significance="parametric"))


NOT_TESTED = 'not tested: nested cross-validation needs significance="shift"'


@pytest.mark.parametrize(
    "plot",
    [
        the_results.plot_stories,
        the_results.plot_alphas,
        regions.plot_rois,
        lambda r: comparison.plot_comparison(r, r),
        lambda r: the_results.plot_layers([r]),
    ],
)
def test_plots_of_runs_without_a_test_show_all_voxels_and_say_why(result, plot):
    figure = plot(untested(result))
    assert_uncut(figure)
    said = " ".join(texts(figure).split())
    assert NOT_TESTED in said and "significant" not in said and "(none" not in said
    said = " ".join(texts(plot(parametric(result))).split())
    assert "parametric test, assumes white noise" in said and "not tested" not in said
    assert "permutation test" in texts(plot(result)) and "white noise" not in texts(plot(result))


def test_without_a_test_every_voxel_counts(result):
    (ax,) = the_results.plot_stories(untested(result)).axes
    assert ax.figure.legends[0].get_texts()[0].get_text() == "all 400 voxels"
    assert "75 % of all 400 voxels" in " ".join(texts(the_results.plot_alphas(untested(result))).split())
    labels = [label.get_text() for label in regions.plot_rois(untested(result)).axes[0].get_yticklabels()]
    assert labels == ["AC  100"]
    (ax,) = the_results.plot_layers([untested(result)]).axes
    median = next(line for line in ax.lines if line.get_label() == "median voxel")
    np.testing.assert_allclose(median.get_ydata(), np.median(result.scores))


def test_a_union_with_a_run_that_is_not_tested_takes_all_voxels(layers):
    mixed = [layers[0], untested(layers[1]), layers[2]]
    said = " ".join(texts(the_results.plot_layers(mixed)).split())
    assert "all 400 voxels; best at" in said and "not tested in 1 of 3 runs: nested" in said
    said = " ".join(texts(comparison.plot_comparison(*mixed[:2])).split())
    assert "of 400 voxels" in said and "not tested in 1 of 2 runs" in said
    found, test = found_in_any([layers[0], parametric(layers[2])])
    np.testing.assert_array_equal(found, layers[0].significant | layers[2].significant)
    assert test == "permutation test; parametric test, assumes white noise"


def test_plot_layers(layers):
    figure = the_results.plot_layers(layers)
    assert_uncut(figure)
    (ax,) = figure.axes
    median = next(line for line in ax.lines if line.get_label() == "median voxel")
    np.testing.assert_array_equal(median.get_xdata(), [0, 3, 4, 6])
    chosen = np.any([r.significant for r in layers], axis=0)
    np.testing.assert_allclose(median.get_ydata()[2], np.median(layers[2].scores[chosen]))
    assert "best at 4" in texts(figure) and "100 voxels, significant in at least one" in texts(figure)
    assert "layer" in ax.get_xlabel() and "lookback 64" in texts(figure) and "layer 3" not in texts(figure)


def test_plot_layers_of_chosen_voxels(layers):
    figure = the_results.plot_layers(layers, voxels=layers[0].rois["AC"])
    assert "100 voxels, chosen" in texts(figure)


def test_plot_profile_of_another_setting(result):
    results = [replace(result, settings=replace(result.settings, lookback=n)) for n in (4, 16, 64)]
    assert the_results.plot_profile(results, setting="lookback").axes[0].get_xlabel() == "lookback"


def test_plot_layers_refuses_what_it_cannot_show(layers, result):
    with pytest.raises(ValueError, match="plot by layer_idx: expected 1 or more results, got 0"):
        the_results.plot_layers([])
    with pytest.raises(ValueError, match="one result per layer_idx, got 4, 4"):
        the_results.plot_layers([result, result])
    short = replace(layers[0], scores=layers[0].scores[:10])
    with pytest.raises(ValueError, match="same voxels, got 10 voxels on None and 400 on None"):
        the_results.plot_layers([short, layers[1]])
    with pytest.raises(ValueError, match="at least one chosen, got 0 chosen of 400"):
        the_results.plot_layers(layers, voxels=np.zeros(N_VOXELS, bool))
    with pytest.raises(ValueError, match=r"voxels must be flags, .* got float64 .* such as a result's rois"):
        the_results.plot_layers(layers, voxels=layers[0].scores)
    with pytest.raises(ValueError, match=r"voxels must be flags, .* got int64 such as .3, 5"):
        the_results.plot_layers(layers, voxels=[3, 5])


ASSEMBLY = object()  # stands in for an Assembly: it holds no scores


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("plot_flatmap", lambda r: the_results.plot_flatmap(ASSEMBLY)),
        ("plot_stories", lambda r: the_results.plot_stories(ASSEMBLY)),
        ("plot_alphas", lambda r: the_results.plot_alphas(ASSEMBLY)),
        ("plot_voxel", lambda r: voxel.plot_voxel(ASSEMBLY, 0)),
        ("plot_rois", lambda r: regions.plot_rois(ASSEMBLY)),
        ("plot_regions", lambda r: regions.plot_regions(ASSEMBLY)),
        ("plot_comparison", lambda r: comparison.plot_comparison(r, ASSEMBLY)),
        ("plot_difference_map", lambda r: comparison.plot_difference_map(ASSEMBLY, r)),
        ("plot_pair_map", lambda r: comparison.plot_pair_map(ASSEMBLY)),
        ("plot_pair_map", lambda r: comparison.plot_pair_map(r, ASSEMBLY)),
        ("plot by layer_idx", lambda r: the_results.plot_layers([r, ASSEMBLY])),
        ("plot by layer_idx", lambda r: comparison.plot_best_layer([ASSEMBLY, r])),
    ],
)
def test_what_is_no_result_is_refused_by_name(result, name, call):
    with pytest.raises(
        TypeError, match=rf"{name}: expected a Result, got an object; run\(assembly, settings\)"
    ):
        call(result)


def test_one_result_where_several_are_meant(result):
    for plot in (the_results.plot_layers, comparison.plot_best_layer):
        with pytest.raises(
            TypeError, match=r"layer_idx: .* list of Results, got a Result; .*result_a, result_b"
        ):
            plot(result)
    with pytest.raises(TypeError, match="list of Results, got 'results'"):
        the_results.plot_layers("results")


def test_a_result_where_a_partition_is_meant(result):
    with pytest.raises(
        TypeError, match=r"expected a PartitionResult, got a Result; use partition\(assembly, set"
    ):
        comparison.plot_partition(result)


def test_pvalues_are_no_flags_of_regions(result):
    with pytest.raises(ValueError, match=r"significant must be flags, .*pass a run's result.significant"):
        draw_regions(np.ones(3), ("a", "b", "c"), significant=[0.01, 0.2, 0.9])


def test_plot_alphas(result):
    figure = the_results.plot_alphas(result)
    assert_uncut(figure)
    (ax,) = figure.axes
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, [0, 25, 0, 75, 0, 100, 0, 0])
    assert "widen" not in texts(figure), "only the significant voxels count for the warning"


def test_plot_alphas_says_when_they_pile_up(result):
    piled = replace(result, best_alphas=np.full((5, N_VOXELS), 1000.0))
    figure = the_results.plot_alphas(piled)
    said = " ".join(texts(figure).split())
    assert "100 % of 100 significant voxels have the largest alpha: extend the grid there" in said
    assert_uncut(figure)


def test_plot_flatmap():
    from encoding_nb.brain import SHIPPED, voxel_count

    rng = np.random.default_rng(0)
    scores = rng.uniform(-0.1, 0.6, voxel_count(SHIPPED))
    result = replace(make_result(), surface=SHIPPED, scores=scores, story_scores={"avatar": scores / 2},
                     significant=scores > 0.2)  # fmt: skip
    figure = the_results.plot_flatmap(result)
    assert_uncut(figure)
    assert "S1 (simulated BOLD): held-out stories" in texts(figure) and "not significant" in texts(figure)
    assert "avatar" in texts(the_results.plot_flatmap(result, story="avatar", with_rois=False))


def captured(monkeypatch, plot):
    """What `plot` has drawn on the flattened cortex: the values and the options."""
    seen = {}
    monkeypatch.setattr(brain, "flatmap", lambda values, surface, **o: seen.update(o, values=values))
    plot()
    return seen


def test_the_map_of_a_run_without_a_test_shows_all_voxels(mapped, monkeypatch):
    figure = the_results.plot_flatmap(untested(mapped[0]))
    assert_uncut(figure)
    assert NOT_TESTED in " ".join(texts(figure).split()) and "faded" not in texts(figure)
    seen = captured(monkeypatch, lambda: the_results.plot_flatmap(untested(mapped[0])))
    assert seen.get("significant") is None
    both = captured(monkeypatch, lambda: comparison.plot_difference_map(mapped[0], untested(mapped[1])))
    assert both.get("significant") is None and "not tested in 1 of 2 runs" in both["note"]


def test_the_map_names_the_test(mapped):
    said = " ".join(texts(the_results.plot_flatmap(parametric(mapped[0]))).split())
    assert "faded: not significant (parametric test, assumes white noise)" in said
    everywhere = replace(parametric(mapped[0]), significant=np.ones(len(mapped[0].scores), bool))
    said = " ".join(texts(the_results.plot_flatmap(everywhere)).split())
    assert "all are significant (parametric test, assumes white noise)" in said and "faded" not in said
    own = the_results.plot_flatmap(parametric(mapped[0]), significant=mapped[0].scores > 0.3, with_rois=False)
    assert "faded: not significant" in texts(own) and "white noise" not in texts(own)


def with_ceilings(result):
    """Ceilings of two stories, whose chance differs."""
    ceilings = {"one": result.noise_ceiling, "two": result.noise_ceiling / 2}
    return replace(
        result,
        story_scores={"one": result.scores, "two": result.scores / 3},
        story_noise_ceiling=ceilings,
        story_chance_ceiling={"one": 0.5, "two": 0.3},
    )


def test_the_map_of_noise_ceilings_fades_those_by_chance(mapped, monkeypatch):
    result = with_ceilings(mapped[1])
    seen = captured(monkeypatch, lambda: the_results.plot_flatmap(result, values="ceiling"))
    np.testing.assert_array_equal(
        seen["significant"], result.noise_ceiling >= 0.4
    )  # the mean of both stories
    np.testing.assert_array_equal(seen["values"], result.noise_ceiling)
    assert seen["otherwise"] == "noise ceiling below 0.40, not above chance"
    assert "an estimate, single voxels can exceed it" in seen["units"]
    seen = captured(monkeypatch, lambda: the_results.plot_flatmap(result, values="ceiling", story="one"))
    np.testing.assert_array_equal(seen["significant"], result.noise_ceiling >= 0.5)


def test_the_map_of_shares_leaves_out_ceilings_by_chance(mapped):
    result = with_ceilings(mapped[1])
    figure = the_results.plot_flatmap(result, values="share", story="two")
    assert_uncut(figure)
    share = brain.values_of(result, "share", "two")
    low = result.noise_ceiling / 2 < 0.3
    np.testing.assert_allclose(share[~low], (result.scores / 3)[~low] / (result.noise_ceiling / 2)[~low])
    assert np.isnan(share[low]).all() and 0 < low.sum() < len(low)
    said = " ".join(texts(figure).split())
    assert f"{low.sum():,} of {len(low):,} voxels have no value and are not shown" in said
    assert "share of the noise ceiling" in said and "single voxels can exceed it" in said


def test_values_that_a_result_does_not_have_are_refused(mapped):
    with pytest.raises(ValueError, match="values must be one of score, ceiling, share; got 'r2'"):
        the_results.plot_flatmap(mapped[0], values="r2")
    with pytest.raises(ValueError, match="no noise ceiling, because no held-out story has repeats"):
        the_results.plot_flatmap(replace(mapped[0], noise_ceiling=None), values="ceiling")
    with pytest.raises(ValueError, match="no noise ceiling, because two has no repeats"):
        one = replace(with_ceilings(mapped[0]), story_noise_ceiling={})
        the_results.plot_flatmap(one, values="share", story="two")


def test_plot_flatmap_without_a_surface(result):
    for plot in (the_results.plot_flatmap, comparison.plot_pair_map):
        with pytest.raises(ValueError, match="have no cortical surface"):
            plot(result)
    with pytest.raises(ValueError, match="have no cortical surface"):
        comparison.plot_difference_map(result, result)


# --- by region ---


def by_region(n, **changes):
    """A result of n named regions, as data come that have no voxels."""
    full = make_result()
    names = tuple(f"superior temporal region {i}" for i in range(n))
    keep = {name: {s: v[..., :n] for s, v in getattr(full, name).items()}
            for name in ("story_scores", "predictions", "measured")}  # fmt: skip
    return replace(full, scores=full.scores[:n], significant=full.significant[:n], noise_ceiling=None,
                   best_alphas=full.best_alphas[:n], rois={}, voxel_names=names, **keep, **changes)  # fmt: skip


@pytest.mark.parametrize("n", [1, 7, 100, 400])
def test_data_by_region_are_drawn_as_labelled_bars(n):
    result = by_region(n)
    figure = the_results.plot_flatmap(result)
    assert_uncut(figure)
    labels = [label.get_text() for ax in figure.axes for label in ax.get_yticklabels()]
    order = np.argsort(-result.scores)[:120]
    assert labels == [result.voxel_names[i] for i in order]
    bars = [bar for ax in figure.axes for bar in ax.patches]
    np.testing.assert_allclose([bar.get_width() for bar in bars], result.scores[order])
    blue = [matplotlib.colors.to_hex(bar.get_facecolor()) == "#0072b2" for bar in bars]
    assert blue == result.significant[order].tolist()
    assert ("the 120 highest of 400 regions" in texts(figure)) == (n == 400)


def test_bars_name_the_test_and_mark_ceilings_by_chance():
    said = texts(regions.plot_regions(parametric(by_region(9))))
    assert "significance: parametric test, assumes white noise" in said and "not significant" in said
    figure = regions.plot_regions(untested(by_region(9)))
    assert NOT_TESTED in " ".join(texts(figure).split()) and not figure.legends
    ceilings = np.linspace(0.0, 0.8, 9)
    result = replace(by_region(9), noise_ceiling=ceilings, story_chance_ceiling={"one": 0.45})
    figure = regions.plot_regions(result, values="ceiling")
    blue = [matplotlib.colors.to_hex(bar.get_facecolor()) == "#0072b2" for bar in figure.axes[0].patches]
    assert blue == [True] * 4 + [False] * 5
    assert "noise ceiling below 0.45, not above chance" in texts(figure)
    assert "5 of 9 regions have no value" in texts(regions.plot_regions(result, values="share"))


def test_a_region_without_a_score_is_named_without_a_bar():
    result = by_region(5)
    result = replace(result, scores=np.array([0.1, np.nan, 0.3, 0.2, 0.0]))
    (ax,) = regions.plot_regions(result).axes
    assert ax.get_yticklabels()[-1].get_text() == "superior temporal region 1"
    assert ax.patches[-1].get_width() == 0


def test_plot_regions_needs_names(result):
    with pytest.raises(ValueError, match="no region names; use plot_rois"):
        regions.plot_regions(result)


def test_the_picture_for_the_view_knows_which_row_is_which_region():
    from encoding_nb.plots import region_picture

    values = np.random.default_rng(0).random(90)
    picture, lookup = region_picture(values, [f"region {i}" for i in range(90)], significant=values > 0.5)
    assert picture.shape[:2] == lookup.shape and picture.dtype == np.uint8
    assert set(np.unique(lookup)) == {-1, *range(90)}
    blue = (picture[..., :3] == (0, 0x72, 0xB2)).all(axis=-1)
    inside = lookup[blue]
    assert (values[inside[inside >= 0]] > 0.5).all() and (inside >= 0).mean() > 0.95
    heights = [np.ptp(np.nonzero((lookup == i).any(axis=1))[0]) for i in range(90)]
    assert min(heights) > 10


def test_plot_rois(result):
    rng = np.random.default_rng(0)
    masks = {"AC": result.rois["AC"], "V1": rng.random(N_VOXELS) < 0.1, "none": np.zeros(N_VOXELS, bool)}
    figure = regions.plot_rois(result, masks)
    assert_uncut(figure)
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[0] == "AC  100/100" and labels[-1] == "none  0/0"
    at = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(at[0], np.median(result.scores[masks["AC"]]))
    assert [label.get_text() for label in regions.plot_rois(result).axes[0].get_yticklabels()] == [
        "AC  100/100"
    ]


# --- runs against each other ---


def test_plot_comparison(layers):
    first, second = layers[1], layers[2]  # layers 0 and 4
    figure = comparison.plot_comparison(first, second)
    assert_uncut(figure)
    (ax,) = figure.axes
    dots = next(line for line in ax.lines if line.get_marker() == ".")
    np.testing.assert_array_equal(dots.get_xdata(), first.scores)
    np.testing.assert_array_equal(dots.get_ydata(), second.scores)
    either = first.significant | second.significant
    better = int((second.scores > first.scores)[either].sum())
    assert f"layer 4 is better in {better} of {either.sum()} significant" in texts(figure)
    assert ax.get_xlabel() == "layer 0: correlation (r)" and ax.get_xlim() == ax.get_ylim()


def test_plot_comparison_of_many_voxels_is_a_density():
    rng = np.random.default_rng(0)
    many = [replace(make_result(), scores=rng.normal(0, 0.2, 5000), significant=rng.random(5000) < 0.1)
            for _ in range(2)]  # fmt: skip
    figure = comparison.plot_comparison(*many)
    assert_uncut(figure)
    assert figure.axes[0].collections[0].get_array().sum() > 0
    assert "first run: correlation (r)" in texts(figure), "runs with the same settings"


def test_names_of_runs_are_the_settings_that_differ(result):
    other = replace(result, settings=replace(result.settings, fdr_q=0.01))
    figure = comparison.plot_comparison(result, other)
    assert "fdr_q 0.05: correlation (r)" in texts(figure) and "fdr_q 0.01" in texts(figure)
    assert "mine: corr" in texts(comparison.plot_comparison(result, other, names=("mine", "yours")))


def test_runs_of_other_voxels_are_refused(result):
    short = replace(result, scores=result.scores[:10])
    with pytest.raises(ValueError, match="runs of the same voxels, got 400 voxels on None and 10 on None"):
        comparison.plot_comparison(result, short)


@pytest.fixture(scope="module")
def mapped():
    """Two runs on the demo's surface."""
    from encoding_nb.brain import SHIPPED, roi_masks, voxel_count

    rng = np.random.default_rng(0)
    made = []
    for layer in (2, 5):
        scores = rng.uniform(-0.1, 0.2, voxel_count(SHIPPED)) + 0.4 * roi_masks(SHIPPED)["AC"] * (layer == 5)
        made.append(replace(make_result(layer), surface=SHIPPED, scores=scores, significant=scores > 0.15,
                            noise_ceiling=scores + 0.2))  # fmt: skip
    return made


def test_difference_map(mapped):
    figure = comparison.plot_difference_map(*mapped)
    assert_uncut(figure)
    said = texts(figure)
    assert "layer 2 minus layer 5" in said and "yellow: layer 2 is better" in said
    bar = figure.axes[-1]
    low, high = bar.get_xlim()
    assert low == pytest.approx(-high)


def test_pair_maps(mapped):
    ceiling = comparison.plot_pair_map(mapped[1])
    assert_uncut(ceiling)
    assert "noise ceiling (r)" in texts(ceiling) and "score by noise ceiling" in texts(ceiling)
    said = " ".join(texts(ceiling).split())
    assert "faded: noise ceiling below 0.25, not above chance" in said and "an estimate" in said
    runs = comparison.plot_pair_map(*mapped)
    assert "layer 2 (r)" in texts(runs) and "layer 5 (r)" in texts(runs)
    with pytest.raises(ValueError, match="no noise ceiling"):
        comparison.plot_pair_map(replace(mapped[0], noise_ceiling=None))


def test_best_layer_map_of_runs_without_a_test(mapped, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        brain, "flatmap_categories", lambda labels, surface, **o: seen.update(o, labels=labels)
    )
    comparison.plot_best_layer([untested(result) for result in mapped])
    scores = np.array([r.scores for r in mapped])
    np.testing.assert_array_equal(seen["labels"], scores.argmax(axis=0))
    assert seen["note"] == NOT_TESTED and "significant" not in seen["units"]


def test_best_layer_map(mapped, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        brain, "flatmap_categories", lambda labels, surface, **o: seen.update(o, labels=labels)
    )
    comparison.plot_best_layer(mapped[::-1])
    scores = np.array([r.scores for r in mapped])
    either = mapped[0].significant | mapped[1].significant
    np.testing.assert_array_equal(seen["labels"], np.where(either, scores.argmax(axis=0), -1))
    assert seen["names"] == ["2", "5"] and "best layer" in seen["title"] and "layer 2" not in seen["title"]


def test_best_layer_map_is_uncut_and_refuses_what_it_cannot_show(mapped):
    assert_uncut(comparison.plot_best_layer(mapped))
    with pytest.raises(ValueError, match="layer_idx: expected 2 or more results, got 1"):
        comparison.plot_best_layer(mapped[:1])
    with pytest.raises(ValueError, match="one result per layer_idx, got 2, 2"):
        comparison.plot_best_layer([mapped[0], mapped[0]])


@dataclass(frozen=True, eq=False)
class Partition:
    names: tuple
    joint: np.ndarray
    split: dict
    unique: dict
    gain: dict
    selected: np.ndarray
    folds: tuple = ()
    subject: str = "S1"
    simulated: bool = True


def made_partition(seed=0):
    rng = np.random.default_rng(seed)
    split = {"language model": rng.normal(0.1, 0.05, 500), "word rate": rng.normal(0.02, 0.02, 500)}
    unique = {name: values / 2 for name, values in split.items()}
    gain = {name: values / 3 for name, values in split.items()}
    joint = sum(split.values())
    joint[:3] = np.nan
    made = Partition(tuple(split), joint, split, unique, gain, np.arange(500) < 200)
    return replace(made, folds=(made,))


def dots_of(figure):
    return [line.get_xdata()[0] for line in figure.axes[0].lines if line.get_marker() == "o"]


def test_plot_partition():
    partition = made_partition()
    figure = comparison.plot_partition(partition)
    assert_uncut(figure)
    (ax,) = figure.axes
    gains = [f"{name}\ngain in r {partition.gain[name][:200].mean():+.2f}" for name in partition.names]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["all together", *gains]
    expected = [np.nanmean(partition.joint[:200])]
    for name in partition.names:
        expected += [partition.split[name][:200].mean(), partition.unique[name][:200].mean()]
    np.testing.assert_allclose(dots_of(figure), expected)
    words = " ".join(texts(figure).split())
    assert "S1 (simulated BOLD)" in words and "200 voxels selected" in words and "a lower bound" in words
    others = comparison.plot_partition(partition, voxels=np.arange(500) >= 490)
    assert dots_of(others)[0] == pytest.approx(partition.joint[490:].mean())
    assert "10 voxels chosen" in " ".join(texts(others).split())
    with pytest.raises(ValueError, match="at least one chosen, got 0 chosen of 500"):
        comparison.plot_partition(partition, voxels=np.zeros(500, bool))


def test_plot_partition_of_nested_folds_averages_each_over_its_own_voxels():
    first, second = made_partition(1), made_partition(2)
    masks = np.stack([np.arange(500) < 100, np.arange(500) >= 450])
    both = replace(first, folds=(first, second), selected=masks)
    figure = comparison.plot_partition(both)
    unique = [fold.unique["word rate"][mask].mean() for fold, mask in zip(both.folds, masks, strict=True)]
    assert dots_of(figure)[-1] == pytest.approx(np.mean(unique))
    assert "50 to 100 voxels a fold, selected" in " ".join(texts(figure).split())


# --- the design ---


@pytest.fixture
def short_story():
    onsets = np.array([0.2, 0.9, 1.4, 3.1, 4.2, 9.0, 9.3])
    words = Words(("once", "upon", "a", "time", "there", "was", "silence"), onsets, onsets + 0.3)
    return Story("tale", words, 2.0 * np.arange(10), np.zeros((7, 4)))


def test_timeline_counts_words_by_tr(short_story):
    figure = design.plot_timeline(short_story, stop=18)
    assert_uncut(figure)
    line = figure.axes[0].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), word_rate(short_story.words, short_story.tr_times)[:, 0])
    assert written(figure) == sorted(short_story.words.text)
    assert "7 words on 10 TRs" in texts(figure) and "words per TR" in texts(figure)


def written(figure):
    return sorted(
        text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_gid() == "word"
    )


def test_timeline_counts_the_words_it_cannot_write(short_story):
    onsets = np.linspace(0, 17, 400)
    fast = replace(short_story, words=Words(("supercalifragilistic",) * 400, onsets, onsets + 0.01))
    left, _ = Figure(figsize=(8, 3), layout="constrained").subplots(1, 2)
    figure = design.plot_timeline(fast, stop=18, ax=left)
    n_lost = 400 - len(written(figure))
    assert n_lost > 0 and f"{n_lost} words are not written: show a shorter stretch" in left.get_xlabel()
    whole = design.plot_timeline(fast, stop=18)
    assert len(written(whole)) == 400 and "not written" not in texts(whole)


def test_timeline_of_a_feature_before_and_after_downsampling(short_story):
    sampled = np.arange(20.0).reshape(10, 2)
    values = np.arange(14.0).reshape(7, 2)
    figure = design.plot_timeline(short_story, sampled, word_values=values, feature=1, label="surprise (bits)",
                                 start=3, stop=10)  # fmt: skip
    assert_uncut(figure)
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), sampled[2:6, 1])
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), values[3:, 1])
    assert "surprise (bits), at each word" in texts(figure)


def test_timeline_refuses_what_does_not_fit(short_story):
    with pytest.raises(
        ValueError, match=r"tale: sampled features: expected 10 rows, one per TR, got shape \(9,\)"
    ):
        design.plot_timeline(short_story, np.zeros(9))
    with pytest.raises(ValueError, match="expected a feature from 0 to 1, got 2"):
        design.plot_timeline(short_story, np.zeros((10, 2)), feature=2)
    with pytest.raises(ValueError, match="no TR lies between 100 and 160 s; its TRs run from 0 to 18"):
        design.plot_timeline(short_story, start=100)
    with pytest.raises(ValueError, match="expected a feature from 0 to 1, got 'pitch'"):
        design.plot_timeline(short_story, np.zeros((10, 2)), feature="pitch")
    with pytest.raises(ValueError, match=r"tale: expected start in seconds .* got 'a'"):
        design.plot_timeline(short_story, start="a")


def test_names_where_a_story_or_a_trimming_is_meant(short_story):
    for plot in (design.plot_timeline, lambda story: design.plot_trimming(story, Trimming())):
        with pytest.raises(
            TypeError, match=r"expected a Story, got 'gravy'; pass assembly.stories\['gravy'\]"
        ):
            plot("gravy")
    with pytest.raises(
        TypeError, match=r"expected a Trimming, got 'lebel'; pass settings.trimming, or TRIMMINGS\['lebel'\]"
    ):
        design.plot_trimming(short_story, "lebel")


def test_trimming_picture(short_story):
    trimming = Trimming(train_features_start=2, train_features_end=-1, test_features_start=4,
                        test_features_end=-1, test_targets_start=2)  # fmt: skip
    figure = design.plot_trimming(short_story, trimming)
    assert_uncut(figure)
    (ax,) = figure.axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == ["words", "training, features: 7 of 10", "training, BOLD: 7 of 7",
                      "test, features: 5 of 10", "test, BOLD: 5 of 7"]  # fmt: skip
    blue = [p for p in ax.patches if matplotlib.colors.to_hex(p.get_facecolor()) == "#0072b2"]
    spans = [(p.get_x(), p.get_x() + p.get_width()) for p in blue]
    # rows 2 to 8 of features, TRs of 2 s each around their times; BOLD stands beneath what it is fitted to
    np.testing.assert_allclose(spans, [(3, 17), (3, 17), (7, 17), (7, 17)])
    assert "do not match" not in texts(figure)


def test_trimming_that_does_not_match_is_said(short_story):
    figure = design.plot_trimming(short_story, Trimming())
    assert_uncut(figure)
    assert "training: 10 rows of features, 7 of BOLD do not match" in texts(figure)
    empty = design.plot_trimming(short_story, Trimming(train_features_start=50, test_targets_start=50))
    assert "training: 0 rows of features" in texts(empty)


def test_delays_of_one_feature_are_its_weights():
    response = np.array([0.1, 0.8, 0.9, 0.3])
    weights = response[:, None] * np.linspace(0.5, 1.5, 11)
    figure = design.plot_delays(weights, [1, 2, 3, 4], tr=2.0, label="word rate")
    assert_uncut(figure)
    (ax,) = figure.axes
    median = next(line for line in ax.lines if line.get_label() == "median voxel")
    np.testing.assert_allclose(median.get_ydata(), response)
    assert "word rate: estimated response, 11 voxels" in texts(figure) and "2\n4 s" in texts(figure)


def test_delays_of_many_features_in_both_shapes_and_any_order():
    rng = np.random.default_rng(0)
    stacked = rng.normal(size=(3, 5, 20))
    chosen = np.arange(20) < 8
    flat = design.plot_delays(stacked.reshape(15, 20), [4, 2, 3], voxels=chosen)
    cube = design.plot_delays(stacked, [4, 2, 3], voxels=chosen)
    size = np.median(np.sqrt((stacked[:, :, chosen] ** 2).mean(axis=1)), axis=1)
    for figure in (flat, cube):
        median = next(line for line in figure.axes[0].lines if line.get_label() == "median voxel")
        np.testing.assert_array_equal(median.get_xdata(), [2, 3, 4])
        np.testing.assert_allclose(median.get_ydata(), size[[1, 2, 0]])
    assert "root mean square of 5 features" in texts(flat)


def test_delays_that_do_not_divide_the_rows_are_refused():
    with pytest.raises(ValueError, match=r"n_features x 4 delays, n_voxels\) .*got shape \(6, 3\)"):
        design.plot_delays(np.zeros((6, 3)), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="at least one chosen, got 0 chosen of 3"):
        design.plot_delays(np.zeros((8, 3)), [1, 2, 3, 4], voxels=np.zeros(3, bool))
    with pytest.raises(ValueError, match=r"delays as a list of TRs, got 4; try \[1, 2, 3, 4\]"):
        design.plot_delays(np.zeros((8, 3)), 4)


@pytest.mark.parametrize(
    "plot", [the_results.plot_stories, the_results.plot_alphas, lambda r, ax: voxel.plot_voxel(r, 0, ax=ax)]
)
def test_plots_draw_on_given_axes(result, plot):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert plot(result, ax=left) is figure
    assert left.has_data() and not right.has_data()


def test_real_subjects_are_not_called_simulated(result):
    assert "simulated" not in texts(the_results.plot_alphas(replace(result, simulated=False)))
    assert (
        texts(the_results.plot_alphas(replace(result, subject="S1 (simulated BOLD)"))).count("simulated") == 1
    )


def test_a_notebook_shows_figures_as_pictures_without_pyplot(result):
    """What IPython makes of a figure that is a cell's value, in a fresh formatter without a backend."""
    from IPython.core.formatters import DisplayFormatter

    shown, _ = DisplayFormatter().format(the_results.plot_stories(result))
    assert shown["image/png"].startswith(b"\x89PNG")


def test_approximate_features_are_called_so(result):
    strided = replace(result, settings=replace(result.settings, context_type="strided"))
    assert "approximate (strided)" in texts(the_results.plot_stories(strided))
    assert "approximate" not in texts(the_results.plot_stories(result))
