import html
import io
import json
import re
import urllib.request
from importlib.machinery import ModuleSpec

import numpy as np
import pytest
from PIL import Image

from encoding_nb import Surface
from encoding_nb._files import CACHE_VARIABLE
from encoding_nb.brain import _pycortex, surfaces, webgl

from ..tiny_subject import make_store


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pycortex")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_pycortex.STORE_VARIABLE, str(make_store(folder / "store")))
        patch.setenv(CACHE_VARIABLE, str(folder / "cache"))
        yield Surface("tiny", "near", "thick")


@pytest.fixture(scope="module")
def viewer(tiny, tmp_path_factory):
    values = np.linspace(0, 1, surfaces.voxel_count(tiny))
    folder = tmp_path_factory.mktemp("web") / "viewer"
    assert webgl.export_webgl(values, tiny, folder, title="Tiny scores", significant=values > 0.5) == folder
    return folder


def test_the_folder_is_a_page_with_its_data(viewer):
    page = (viewer / "index.html").read_text()
    assert "Tiny scores" in page and "inferno" in page
    assert list(viewer.glob("*.ctm")) and list(viewer.glob("*.svg"))
    (described,) = viewer.glob("*.json")
    assert {"rois", "flatlims"} & set(json.loads(described.read_text()))
    (picture,) = (viewer / "data").glob("*.png")
    assert Image.open(picture).size[0] > 10
    assert [path.name for path in viewer.parent.iterdir()] == ["viewer"], "no draft is left behind"


def test_a_folder_in_use_is_not_overwritten_unasked(viewer, tiny):
    values = np.ones(surfaces.voxel_count(tiny))
    with pytest.raises(FileExistsError, match="is not empty; choose another folder, or pass overwrite=True"):
        webgl.export_webgl(values, tiny, viewer)
    (viewer / "old.txt").write_text("old")
    webgl.export_webgl(values, tiny, viewer, overwrite=True, title="Tiny scores")
    assert not (viewer / "old.txt").exists() and (viewer / "index.html").exists()


def test_values_per_vertex(tiny, tmp_path):
    surface = surfaces.vertex_surface("tiny")
    folder = webgl.export_webgl(np.arange(1152.0), surface, tmp_path / "viewer", cmap="viridis")
    assert "viridis" in (folder / "index.html").read_text()


def test_bad_input_is_refused_before_anything_is_written(tiny, tmp_path):
    with pytest.raises(ValueError, match=r"Expected \d+ values, one per voxel"):
        webgl.export_webgl(np.ones(3), tiny, tmp_path / "viewer")
    n = surfaces.voxel_count(tiny)
    with pytest.raises(ValueError, match=r"significant must be flags, .* got float64"):
        webgl.export_webgl(np.ones(n), tiny, tmp_path / "viewer", significant=np.full(n, 0.2))
    values = np.ones(surfaces.voxel_count(tiny))
    with pytest.raises(ValueError, match=r"no colour map 'infern'; try inferno"):
        webgl.export_webgl(values, tiny, tmp_path / "viewer", cmap="infern")
    assert list(tmp_path.iterdir()) == []


def test_served_from_this_machine_alone(viewer):
    served = webgl.serve_folder(viewer)
    try:
        assert served.url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(served.url, timeout=10) as answer:
            assert "Tiny scores" in answer.read().decode()
        name = next((viewer / "data").iterdir()).name
        with urllib.request.urlopen(f"{served.url}data/{name}", timeout=10) as answer:
            Image.open(io.BytesIO(answer.read())).verify()
        assert served.url in served._repr_html_()
    finally:
        served.stop()


def test_an_empty_folder_is_not_served(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no index\.html; make it with export_webgl"):
        webgl.serve_folder(tmp_path)


def test_proxied_address(monkeypatch):
    monkeypatch.setattr(webgl.importlib.util, "find_spec", lambda name: None)
    served = webgl.Served(8123, None)
    assert served.proxied is None
    monkeypatch.setattr(webgl.importlib.util, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    assert served.proxied == "/proxy/8123/"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/someone/")
    assert served.proxied == "/user/someone/proxy/8123/"


@pytest.mark.parametrize(
    "title",
    ["</title></script><script>window.RUN=1</script>", 'r < 0.1 & "best" of it\'s', "a <img src=x> b\\"],
)
def test_a_title_from_data_is_text_and_no_code(tiny, tmp_path, title):
    values = np.linspace(0, 1, surfaces.voxel_count(tiny))
    page = (webgl.export_webgl(values, tiny, tmp_path / "viewer", title=title) / "index.html").read_text()
    shown = re.search(r"<title>(.*?)</title>", page, re.DOTALL)[1]
    assert html.unescape(shown) == title and "<" not in shown
    assert "<script>window.RUN" not in page and "<img src=x" not in page
