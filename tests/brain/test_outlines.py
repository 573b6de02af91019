import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.brain import _painting, outlines, surfaces

from ..tiny_subject import SVG


def read_outlines(path):
    return outlines.read_drawing(path)[0]


def only(data):
    ((points, closed),) = outlines.polylines(data)
    return points, closed


@pytest.mark.parametrize(
    "data",
    [
        "M 10,10 L 30,10 30,20 10,20 Z",
        "m 10 10 l 20 0 0 10 -20 0 z",
        "M10 10h20v10h-20z",
        "M10-0 M 10,10 H 30 V 20 H 10 Z",
        "m1e1 10 20 0 0 10 -2.0e1,0z",
        "M10.,10. L 300.e-1 1.e1 30 20 1000.e-2 20. Z",
    ],
)
def test_one_rectangle_written_in_many_ways(data):
    *_, (points, closed) = outlines.polylines(data)
    assert closed
    np.testing.assert_allclose(points, [[10, 10], [30, 10], [30, 20], [10, 20]])


def test_several_pieces_and_drawing_on_after_a_close():
    pieces = outlines.polylines("m 0,0 1,0 0,1 z m 5,5 1,0 z l 2,2")
    assert [closed for _, closed in pieces] == [True, True, False]
    np.testing.assert_allclose(pieces[1][0], [[5, 5], [6, 5]])
    np.testing.assert_allclose(pieces[2][0], [[5, 5], [7, 7]])


@given(st.lists(st.floats(-100, 100), min_size=8, max_size=8))
def test_cubic_equals_its_polynomial(numbers):
    p = np.reshape(numbers, (4, 2))
    points, _ = only(f"M {p[0, 0]},{p[0, 1]} C " + " ".join(f"{x},{y}" for x, y in p[1:]))
    t = (np.arange(len(points)) / (len(points) - 1))[:, None]
    exact = (1 - t) ** 3 * p[0] + 3 * (1 - t) ** 2 * t * p[1] + 3 * (1 - t) * t**2 * p[2] + t**3 * p[3]
    np.testing.assert_allclose(points, exact, atol=1e-9)


def test_smooth_curves_mirror_the_control_point_before():
    np.testing.assert_allclose(
        only("M0 0 C0 1 1 1 2 0 S4 -1 4 0")[0], only("M0 0 C0 1 1 1 2 0 C3 -1 4 -1 4 0")[0]
    )
    np.testing.assert_allclose(only("M0 0 Q1 1 2 0 T4 0")[0], only("M0 0 Q1 1 2 0 Q3 -1 4 0")[0])
    np.testing.assert_allclose(only("M0 0 S1 1 2 0")[0], only("M0 0 C0 0 1 1 2 0")[0])


@pytest.mark.parametrize("large", [0, 1])
@pytest.mark.parametrize("sweep", [0, 1])
def test_arcs_lie_on_their_circle(large, sweep):
    points, _ = only(f"M 3,0 A 3 3 0 {large} {sweep} 0,3")
    centre = np.zeros(2) if large != sweep else np.full(2, 3.0)
    # the arc is drawn as cubic curves, each a quarter of the circle, and these as straight pieces
    np.testing.assert_allclose(np.linalg.norm(points - centre, axis=1), 3, rtol=3e-4)
    middles = (points[1:] + points[:-1]) / 2
    np.testing.assert_allclose(np.linalg.norm(middles - centre, axis=1), 3, rtol=3e-3)
    np.testing.assert_allclose(points[-1], [0, 3], atol=1e-9)
    turned = np.unwrap(np.arctan2(*(points - centre).T[::-1]))
    assert abs(turned[-1] - turned[0]) == pytest.approx(np.pi * (1.5 if large else 0.5))
    assert (turned[-1] > turned[0]) == bool(sweep)


def test_arcs_too_small_to_reach_grow():
    points, _ = only("M 0,0 A 1 1 0 0 1 4,0")
    np.testing.assert_allclose(np.linalg.norm(points - [2, 0], axis=1), 2, rtol=3e-4)
    np.testing.assert_allclose(points[[0, -1]], [[0, 0], [4, 0]], atol=1e-9)


@pytest.mark.parametrize("data", ["L 1,1", "M 1,1 C 1,2 3", "M 1 1 X 3", "M 1,1 Z 3,4", "5 5"])
def test_malformed_paths_are_refused(data):
    with pytest.raises((ValueError, IndexError)):
        outlines.polylines(data)


def test_transforms_apply_from_right_to_left():
    matrix = outlines.transform_matrix("translate(10, 5) rotate(90) scale(2)")
    np.testing.assert_allclose(matrix @ [1, 0, 1], [10, 7, 1], atol=1e-12)
    np.testing.assert_allclose(outlines.transform_matrix("matrix(1 2 3 4 5 6)") @ [1, 1, 1], [9, 12, 1])
    np.testing.assert_allclose(
        outlines.transform_matrix("rotate(180, 3, 4)") @ [0, 0, 1], [6, 8, 1], atol=1e-12
    )


@pytest.fixture
def drawing(tmp_path):
    def write(text=SVG):
        path = tmp_path / "overlays.svg"
        path.write_text(text)
        return path

    return write


def test_outlines_in_map_coordinates(drawing):
    lines = read_outlines(drawing())
    assert [(line.layer, line.name) for line in lines] == [
        ("rois", "box"), ("rois", "blob"), ("rois", "blob"), ("sulci", "CS")]  # fmt: skip
    np.testing.assert_allclose(lines[0].points, [[0.05, 0.9], [0.25, 0.9], [0.25, 0.5], [0.05, 0.5]])
    assert [line.closed for line in lines] == [True, True, True, False]
    assert lines[0].contains(np.array([[0.1, 0.6], [0.1, 0.4]])).tolist() == [True, False]


def test_a_moved_layer_moves_its_outlines(drawing):
    moved = SVG.replace('id="box"', 'id="box" transform="translate(100,-50)"')
    still, there = read_outlines(drawing())[0], read_outlines(drawing(moved))[0]
    np.testing.assert_allclose(there.points - still.points, [[0.1, 0.1]] * 4)


def test_a_view_box_sets_the_unit(drawing):
    scaled = SVG.replace('width="1000" height="500"', 'width="10cm" height="5cm" viewBox="0 0 1000 500"')
    np.testing.assert_allclose(read_outlines(drawing(scaled))[0].points, read_outlines(drawing())[0].points)


def test_hidden_areas_are_left_out(drawing):
    hidden = SVG.replace('id="box"', 'id="box" style="display: none"')
    assert {line.name for line in read_outlines(drawing(hidden))} == {"blob", "CS"}


def test_names_stand_inside_their_areas_and_apart(drawing):
    areas = [line for line in read_outlines(drawing()) if line.layer == "rois"]
    for line in areas:
        assert line.contains(line.label_at[None]).all()


@pytest.mark.parametrize("text", ["", "<svg", "<html/>", "<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_a_drawing_that_cannot_be_parsed_is_said(drawing, text):
    with pytest.warns(UserWarning, match=r"overlays\.svg cannot be read: .* without outlines"):
        assert read_outlines(drawing(text)) == ()


def test_a_path_that_cannot_be_parsed_is_named_and_the_rest_drawn(drawing):
    broken = SVG.replace("M 50,50 L 250,50", "M 50,50 W 250,50")
    with pytest.warns(UserWarning, match="outline of 'box' is left out"):
        lines = read_outlines(drawing(broken))
    assert {line.name for line in lines} == {"blob", "CS"}


@pytest.mark.skipif(shutil.which("inkscape") is None, reason="Inkscape is not installed")
def test_outlines_lie_where_pycortex_draws_them_with_inkscape(tmp_path, monkeypatch):
    """Our lines and Inkscape's rendering of pycortex's drawing of S1, as pictures of the same size."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    with surfaces.pycortex_of(surfaces.SHIPPED) as cortex:
        drawing = cortex.db.get_overlay("S1")
        theirs = drawing.get_texture("rois", 512, labels=False, linewidth=2)[..., 3] > 0.5
    areas = surfaces.roi_names(surfaces.SHIPPED)
    where, what = _painting.overlay(surfaces.SHIPPED, 512, areas, sulci=False, labels=False, note="")
    ours = np.zeros(theirs.size, bool)
    ours[where] = what[:, 0] > 128  # the white line without its dark rim
    ours = ours.reshape(theirs.shape)
    assert ours.sum() > 3000
    for line, other in ((ours, theirs), (theirs, ours)):
        away = ndimage.distance_transform_edt(~other)[line]
        assert np.percentile(away, 95) <= 1.5 and np.percentile(away, 99) <= 3


def test_no_drawing_is_no_error_and_said(tmp_path):
    with pytest.warns(UserWarning, match=r"none\.svg is missing: the map is drawn without outlines"):
        assert read_outlines(tmp_path / "none.svg") == ()


def test_the_names_of_the_demo_areas_stand_inside_them_and_can_be_read():
    """None covers another by more than a rim, at the size at which a map of six inches writes them."""
    lines = [
        line
        for line in surfaces.surface_outlines(surfaces.SHIPPED)
        if line.layer == "rois" and line.label_at is not None
    ]
    assert len(lines) > 50
    for number, line in enumerate(lines):
        assert line.contains(line.label_at[None]).all(), line.name
        for other in lines[:number]:
            away = np.abs(line.label_at - other.label_at) / (0.05, 0.037)
            assert np.clip(1 - away, 0, 1).prod() < 0.1, (line.name, other.name)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('id="box"><path', 'id="box" transform="TRANSLATE"><path', "a transform of 3,000,000 characters"),
        ('id="box"><path', 'id="box" transform="LETTERS"><path', "a transform of 1,000,000 characters"),
        ("M 50,50", "M DIGITS,50", "a number that is too large"),
        ("M 50,50", "LONG", "a path of 4,000,0.. characters"),
    ],
)
def test_hostile_outlines_are_left_out_in_bounded_time(tmp_path, old, new, says):
    """A billion laughs and a deep tree are refused by the XML parser; these would take minutes, or a recursion."""
    content = {"TRANSLATE": "translate(1,1) " * 200_000, "LETTERS": "a" * 1_000_000, "DIGITS": "5" * 100_000}
    content["LONG"] = "M 50,50 " * 500_000
    for name, text in content.items():
        new = new.replace(name, text)
    assert old in SVG
    (tmp_path / "overlays.svg").write_text(SVG.replace(old, new, 1))
    with (
        pytest.warns(UserWarning, match=rf"the outline of 'box' is left out \({says}"),
        np.errstate(all="ignore"),
    ):
        found, fault = outlines.read_drawing(tmp_path / "overlays.svg")
    names = {outline.name for outline in found}
    assert not fault and "blob" in names and "box" not in names
