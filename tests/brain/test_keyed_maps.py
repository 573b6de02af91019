from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from scipy import ndimage

from encoding_nb.brain import _painting, flatmaps, surfaces

DEMO = surfaces.SHIPPED


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    return rng.uniform(0, 1, (2, surfaces.voxel_count(DEMO)))


def texts(figure):
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def assert_uncut(figure):
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def pair_image(*values, **options):
    """The pixels of a map of two values, without outlines."""
    return flatmaps.flatmap_pair(*values, DEMO, **options).axes[0].images[0].get_array()


def lightness(rgb):
    """Relative luminance (IEC 61966-2-1), from bytes."""
    linear = (np.asarray(rgb) / 255.0) ** 2.2
    return linear @ [0.2126, 0.7152, 0.0722]


# --- two values ---


def test_pair_palette_has_its_corners_and_gets_lighter_along_both_axes():
    square = _painting.pair_palette().reshape(_painting.PAIR_STEPS, _painting.PAIR_STEPS, 3)
    corners = [square[0, 0], square[0, -1], square[-1, 0], square[-1, -1]]
    for corner, wanted in zip(corners, _painting.PAIR_CORNERS, strict=True):
        assert np.abs(corner.astype(int) - list(bytes.fromhex(wanted[1:]))).max() <= 1
    light = lightness(square)
    assert (np.diff(light, axis=0) > 0).all() and (np.diff(light, axis=1) > 0).all()


def test_oklab_round_trip_and_a_published_value():
    rgb = np.random.default_rng(0).random((50, 3))
    np.testing.assert_allclose(_painting._from_oklab(_painting._to_oklab(rgb)), rgb, atol=1e-6)
    # white is (1, 0, 0), as the matrices are normalised for
    np.testing.assert_allclose(_painting._to_oklab(np.ones((1, 3))), [[1, 0, 0]], atol=1e-4)


def test_pair_map_takes_both_values_of_each_pixel(values):
    first, second = values
    image = pair_image(first, second, first_limits=(0, 1), second_limits=(0, 1))
    mapper = surfaces.flat_mapper(DEMO)
    x, y = (mapper.project(v) for v in values)
    there = np.isfinite(x)
    n = _painting.PAIR_STEPS
    x, y = np.nan_to_num(x), np.nan_to_num(y)
    cell = np.minimum((y * n).astype(int), n - 1) * n + np.minimum((x * n).astype(int), n - 1)
    expected = _painting.pair_palette()[cell[there]]
    np.testing.assert_array_equal(image[mapper.pixels][there][:, :3], expected)


def test_pair_map_shows_only_pixels_with_both_values(values):
    first, second = values[0].copy(), values[1].copy()
    area = surfaces.roi_masks(DEMO)["AC"]
    second[area] = np.nan
    image = pair_image(first, second)
    mapper = surfaces.flat_mapper(DEMO)
    gone = mapper.project(area.astype(float)) == 1
    assert {tuple(c) for c in image[mapper.pixels][gone]} <= {(96, 96, 96, 255), (160, 160, 160, 255)}


def test_pair_figure_has_an_uncut_key_with_names(values):
    figure = flatmaps.flatmap_pair(
        *values, DEMO, names=("score (r)", "ceiling (r)"), title="Both", significant=values[0] > 0.5
    )
    assert_uncut(figure)
    for word in ("score (r)", "ceiling (r)", "Both", "faded: not significant", "AC"):
        assert word in " ".join(texts(figure).split())


def test_pair_map_names_the_map_that_is_wrong(values):
    with pytest.raises(
        ValueError, match=r"Expected 21229 values of the second map, .*got 3 values of the second"
    ):
        pair_image(values[0], np.ones(3))
    with pytest.raises(ValueError, match=r"significant must be flags, .* got float64"):
        pair_image(*values, significant=values[0])
    with pytest.raises(TypeError, match="colour"):
        pair_image(*values, colour="red")


def test_pair_map_of_nothing_is_drawn_and_said(values):
    figure = flatmaps.flatmap_pair(values[0], np.full(len(values[0]), np.nan), DEMO)
    assert "second map: none of the 21229 voxels has a finite value" in " ".join(texts(figure).split())


# --- categories ---


def test_category_colours_are_told_apart_from_the_cortex_in_grey():
    for n in (2, 5, 13):
        light = lightness(_painting.category_palette(n))
        assert (np.diff(light) > 0).all(), "in order, and each its own"
        assert light.max() < 0.8 * lightness([_painting.LIGHT_CURVATURE[0]] * 3)


def test_a_pixel_shows_the_category_with_the_largest_share(values):
    labels = np.random.default_rng(1).integers(-1, 4, len(values[0]))
    image = flatmaps.category_image(labels, DEMO, n_categories=4, with_rois=False)
    mapper = surfaces.flat_mapper(DEMO)
    shares = np.array([mapper.weights @ (labels == k).astype(float) for k in range(4)])
    any_share = shares.max(axis=0) > 0
    expected = _painting.category_palette(4)[shares.argmax(axis=0)]
    np.testing.assert_array_equal(image[mapper.pixels][any_share][:, :3], expected[any_share])
    assert image[mapper.pixels][~any_share][:, :3].min() > 200


def test_categories_are_never_averaged():
    """Between areas of category 0 and of category 2 no pixel shows 1."""
    masks = surfaces.roi_masks(DEMO)
    labels = np.where(masks["V1"], 0, np.where(masks["V2"], 2, -1))
    image = flatmaps.category_image(labels, DEMO, n_categories=3, with_rois=False)[..., :3]
    middle = _painting.category_palette(3)[1]
    assert not (image == middle).all(axis=-1).any()
    _, patches = ndimage.label((image == _painting.category_palette(3)[0]).all(axis=-1))
    assert patches >= 2, "one in each hemisphere"


@pytest.mark.parametrize("n", [1, 5, 49])
def test_category_figure_is_uncut_and_its_names_do_not_overlap(values, n):
    labels = np.arange(len(values[0])) % n
    figure = flatmaps.flatmap_categories(labels, DEMO, names=[f"{i}" for i in range(n)], units="layer")
    assert_uncut(figure)
    bar = figure.axes[-1]
    boxes = [label.get_window_extent() for label in bar.get_xticklabels() if label.get_text()]
    assert boxes and all(a.x1 < b.x0 for a, b in pairwise(boxes))
    assert "layer" in texts(figure)


def test_labels_that_are_none_are_refused(values):
    with pytest.raises(ValueError, match=r"from -1 \(no category\) to 2, got float64"):
        flatmaps.category_image(values[0], DEMO, n_categories=3)
    with pytest.raises(ValueError, match=r"to 2, got int64 from 0 to 3"):
        flatmaps.category_image(np.arange(len(values[0])) % 4, DEMO, n_categories=3)
    with pytest.raises(ValueError, match="1 to 100 categories, got 0"):
        flatmaps.category_image(np.zeros(len(values[0]), int), DEMO, n_categories=0)


def test_no_category_at_all_is_drawn_and_said(values):
    figure = flatmaps.flatmap_categories(np.full(len(values[0]), -1), DEMO, names=["a"])
    assert "none of the 21229 voxels is in a category" in texts(figure)
    labels = np.where(np.arange(len(values[0])) < 9, 0, -1)
    assert "in a category" not in texts(flatmaps.flatmap_categories(labels, DEMO, names=["a"]))


def test_outlines_on_a_light_map_are_dark(values):
    labels = np.where(values[0] > 2, 0, -1)
    bare, drawn = (
        flatmaps.category_image(labels, DEMO, n_categories=2, with_rois=rois, with_labels=False)
        for rois in (False, True)
    )
    changed = (bare != drawn).any(axis=-1) & (bare[..., 3] == 255)
    darker = drawn[changed].astype(int)[:, :3].mean(axis=1) < 100
    assert changed.sum() > 1000 and 0.2 < darker.mean() < 0.9, "the lines are dark, their rims light"
    assert bare[changed].astype(int)[:, :3].mean() > 180


def test_the_key_of_a_pair_has_the_first_map_to_the_right_and_the_second_upwards(values):
    figure = flatmaps.flatmap_pair(
        *values, DEMO, names=("one", "two"), first_limits=(0, 1), second_limits=(2, 5)
    )
    (key,) = [ax for ax in figure.axes if ax.get_xlabel() == "one"]
    assert (key.get_ylabel(), key.get_xlim(), key.get_ylim()) == ("two", (0, 1), (2, 5))
    n = _painting.PAIR_STEPS
    (image,) = key.images
    assert image.origin == "lower"
    np.testing.assert_array_equal(image.get_array()[0, -1], _painting.pair_palette()[n - 1])
