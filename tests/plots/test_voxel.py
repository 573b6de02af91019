from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from encoding_nb import Assembly, Story, Trimming, Words
from encoding_nb.plots import voxel as the_voxel

from .test_plots import N_ROWS, N_VOXELS, STORIES, assert_uncut, by_region, make_result, texts

N_TRS = N_ROWS + 50


@pytest.fixture(scope="module")
def result():
    return make_result()


@pytest.fixture(scope="module")
def assembly():
    """Three words a second; the result has the rows from 60 s to 298 s of 338."""
    rng = np.random.default_rng(0)
    onsets = np.arange(0, 2 * N_TRS, 0.34)
    names = tuple("".join(rng.choice(list("aeionrst"), rng.integers(1, 11))) for _ in onsets)
    words = Words(names, onsets, onsets + 0.3)
    return Assembly(
        "S1", 2.0, {STORIES[0]: Story(STORIES[0], words, 2.0 * np.arange(N_TRS), np.zeros((N_TRS, 1)))}
    )


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].lines}


def spans(figure, what):
    """The stretches that are shaded for a reason."""
    hatch = {"trimmed": "///", "not held out": "..."}[what]
    return sorted(
        (p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches if p.get_hatch() == hatch
    )


def words_of(figure):
    return [text for text in figure.findobj(matplotlib.text.Text) if text.get_gid() == "word"]


def test_a_whole_story_has_a_tick_per_word_and_its_trimmed_ends(result, assembly):
    figure = the_voxel.plot_voxel(result, 8, assembly=assembly)
    assert_uncut(figure)
    (ax,) = figure.axes
    drawn, story = lines(figure), assembly.stories[STORIES[0]]
    np.testing.assert_array_equal(drawn["measured"].get_ydata(), result.measured[STORIES[0]][:, 8])
    np.testing.assert_array_equal(drawn["predicted"].get_ydata(), result.predictions[STORIES[0]][:, 8])
    np.testing.assert_array_equal(drawn["predicted"].get_xdata(), result.row_times[STORIES[0]])
    np.testing.assert_allclose(drawn["words"].get_xdata(), story.words.times)
    assert "voxel 8 in AC: r = " in texts(figure) and "alpha = 10" in texts(figure)
    assert "(s)" in ax.get_xlabel() and "z-score" in ax.get_ylabel()
    np.testing.assert_allclose(spans(figure, "trimmed"), [(0, 60), (298, 338)])
    assert "trimmed" in texts(figure) and not spans(figure, "not held out")


@pytest.mark.parametrize("size", [None, (4.46, 2.6), (11, 4)])
@pytest.mark.parametrize("start", [40, 150.0])
def test_every_word_of_a_stretch_is_written_and_covers_none(result, assembly, start, size):
    figure = the_voxel.plot_voxel(result, 8, assembly=assembly, start=start, stop=start + 40, size=size)
    assert_uncut(figure)
    words = assembly.stories[STORIES[0]].words
    heard = [text for text, t in zip(words.text, words.times, strict=True) if start <= t <= start + 40]
    assert sorted(text.get_text() for text in words_of(figure)) == sorted(heard) and len(heard) > 110
    assert "not written" not in texts(figure)
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    boxes = [text.get_window_extent(renderer) for text in words_of(figure)]
    frame = figure.axes[0].get_window_extent()
    for number, box in enumerate(boxes):
        assert frame.x0 - 2 <= box.x0 and box.x1 <= frame.x1 + 2 and frame.y0 <= box.y0
        assert not any(box.overlaps(other) for other in boxes[:number])
    trimmed = [(40, 60)] if start < 60 else []
    np.testing.assert_allclose(spans(figure, "trimmed"), trimmed)
    # all that is drawn stays clear of the words
    low = min(
        np.nanmin(line.get_ydata())
        for name, line in lines(figure).items()
        if name in ("measured", "predicted")
    )
    assert max(box.y1 for box in boxes) <= figure.axes[0].transData.transform((0, low))[1]


def test_on_given_axes_words_without_room_are_counted(result, assembly):
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.add_subplot()
    assert the_voxel.plot_voxel(result, 8, assembly=assembly, start=100, stop=160, ax=ax) is figure
    assert tuple(figure.get_size_inches()) == (6, 3)
    words = assembly.stories[STORIES[0]].words
    n_heard = int(((words.times >= 100) & (words.times <= 160)).sum())
    assert (
        f"{n_heard - len(words_of(figure))} words are not written: show a shorter stretch" in ax.get_xlabel()
    )
    assert 0 < len(words_of(figure)) < n_heard


def test_the_score_of_a_stretch_is_that_of_the_story(result, assembly):
    assert "over the whole story" in texts(
        the_voxel.plot_voxel(result, 8, assembly=assembly, start=90, stop=120)
    )
    assert "over the whole story" not in texts(the_voxel.plot_voxel(result, 8, assembly=assembly))


def test_a_stretch_without_the_words(result):
    figure = the_voxel.plot_voxel(result, 8, start=90, stop=120)
    assert figure.axes[0].get_xlim() == (90, 120) and not words_of(figure)


def test_rows_that_no_fold_held_out_are_left_open_and_said(result, assembly):
    """A gap among the rows, and kept rows before the first one that was scored."""
    story = STORIES[0]
    held = np.flatnonzero((np.arange(N_ROWS) >= 10) & ((np.arange(N_ROWS) < 40) | (np.arange(N_ROWS) >= 60)))
    parts = {
        name: {story: getattr(result, name)[story][held]} for name in ("measured", "predictions", "row_times")
    }
    nested = replace(result, settings=replace(result.settings, use_train_test_split=False,
                                              trimming=Trimming(train_features_start=30, train_features_end=-20)),
                     **parts)  # fmt: skip
    figure = the_voxel.plot_voxel(nested, 8, assembly=assembly)
    np.testing.assert_allclose(spans(figure, "not held out"), [(60, 80), (138, 180)])
    np.testing.assert_allclose(spans(figure, "trimmed"), [(0, 60), (298, 338)])
    drawn = lines(figure)["measured"]
    assert np.isnan(drawn.get_ydata()).sum() == 1 and np.flatnonzero(np.isnan(drawn.get_ydata())) == [30]
    np.testing.assert_array_equal(np.delete(drawn.get_ydata(), 30), parts["measured"][story][:, 8])
    assert_uncut(figure)


def test_nested_alphas_and_another_story(result):
    nested = replace(result, best_alphas=np.vstack([result.best_alphas] * 3))
    assert "alpha = 1e+03" in texts(the_voxel.plot_voxel(nested, 1, story="avatar"))


def test_a_region_is_named():
    assert "superior temporal region 3: r = " in texts(the_voxel.plot_voxel(by_region(9), 3))


@pytest.mark.parametrize("voxel", [-1, N_VOXELS, 3.0, "3"])
def test_a_voxel_outside_the_mask(result, voxel):
    with pytest.raises(ValueError, match=rf"whole number of a voxel from 0 to {N_VOXELS - 1}, got {voxel!r}"):
        the_voxel.plot_voxel(result, voxel)


def test_an_unknown_story_lists_the_known_ones(result):
    with pytest.raises(ValueError, match=r"'avatarr' in this result; it has wheretheressmoke, .*avatar"):
        the_voxel.plot_voxel(result, 0, story="avatarr")


@pytest.mark.parametrize("story", [None, STORIES[1]])
def test_a_result_without_time_courses_says_so(result, story):
    bare = replace(result, predictions={}, measured={})
    with pytest.raises(ValueError, match=r"S1: this result has scores but no time courses.*keep_predictions"):
        the_voxel.plot_voxel(bare, 0, story=story)


@pytest.mark.parametrize("start, stop", [(50, 40), (30, 30), (338, 400), (-20, -1)])
def test_a_stretch_outside_the_story(result, assembly, start, stop):
    with pytest.raises(ValueError, match=rf"within 0 to 338 s, got start {start} and stop {stop}"):
        the_voxel.plot_voxel(result, 0, assembly=assembly, start=start, stop=stop)


def test_ends_that_are_no_seconds_are_named(result):
    with pytest.raises(ValueError, match=rf"{STORIES[0]}: expected start in seconds .* got 'a'"):
        the_voxel.plot_voxel(result, 0, start="a")
    with pytest.raises(ValueError, match=r"expected stop in seconds .* got '9'"):
        the_voxel.plot_voxel(result, 0, start=1, stop="9")


def test_an_assembly_that_is_none_or_of_other_stories(result, assembly):
    with pytest.raises(
        TypeError, match=r"expected assembly to be the Assembly that was run, got 'demo'; load"
    ):
        the_voxel.plot_voxel(result, 0, assembly="demo")
    with pytest.raises(
        ValueError, match=rf"The assembly has no story '{STORIES[1]}', it has {STORIES[0]}; pass"
    ):
        the_voxel.plot_voxel(result, 0, story=STORIES[1], assembly=assembly)
