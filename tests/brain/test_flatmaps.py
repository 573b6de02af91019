import io
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from threadpoolctl import threadpool_limits

from encoding_nb import Surface
from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.brain import _painting, _pycortex, flatmaps, surfaces

from ..tiny_subject import SHAPES, make_store

DEMO = surfaces.SHIPPED
# the demo's outlines and voxels, by which a change of the shipped files shows
AREAS = {"AC": 812, "Broca": 86, "sPMv": 88}


@pytest.fixture(scope="module")
def own_store(tmp_path_factory):
    """A store of a small subject, and caches in a temporary folder, for this module."""
    folder = tmp_path_factory.mktemp("pycortex")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_pycortex.STORE_VARIABLE, str(make_store(folder / "store")))
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        yield


@pytest.fixture
def tiny(own_store):
    """The small subject, in the store that pycortex uses now."""
    _pycortex.open_store("tiny")
    return Surface("tiny", "near", "thick")


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=surfaces.voxel_count(DEMO))


# --- the same numbers as pycortex ---


def flat_array(values, surface, height=512):
    """The map before it is coloured: (height, width), NaN outside the cortex and where no voxel has a value."""
    mapper = surfaces.flat_mapper(surface, height=height)
    image = np.full(mapper.pixels.shape, np.nan)
    image[mapper.pixels] = mapper.project(values)
    return image


def pycortex_image(values, surface, height):
    import cortex

    _pycortex.open_store(surface.subject)
    volume = cortex.Volume(
        values, surface.subject, surface.transform, mask=np.array(surfaces.surface_mask(surface))
    )
    with threadpool_limits(1):  # its many small systems are slow with more
        return cortex.quickflat.utils.make_flatmap_image(volume, height=height)


@pytest.mark.parametrize("transform", SHAPES)
@pytest.mark.parametrize("mask", ["thick", "thin"])
def test_map_equals_pycortex(tiny, transform, mask):
    surface = Surface("tiny", transform, mask)
    values = np.random.default_rng(0).normal(size=surfaces.voxel_count(surface))
    values[::7] = np.nan
    expected, extent = pycortex_image(values, surface, 90)
    np.testing.assert_allclose(flat_array(values, surface, height=90), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(surfaces.flat_mapper(surface, height=90).extent, extent)


def test_shipped_map_equals_pycortex(tiny, values):
    """What comes with the package against what pycortex computes from S1 now."""
    expected, extent = pycortex_image(values, DEMO, 512)
    image = flat_array(values, DEMO)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6 * np.ptp(values))
    np.testing.assert_allclose(surfaces.flat_mapper(DEMO).extent, extent)


# pycortex makes these mappers anew, about 20 s in all
@pytest.mark.parametrize(
    "surface, height",
    [(Surface("S1", "retinotopy", "thin"), 512), (surfaces.vertex_surface("S1"), 512), (DEMO, 1024)],
)
def test_map_of_a_real_cortex_equals_pycortex(tiny, surface, height):
    values = np.random.default_rng(0).normal(size=surfaces.voxel_count(surface))
    if surface.mask == surfaces.VERTICES:
        import cortex

        _pycortex.open_store("S1")
        vertices = cortex.Vertex(values, "S1")
        expected, _ = cortex.quickflat.utils.make_flatmap_image(vertices, height=height)
    else:
        expected, _ = pycortex_image(values, surface, height)
    image = flat_array(values, surface, height=height)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-6 * np.ptp(values))


@pytest.mark.parametrize("height", [90, 91])
def test_map_of_vertices_equals_pycortex(tiny, height):
    import cortex

    surface = surfaces.vertex_surface("tiny")
    values = np.random.default_rng(0).normal(size=surfaces.voxel_count(surface))
    values[::5] = np.nan
    _pycortex.open_store("tiny")
    vertices = cortex.Vertex(values, "tiny")
    expected, extent = cortex.quickflat.utils.make_flatmap_image(vertices, height=height)
    np.testing.assert_array_equal(flat_array(values, surface, height=height), expected)
    np.testing.assert_allclose(surfaces.flat_mapper(surface, height=height).extent, extent)


@pytest.mark.filterwarnings("ignore")  # pycortex gives one for each name without a shape
def test_areas_of_vertices_are_those_of_pycortex(tiny):
    import cortex

    surface = surfaces.vertex_surface("tiny")
    ours, theirs = surfaces.roi_masks(surface), cortex.utils.get_roi_verts("tiny", mask=True)
    assert set(ours) == {name for name, mask in theirs.items() if mask.any()} == {"box", "blob"}
    for name in ours:
        assert (ours[name] == theirs[name]).mean() > 0.99 and ours[name].any(), name


def test_values_per_vertex_have_no_volume_mask(tiny):
    with pytest.raises(ValueError, match="per vertex and have no volume mask"):
        surfaces.surface_mask(surfaces.vertex_surface("tiny"))
    with pytest.raises(ValueError, match=r"Expected 1152 values, one per vertex of tiny, got 3 values"):
        flatmaps.flat_image(np.ones(3), surfaces.vertex_surface("tiny"))


def test_a_surface_may_name_its_own_store(tmp_path, monkeypatch):
    """As LeBel's subjects do, whose `pycortex-db` comes with the data and stays as it is."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    own = make_store(tmp_path / "pycortex-db", subject="UTS09")
    before = sorted(path.relative_to(own) for path in own.rglob("*"))
    surface = Surface("UTS09", "far", "thin", store=str(own))
    values = np.random.default_rng(0).normal(size=surfaces.voxel_count(surface))
    assert np.isfinite(flat_array(values, surface, height=90)).any()
    assert set(surfaces.roi_masks(surface, height=90)) == {"box", "blob"}
    vertices = surfaces.vertex_surface("UTS09", store=str(own))
    assert surfaces.voxel_count(vertices) == 1152
    assert sorted(path.relative_to(own) for path in own.rglob("*")) == before, "nothing is written there"
    with pytest.raises(ValueError, match=r"'UTS10'; known subjects: UTS09 \(searched .*pycortex-db\)"):
        surfaces.surface_mask(Surface("UTS10", "far", "thin", store=str(own)))


def test_lookup_names_the_voxel_under_each_pixel(tiny):
    mapper = surfaces.flat_mapper(tiny, height=90)
    lookup, places = mapper.lookup, mapper.voxel_places
    shares = mapper.weights.toarray()
    inside = lookup[mapper.pixels]
    assert (lookup[~mapper.pixels] == -1).all()
    filled = shares.max(axis=1) > 0
    assert (inside[~filled] == -1).all()
    chosen = shares[np.flatnonzero(filled), inside[filled]]
    np.testing.assert_array_equal(chosen, shares.max(axis=1)[filled])
    for voxel, (row, column) in enumerate(places):
        shown = shares[:, voxel].any()
        assert (row >= 0) == shown
        if shown:
            assert shares[np.flatnonzero(mapper.places == row * lookup.shape[1] + column)[0], voxel] > 0
            assert lookup[row, column] == voxel or voxel not in inside


def test_curvature_equals_pycortex(tiny):
    import cortex

    expected, _ = cortex.quickflat.utils.make_flatmap_image(cortex.db.get_surfinfo("tiny"), height=90)
    mapper = surfaces.flat_mapper(tiny, height=90)
    np.testing.assert_array_equal(mapper.curvature, expected[mapper.pixels] > 0)


def test_areas_lie_where_pycortex_draws_them(tiny):
    """Against pycortex's own list of the vertices inside each area, counted voxel by voxel."""
    import cortex

    assert_areas_agree(cortex, tiny, ["box", "blob"], 0.8)


def test_demo_areas_lie_where_pycortex_draws_them(tiny):
    import cortex

    _pycortex.open_store("S1")
    assert_areas_agree(cortex, DEMO, ["AC", "V1", "EBA", "IPS", "S1H"], 0.8)


def assert_areas_agree(cortex, surface, names, overlap):
    """Dice overlap of our voxels with those most of whose vertices pycortex finds inside the area."""
    mask = surfaces.surface_mask(surface)
    number = np.full(mask.shape, -1)
    number[mask] = np.arange(mask.sum())
    points, _ = cortex.db.get_surf(surface.subject, "fiducial", merge=True)
    xyz = np.rint(cortex.db.get_xfm(surface.subject, surface.transform)(points)).astype(int)
    voxel = number[tuple(np.clip(xyz[:, ::-1], 0, np.array(mask.shape) - 1).T)]
    _, faces = cortex.db.get_surf(surface.subject, "flat", merge=True)
    drawn = np.isin(np.arange(len(points)), faces) & (voxel >= 0)
    svg = cortex.db.get_overlay(surface.subject)
    in_all = np.bincount(voxel[drawn], minlength=mask.sum())
    for name, ours in surfaces.roi_masks(surface).items():
        if name in names:
            inside = np.isin(np.arange(len(points)), svg.rois.get_mask(name)) & drawn
            theirs = np.bincount(voxel[inside], minlength=mask.sum()) > in_all / 2
            seen = in_all > 0
            dice = 2 * (ours & theirs & seen).sum() / ((ours & seen).sum() + (theirs & seen).sum())
            assert dice > overlap, (name, dice)


# --- the demo's surface ---


def test_demo_surface_holds_a_workable_number_of_voxels():
    assert 15_000 <= surfaces.voxel_count(DEMO) <= 25_000
    assert surfaces.surface_mask(DEMO).shape == (31, 100, 100)


def test_demo_surface_covers_the_cortex():
    for height in (512, 1024):
        assert (
            np.isfinite(
                surfaces.flat_mapper(DEMO, height=height).project(np.ones(surfaces.voxel_count(DEMO)))
            ).mean()
            > 0.99
        )


def test_demo_areas():
    masks = surfaces.roi_masks(DEMO)
    assert {name: int(masks[name].sum()) for name in AREAS} == AREAS
    assert np.sum([masks[name] for name in AREAS], axis=0).max() == 1, "no voxel lies in two of them"
    assert min(mask.sum() for mask in masks.values()) > 0


def test_demo_areas_agree_between_heights():
    coarse, fine = surfaces.roi_masks(DEMO), surfaces.roi_masks(DEMO, height=1024)
    for name in AREAS:
        assert (coarse[name] & fine[name]).sum() > 0.9 * (coarse[name] | fine[name]).sum(), name


def test_demo_map_needs_no_pycortex_and_no_pyplot(tmp_path):
    code = (
        "import sys, numpy as np; from encoding_nb import brain; from encoding_nb.brain import surfaces as s; "
        "values = np.arange(brain.voxel_count(s.SHIPPED)); brain.png(brain.flat_image(values, s.SHIPPED)); "
        "brain.flatmap(values, s.SHIPPED).savefig(sys.argv[1]); "
        "print(sorted({'cortex', 'matplotlib.pyplot', 'torch', 'nibabel'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "MPLBACKEND": "agg"}
    command = [sys.executable, "-c", code, str(tmp_path / "map.png")]
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == "[]"
    assert (tmp_path / "map.png").stat().st_size > 10_000


# --- colours ---


def plain(values, surface=DEMO, **options):
    return flatmaps.flat_image(values, surface, with_rois=False, **options)


def test_colours_are_those_of_the_colour_map(values):
    image = plain(values, cmap="viridis", vmin=-2, vmax=2)
    flat = flat_array(values, DEMO)
    shown = np.isfinite(flat)
    expected = matplotlib.colormaps["viridis"]((flat[shown] + 2) / 4, bytes=True).astype(int)
    assert np.abs(image[shown].astype(int) - expected).max() <= 2
    pixels = surfaces.flat_mapper(DEMO).pixels
    assert (image[~pixels] == 0).all() and (image[pixels, 3] == 255).all()


def test_limits():
    values = np.linspace(-0.5, 1, 1001)
    assert _painting.value_limits(values, cmap="inferno", vmin=None, vmax=None) == pytest.approx((0, 0.9925))
    assert _painting.value_limits(values, cmap="RdBu_r", vmin=None, vmax=None) == pytest.approx(
        (-0.9925, 0.9925)
    )
    assert _painting.value_limits(-values - 2, cmap="inferno", vmin=None, vmax=-1)[1] == -1
    assert _painting.value_limits(values, cmap="inferno", vmin=2, vmax=None) == (2, 3)
    with pytest.raises(ValueError, match="vmin below vmax, got 1 and 0"):
        _painting.value_limits(values, cmap="inferno", vmin=1, vmax=0)


def test_voxels_without_a_value_show_the_curvature(values):
    values[:] = np.nan
    values[:2] = 1, 2  # fewer would be said on the map
    mapper = surfaces.flat_mapper(DEMO)
    unknown = ~np.isfinite(mapper.project(values))
    image, level = plain(values)[mapper.pixels], plain(values, with_curvature=False)[mapper.pixels]
    assert set(map(tuple, image[unknown & mapper.curvature])) == {(160, 160, 160, 255)}
    assert set(map(tuple, image[unknown & ~mapper.curvature])) == {(96, 96, 96, 255)}
    assert set(map(tuple, level[unknown])) == {(128, 128, 128, 255)}


@pytest.mark.parametrize("style", ["fade", "hatch", "hide"])
def test_what_is_not_significant_is_shown_differently(values, style):
    significant = np.zeros(len(values), bool)
    significant[surfaces.roi_masks(DEMO)["AC"]] = True
    share = surfaces.flat_mapper(DEMO).project(significant.astype(float))
    pixels = surfaces.flat_mapper(DEMO).pixels
    everything = plain(values)[pixels]
    shown = plain(values, significant=significant, nonsignificant=style)[pixels]
    assert (shown[share == 1] == everything[share == 1]).all()
    changed = (shown[share == 0] != everything[share == 0]).any(axis=1).mean()
    assert changed > (0.4 if style == "hatch" else 0.95)


def test_png_is_the_image(values):
    image = flatmaps.flat_image(values, DEMO)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(_painting.png(image)))), image)
    assert image.shape == (*surfaces.flat_mapper(DEMO).pixels.shape, 4)


def test_threads_draw_the_same_map(tiny, values):
    _painting.overlay.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        pictures = list(pool.map(lambda _: flatmaps.flat_image(values, DEMO).tobytes(), range(8)))
    assert len(set(pictures)) == 1


# --- outlines on the map ---


def test_outlines_are_drawn_where_the_areas_are(values):
    bare, outlined = plain(values), flatmaps.flat_image(values, DEMO, with_rois=["AC"], with_labels=False)
    drawn = (bare != outlined).any(axis=-1)
    mapper = surfaces.flat_mapper(DEMO)
    area = np.zeros(drawn.shape, bool)
    area[mapper.pixels] = mapper.project(surfaces.roi_masks(DEMO)["AC"].astype(float)) > 0.5
    area = ndimage.binary_opening(area, iterations=4)  # some voxels show across a sulcus, too
    border = ndimage.binary_dilation(area, iterations=6) & ~ndimage.binary_erosion(area, iterations=6)
    assert drawn.sum() > 1000 and border[drawn].mean() > 0.9


def test_areas_can_be_chosen(values):
    some = flatmaps.flat_image(values, DEMO, with_rois=("AC", "Broca"))
    every = flatmaps.flat_image(values, DEMO)
    none = plain(values)
    assert (some != none).any() and (some != every).any()
    assert (flatmaps.flat_image(values, DEMO, with_rois=False, with_sulci=True) != none).any()


@pytest.mark.parametrize("content, said", [("<svg", "cannot be read"), (None, "is missing")])
def test_without_a_drawing_there_is_a_map_without_outlines_that_says_so(
    tiny, tmp_path, monkeypatch, content, said
):
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(make_store(tmp_path / "store")))
    drawing = tmp_path / "store" / "tiny" / "overlays.svg"
    drawing.unlink() if content is None else drawing.write_text(content)
    values = np.linspace(0, 1, surfaces.voxel_count(tiny))
    with pytest.warns(UserWarning, match="drawn without outlines"):
        image = flatmaps.flat_image(values, tiny, height=90, with_sulci=True)
    bare = flatmaps.flat_image(values, tiny, height=90, with_rois=False)
    rows = np.flatnonzero((image != bare).any(axis=(1, 2)))
    assert len(rows) and rows.min() > 60, "the note stands at the lower edge, and nothing else is drawn"
    labels = np.arange(len(values)) % 2
    for figure in (
        flatmaps.flatmap(values, tiny, height=90),
        flatmaps.flatmap_pair(values, values, tiny, height=90),
        flatmaps.flatmap_categories(labels, tiny, names=["a", "b"], height=90),
    ):
        written = " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
        assert f"no outlines: overlays.svg {said}" in " ".join(written.split())
    quiet = flatmaps.flatmap(values, tiny, height=90, with_rois=False)
    assert not any("no outlines" in text.get_text() for text in quiet.findobj(matplotlib.text.Text))


# --- figures ---


def test_figure_has_title_units_and_uncut_text(values):
    figure = flatmaps.flatmap(values, DEMO, title="Correlation of layer 4", units="correlation (r)",
                           significant=values > 1, with_sulci=True)  # fmt: skip
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    written = "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    for word in (
        "Correlation of layer 4",
        "correlation (r)",
        "faded: not significant",
        "AC",
        "left hemisphere",
    ):
        assert word in written
    drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width and drawn.y1 <= height


def test_figure_draws_on_given_axes(values):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert flatmaps.flatmap(values, DEMO, ax=left, with_colorbar=False) is figure
    assert left.images and not right.images


@pytest.mark.parametrize(
    "value, said",
    [(np.nan, "none of the 21229 voxels has a finite value"), (0.5, "have the same value, 0.5")],
)
def test_maps_with_nothing_to_see_are_drawn_and_said(values, value, said):
    constant = np.full(len(values), value)
    assert said in _painting.map_note(constant)
    figure = flatmaps.flatmap(constant, DEMO)
    assert any(said in text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert (flatmaps.flat_image(constant, DEMO, with_rois=False) != plain(values)).any()


def test_ordinary_maps_need_no_note(values):
    assert _painting.map_note(values) == ""


# --- bad input ---


@pytest.mark.parametrize("draw", [flatmaps.flat_image, flatmaps.flatmap])
def test_wrong_number_of_values(values, draw):
    message = r"Expected 21229 values, one per voxel of mask 'demo' of S1/fullhead, got 21228 values; pass"
    with pytest.raises(ValueError, match=message):
        draw(values[1:], DEMO)


def test_wrong_shape_of_values(values):
    with pytest.raises(ValueError, match=r"got values of shape \(1, 21229\)"):
        flatmaps.flat_image(values[None], DEMO)
    with pytest.raises(ValueError, match="got 3 significance flags"):
        flatmaps.flat_image(values, DEMO, significant=np.ones(3, bool))


@pytest.mark.parametrize("draw", [flatmaps.flat_image, flatmaps.flatmap])
@pytest.mark.parametrize("nothing", [np.ones, lambda n: np.full(n, 2)])
def test_pvalues_are_no_flags(values, draw, nothing):
    message = (
        r"significant must be flags, True or False for each voxel, got .*pass a run's result.significant"
    )
    with pytest.raises(ValueError, match=message):
        draw(values, DEMO, significant=nothing(len(values)))


def test_ones_and_noughts_are_flags(values):
    found = values > 0.5
    assert (plain(values, significant=found.astype(np.uint8)) == plain(values, significant=found)).all()


@pytest.mark.parametrize(
    "draw",
    [
        lambda surface: flatmaps.flatmap(np.ones(3), surface),
        surfaces.flat_mapper,
        surfaces.surface_mask,
        surfaces.roi_masks,
        surfaces.roi_names,
    ],
)
def test_what_is_no_surface(draw):
    for given, said in ((None, "None"), ("S1", "'S1'"), (3, "3"), (np.ones, "a function")):
        with pytest.raises(TypeError, match=rf"Expected a Surface, got {said}; pass assembly.surface"):
            draw(given)


def test_unknown_names_list_the_known_ones(tiny, values):
    with pytest.raises(ValueError, match=r"No area 'Brocca' is drawn for S1; drawn are S1H, .*Broca"):
        flatmaps.flat_image(values, DEMO, with_rois=["Brocca"])
    with pytest.raises(ValueError, match=r"no colour map 'virids'.*viridis"):
        flatmaps.flat_image(values, DEMO, cmap="virids")
    with pytest.raises(ValueError, match=r"nonsignificant .* fade, hatch, hide; got 'blink'"):
        flatmaps.flat_image(values, DEMO, significant=values > 0, nonsignificant="blink")
    with pytest.raises(ValueError, match=r"nonsignificant .* fade, hatch, hide; got 'foo'"):
        flatmaps.flatmap(values, DEMO, nonsignificant="foo")
    with pytest.raises(ValueError, match=r"subject 'S9'; known subjects: .*S1"):
        surfaces.surface_mask(Surface("S9", "fullhead", "thin"))
    with pytest.raises(ValueError, match=r"no transform 'half'; choose from far, near"):
        surfaces.surface_mask(Surface("tiny", "half", "thin"))
    with pytest.raises(ValueError, match=r"no mask 'fat'; choose from .*thick, thin"):
        surfaces.surface_mask(Surface("tiny", "near", "fat"))
    for height in (4, "512", 512.5):
        with pytest.raises(ValueError, match=rf"height \(pixels\) .* 16 or more, got {height!r}"):
            flatmaps.flatmap(values, DEMO, height=height)


# --- files ---


def test_mapper_comes_back_from_its_file(tiny, tmp_path):
    mapper = surfaces.flat_mapper(tiny, height=90)
    surfaces.write_mapper(tmp_path / "mapper.npz", mapper)
    back = surfaces.read_mapper(tmp_path / "mapper.npz")
    assert abs(back.weights - mapper.weights).max() == 0 and back.extent == mapper.extent
    np.testing.assert_array_equal(back.pixels, mapper.pixels)
    np.testing.assert_array_equal(back.curvature, mapper.curvature)


def test_mapper_is_kept_in_the_cache_folder(tiny, monkeypatch):
    surfaces._mapper.cache_clear()  # of another test's store, perhaps
    surfaces.flat_mapper(tiny, height=90)
    surfaces._mapper.cache_clear()
    monkeypatch.setattr(surfaces, "mapper_of_pycortex", lambda *_: pytest.fail("asked pycortex again"))
    surfaces.flat_mapper(tiny, height=90)


def test_kept_mapper_is_not_used_for_another_mask(tiny):
    mask = surfaces.surface_mask(tiny)
    other = mask.copy()
    other[tuple(np.argwhere(mask)[0])] = False
    assert surfaces._key(tiny, other) != surfaces._key(tiny, mask)


def test_the_key_of_a_kept_mapper_follows_the_files_of_one_store(tiny, tmp_path, monkeypatch):
    """Another store's files are of another time: that alone changes the key."""
    mask, folder = surfaces.surface_mask(tiny), tmp_path / "store" / "tiny"
    monkeypatch.setenv(_pycortex.STORE_VARIABLE, str(make_store(tmp_path / "store")))
    keys = [surfaces._key(tiny, mask)]
    assert surfaces._key(tiny, mask) == keys[0]
    for file in (folder / "transforms" / "near" / "matrices.xfm", min((folder / "surfaces").iterdir())):
        file.write_bytes(file.read_bytes() + b" ")
        keys.append(surfaces._key(tiny, mask))
    assert len(set(keys)) == 3
