import base64
import io
import re
import threading
import zlib
from dataclasses import replace

import numpy as np
import pytest
import traitlets
from PIL import Image

from encoding_nb import brain
from encoding_nb.panel import brain_view
from encoding_nb.panel.click_map import BrainView
from encoding_nb.pipeline import Result
from encoding_nb.settings import Settings
from encoding_nb.web import WEB, areas_of

DEMO = brain.SHIPPED
STORIES = ("one", "two")


def make_mapped(seed=0):
    """A result on the demo's surface with made-up numbers."""
    rng = np.random.default_rng(seed)
    n = brain.voxel_count(DEMO)
    scores = {story: rng.uniform(-0.2, 0.8, n) for story in STORIES}
    series = {story: rng.normal(size=(30, n)).astype(np.float32) for story in STORIES}
    return Result(
        settings=Settings(),
        scores=sum(scores.values()) / 2,
        story_scores=scores,
        pvalues=np.where(scores["one"] > 0.5, 1e-6, 0.5),
        significant=scores["one"] > 0.5,
        best_alphas=np.vstack([np.full(n, 10.0), np.full(n, 1000.0)]),
        noise_ceiling=rng.random(n),
        predictions=series,
        measured={story: -values for story, values in series.items()},
        row_times={story: 2.0 * np.arange(30) for story in STORIES},
        rois={name: brain.roi_masks(DEMO)[name] for name in ("AC", "V1")},
        surface=DEMO,
        metrics={},
        provenance={},
        subject="S1",
        simulated=True,
    )


@pytest.fixture(scope="module")
def result():
    return make_mapped()


@pytest.fixture
def view(result):
    return brain_view(result)


def floats(data):
    return np.frombuffer(data, "<f4")


def picture(view):
    return np.asarray(Image.open(io.BytesIO(view._picture)))


def test_the_picture_is_the_map(view, result):
    expected = brain.flat_image(result.scores, DEMO, significant=result.significant)
    np.testing.assert_array_equal(picture(view), expected)
    assert view._size == list(expected.shape[:2])
    scale = view._scale
    assert (scale["low"], scale["high"]) == pytest.approx((0, np.percentile(result.scores, 99.5)))
    assert scale["units"] == "correlation (r)" and "not significant" in scale["note"]
    assert all(re.fullmatch("#[0-9a-f]{6}", stop) for stop in scale["stops"])


def test_the_lookup_names_the_voxel_under_each_pixel(view):
    lookup = np.frombuffer(zlib.decompress(view._lookup), "<i4").reshape(view._size)
    np.testing.assert_array_equal(lookup, brain.flat_mapper(DEMO).lookup)
    places = np.frombuffer(view._facts["places"], "<i4").reshape(-1, 2)
    assert len(places) == brain.voxel_count(DEMO)


def test_what_hovering_shows_is_sent_once(view, result):
    rows = {row["name"]: floats(row["values"]) for row in view._facts["rows"]}
    assert list(rows) == ["r", "alpha", "noise ceiling"]
    np.testing.assert_allclose(rows["r"], result.scores, atol=1e-6)
    np.testing.assert_allclose(rows["alpha"], 505)
    np.testing.assert_array_equal(np.frombuffer(view._facts["significant"], np.uint8), result.significant)
    names = np.array(view._facts["areas"])[np.frombuffer(view._facts["area_of"], "<u2")]
    np.testing.assert_array_equal(names == "AC", result.rois["AC"])
    np.testing.assert_array_equal(names == "V1", result.rois["V1"])


def test_overlapping_areas_are_both_named():
    names, numbers = areas_of({"a": np.array([1, 1, 0, 0], bool), "b": np.array([0, 1, 1, 0], bool)}, 4)
    assert [names[i] for i in numbers] == ["a", "a, b", "b", ""]


def test_a_selection_brings_its_time_course(view, result):
    assert view.selected == -1 and view._course == {"voxel": -1}
    view.selected = 7
    course = view._course
    assert course["voxel"] == 7 and "one: r = " in course["heading"]
    np.testing.assert_array_equal(floats(course["measured"]), result.measured["one"][:, 7])
    np.testing.assert_array_equal(floats(course["predicted"]), result.predictions["one"][:, 7])
    np.testing.assert_array_equal(floats(course["times"]), result.row_times["one"])
    view.story = "two"
    np.testing.assert_array_equal(floats(view._course["measured"]), result.measured["two"][:, 7])
    assert f"r = {result.story_scores['two'][7]:.2f}" in view._course["heading"]
    view.selected = -1
    assert view._course == {"voxel": -1}


def test_the_selection_can_be_shared(result):
    first, second = brain_view(result), brain_view(result)
    link = traitlets.link((first, "selected"), (second, "selected"))
    first.selected = 12
    assert second._course["voxel"] == 12
    link.unlink()


def test_what_is_not_there_cannot_be_selected(view):
    with pytest.raises(traitlets.TraitError, match=r"voxel from 0 to 21228, or -1 for none, got 21229"):
        view.selected = 21229
    with pytest.raises(
        traitlets.TraitError, match=r"No held-out story 'three' in this result; it has one, two"
    ):
        view.story = "three"
    assert view.selected == -1 and view.story == "one"


def test_threshold_and_colour_range_redraw(view, result):
    before = picture(view)
    view.threshold = 0.6
    expected = np.where(result.scores < 0.6, np.nan, result.scores)
    scale = view._scale
    image = brain.flat_image(
        expected, DEMO, significant=result.significant, vmin=scale["low"], vmax=scale["high"]
    )
    np.testing.assert_array_equal(picture(view), image)
    view.threshold = None
    np.testing.assert_array_equal(picture(view), before)
    view.vmax = 0.3
    assert view._scale["high"] == 0.3 and (picture(view) != before).any()
    assert view._scale["note"] == "faded: not significant (permutation test)"
    view.vmin = 0.5  # does not fit to the other end, which then counts as not given, and the map says so
    assert view._scale["low"] == 0.5 < view._scale["high"]
    assert view._scale["note"].startswith(
        "the colours cannot go from 0.5 to 0.3: the upper end is taken from the data"
    )
    view.vmax = 0.7
    assert view._scale["note"] == "faded: not significant (permutation test)" and view._scale["high"] == 0.7
    view.threshold = 5.0
    assert view._scale["note"] == "no value reaches the threshold of 5"


@pytest.mark.parametrize(("choice", "word"), [("fade", "faded"), ("hatch", "hatched"), ("hide", "hidden")])
def test_the_legend_says_what_is_drawn(view, result, choice, word):
    look = {"units": "correlation (r)", "nonsignificant": choice}
    view.show(result.scores, significant=result.significant, **look)
    assert view._scale["note"] == f"{word}: not significant"
    view.show(result.scores, significant=result.scores > 0.2, otherwise="below 0.20", **look)
    assert view._scale["note"] == f"{word}: below 0.20"
    view.show(result.scores, significant=np.ones(len(result.scores), bool), **look)
    assert view._scale["note"] == "", "all are significant"
    view.show(result.scores, **look)
    assert view._scale["note"] == ""


def test_bars_say_nothing_of_fading():
    assert brain_view(by_region(5))._scale["note"] == ""


@pytest.mark.parametrize(
    ("vmin", "vmax"),
    [
        (0.9, 0.1),
        (0.9, None),
        (0.99, 0.5),
        (1.0, None),
        (7.0, None),
        (None, 9.0),
        (-4.0, 0.1),
        (None, -3.0),
        (0.9, 3.0),
        (2.0, 3.0),
        (-3.0, -2.0),
    ],
)
def test_the_colours_of_a_correlation_end_within_1(view, vmin, vmax):
    with view.hold_trait_notifications():
        view.vmin, view.vmax = vmin, vmax
    assert -1 <= view._scale["low"] < view._scale["high"] <= 1
    if vmin == 0.9 and vmax == 0.1:
        assert view._scale["note"].startswith("the colours cannot go from 0.9 to 0.1")
    elif None not in (vmin, vmax) or max(abs(end) for end in (vmin, vmax) if end is not None) > 1:
        assert view._scale["note"].startswith(
            ("a correlation lies between -1 and 1", "the colours cannot go")
        )


def test_the_colours_of_other_values_may_go_beyond_1(view, result):
    view.show(result.scores * 5, units="log10 of the chosen alpha")
    view.vmin, view.vmax = 2.0, 7.0
    assert (view._scale["low"], view._scale["high"]) == (2.0, 7.0) and "correlation" not in view._scale[
        "note"
    ]


def test_colours_of_regions_that_cannot_be_are_said_too():
    view = brain_view(by_region(5))
    view.vmin, view.vmax = 0.5, 0.3
    assert "cannot go from 0.5 to 0.3" in view._scale["note"]
    alone = brain_view(by_region(5))
    alone.vmin = 0.5
    np.testing.assert_array_equal(picture(view), picture(alone))


def test_categories_are_not_averaged(view, result):
    layers = np.where(result.scores > 0.3, 4.0, 0.0)
    layers[result.scores < 0] = np.nan
    view.show(layers, name="best layer", cmap="viridis", categories=(0, 2, 4))
    labels = np.where(np.isnan(layers), -1, layers / 2).astype(int)
    expected = brain.category_image(labels, DEMO, n_categories=3)
    np.testing.assert_array_equal(picture(view), expected)
    colours = {tuple(colour) for colour in picture(view)[..., :3].reshape(-1, 3)}
    between = tuple(brain.category_palette(3)[1])
    assert between not in colours and tuple(brain.category_palette(3)[2]) in colours
    scale = view._scale
    assert (scale["low"], scale["high"], scale["note"]) == (0, 4, "")
    assert [stop.split()[1:] for stop in scale["stops"]] == [
        ["0.00%", "33.33%"], ["33.33%", "66.67%"], ["66.67%", "100.00%"]]  # fmt: skip
    view.threshold = 1.0
    np.testing.assert_array_equal(
        picture(view), brain.category_image(np.where(labels == 2, 2, -1), DEMO, n_categories=3)
    )
    view.vmax = 3.0
    assert "the colour range has no effect" in view._scale["note"] and view._scale["high"] == 4
    with pytest.raises(ValueError, match="Expected values among 0, 2, 4, got others"):
        view.show(np.ones(len(layers)), categories=(0, 2, 4))


class WaitingSet(set):
    """`Widget._states_to_send`, in which one thread's addition comes as late as can be."""

    def __init__(self, thread, about_to, go):
        super().__init__()
        self.thread, self.about_to, self.go = thread, about_to, go

    def add(self, key):
        if threading.current_thread().name == self.thread:
            self.about_to.set()
            self.go.wait(10)
        super().add(key)


def test_no_change_is_lost_while_another_thread_holds_its_own_back(result):
    """ipywidgets clears what was held back when the holder is done; a change that another thread adds then is lost."""
    view, sent, about_to, go = brain_view(result), [], threading.Event(), threading.Event()
    view._send = lambda message, buffers=None: sent.append(set(message.get("state", ())))
    view._states_to_send = WaitingSet("slider", about_to, go)
    slider = threading.Thread(target=lambda: setattr(view, "_hint", "moved"), name="slider")
    with view.hold_sync():
        slider.start()
        about_to.wait(0.5)
        view._alt = "by the fit"
    go.set()
    slider.join(10)
    assert {"_alt"} in sent and {"_hint"} in sent


def test_other_values_can_be_shown(view, result):
    lookup = view._lookup
    view.show(result.noise_ceiling, name="ceiling", units="noise ceiling (r)", cmap="viridis")
    np.testing.assert_array_equal(picture(view), brain.flat_image(result.noise_ceiling, DEMO, cmap="viridis"))
    assert [row["name"] for row in view._facts["rows"]] == ["ceiling", "r", "alpha", "noise ceiling"]
    assert view._scale["units"] == "noise ceiling (r)" and view._scale["note"] == ""
    assert view._lookup is lookup, "sent once"


def test_values_that_do_not_fit_leave_the_view_as_it_is(view, result):
    before = view._picture
    with pytest.raises(ValueError, match=r"Expected 21229 values, .* got shape \(3,\)"):
        view.show(np.ones(3))
    with pytest.raises(ValueError, match="no colour map 'virids'"):
        view.show(result.scores, cmap="virids")
    with pytest.raises(ValueError, match=r"significant must be flags, .* got float64"):
        view.show(result.scores, significant=result.noise_ceiling)
    assert view._picture == before
    view.threshold = 0.1
    assert view._picture != before, "the view still works"


def test_another_result_keeps_a_selection_that_fits(view):
    view.selected = 5
    other = make_mapped(seed=1)
    view.show_result(other)
    np.testing.assert_array_equal(floats(view._course["measured"]), other.measured["one"][:, 5])
    view.selected = 20_000
    view.show_result(by_region(9))
    assert view.selected == -1 and view._course == {"voxel": -1}


def test_what_is_no_result_is_refused():
    with pytest.raises(TypeError, match="brain_view: expected a Result, got a Surface; run"):
        brain_view(DEMO)


def test_an_empty_view_waits_for_its_result(result):
    view = BrainView()
    assert view._picture == b"" and "No result yet" in view._hint and "No result yet" in view._alt
    with pytest.raises(ValueError, match="call show_result"):
        view.show(result.scores)
    thread = threading.Thread(target=view.show_result, args=(result,))  # as a fit does
    thread.start()
    thread.join()
    assert view._picture and "Click the map" in view._hint


def test_a_run_without_time_courses_says_so(result):
    view = brain_view(replace(result, predictions={}, measured={}, row_times={}))
    view.selected = 3
    assert "kept no time courses" in view._course["heading"] and view._course["times"] == b""


def test_a_viewer_without_a_kernel_gets_the_map(view):
    bundle = view._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert base64.b64decode(data["image/png"]) == view._picture
    assert "application/vnd.jupyter.widget-view+json" in data
    empty = BrainView()._repr_mimebundle_()
    assert "image/png" not in (empty[0] if isinstance(empty, tuple) else empty)


def test_the_picture_is_told_in_words(view):
    assert "Flattened cortex of S1 (simulated BOLD): correlation (r), 21229 values from" in view._alt
    assert "Arrow keys" in view._alt and view._facts["unit"] == "voxel"


def test_the_browser_needs_nothing_from_elsewhere():
    names = sorted(file.name for file in WEB.iterdir() if file.suffix in (".js", ".css"))
    assert names == ["brain_view.css", "brain_view.js", "page.js", "panel.css"]
    for name in names:
        assert not re.search(r"https?://|@import|\bimport\b.*\bfrom\b|url\(", (WEB / name).read_text())


# --- data by region ---


def by_region(n):
    full = make_mapped()
    part = {name: {s: v[..., :n] for s, v in getattr(full, name).items()}
            for name in ("story_scores", "predictions", "measured")}  # fmt: skip
    return replace(full, surface=None, rois={}, voxel_names=tuple(f"region {i}" for i in range(n)),
                   scores=full.scores[:n], significant=full.significant[:n], noise_ceiling=None,
                   best_alphas=full.best_alphas[:, :n], **part)  # fmt: skip


def test_data_without_a_surface_are_bars_to_click_on():
    result = by_region(12)
    view = brain_view(result)
    lookup = np.frombuffer(zlib.decompress(view._lookup), "<i4").reshape(view._size)
    assert set(np.unique(lookup)) == set(range(-1, 12)) and list(picture(view).shape[:2]) == view._size
    places = np.frombuffer(view._facts["places"], "<i4").reshape(-1, 2)
    for region, (row, column) in enumerate(places):
        assert lookup[row, column] == region
    assert (
        view._facts["names"][3] == "region 3"
        and view._facts["unit"] == "region"
        and view._scale["stops"] is None
    )
    view.selected = 3
    assert view._course["heading"].startswith("region 3, one: r = ")
    view.threshold = 0.4
    assert "Regions of S1" in view._alt
