"""The package's own file: everything comes back, lazily, and a damaged file is one sentence."""

import json
import warnings
from types import MappingProxyType

import h5py
import numpy as np
import pytest

from encoding_nb import Assembly, Story, Surface, Words, load_assembly
from encoding_nb.assembly import LazyArray
from encoding_nb.datasets import convert, save_assembly

from ..fuzz import damaged_copies, no_hang


def make_story(name, n_rows, *, n_voxels=6, **more):
    rng = np.random.default_rng(len(name))
    words = Words([f"{name}-{i}" for i in range(5)], np.arange(5) * 1.5, np.arange(5) * 1.5 + 0.7)
    bold = rng.standard_normal((n_rows, n_voxels)).astype(np.float32)
    return Story(name, words, np.arange(n_rows + 3) * 2.0 - 4, bold, **more)


@pytest.fixture
def assembly():
    rng = np.random.default_rng(0)
    windows = {"fullcontext": [f"text {i} é" for i in range(5)]}
    extras = {"word_rates": np.ones((9, 1)), "audio_path": "a.wav", "n": 3, "deep": {"x": [1, None, "b"]}}
    test = make_story("slash/test", 12, repeats=rng.standard_normal((3, 12, 6)))
    return Assembly(
        subject="S",
        tr=2.0,
        stories={"b": make_story("b", 9, contexts=windows, extras=extras), "a": make_story("a", 7), "slash/test": test},
        test_stories=["slash/test"],
        surface=Surface("S1", "fullhead", "demo"),
        rois={"AC": np.arange(6) < 2},
        voxel_names=[f"v{i}" for i in range(6)],
        truth=MappingProxyType({"areas": {"noise": np.arange(6) > 3}, "seed": np.int64(3)}),
    )  # fmt: skip


def test_everything_comes_back(tmp_path, assembly):
    path = save_assembly(assembly, tmp_path / "folder" / "s.h5")
    found = load_assembly(path)
    for name in ("subject", "tr", "test_stories", "surface", "voxel_names"):
        assert getattr(found, name) == getattr(assembly, name)
    assert tuple(found.stories) == ("b", "a", "slash/test") and found.simulated
    np.testing.assert_array_equal(found.rois["AC"], assembly.rois["AC"])
    np.testing.assert_array_equal(found.truth["areas"]["noise"], np.arange(6) > 3)
    assert found.truth["seed"] == 3
    for name, story in assembly.stories.items():
        other = found.stories[name]
        assert other.words.text == story.words.text
        for field in ("onsets", "offsets"):
            np.testing.assert_array_equal(getattr(other.words, field), getattr(story.words, field))
        np.testing.assert_array_equal(other.tr_times, story.tr_times)
        np.testing.assert_array_equal(other.bold[:], story.bold)
    b, test = found.stories["b"], found.stories["slash/test"]
    assert b.contexts == {"fullcontext": tuple(f"text {i} é" for i in range(5))}
    np.testing.assert_array_equal(b.extras["word_rates"], np.ones((9, 1)))
    assert {name: b.extras[name] for name in ("audio_path", "n", "deep")} == {
        "audio_path": "a.wav",
        "n": 3,
        "deep": {"x": [1, None, "b"]},
    }
    np.testing.assert_array_equal(test.repeats[:], assembly.stories["slash/test"].repeats.astype(np.float32))
    assert list(tmp_path.rglob("*.part")) == []


def test_bold_stays_in_the_file_until_it_is_read(tmp_path, assembly):
    found = load_assembly(save_assembly(assembly, tmp_path / "s.h5"))
    bold, expected = found.stories["b"].bold, assembly.stories["b"].bold
    assert isinstance(bold, LazyArray) and bold.shape == (9, 6) and len(bold) == 9 and bold.ndim == 2
    for key in (
        slice(4, None), slice(-3, None), 2, -1, (slice(None), slice(1, 3)), (3, 4), slice(None, None, -1),
        [1, 5], np.arange(9) > 6, (slice(None), [0, 2]), (..., 1), slice(20, 30),
    ):  # fmt: skip
        np.testing.assert_array_equal(bold[key], expected[key])
    np.testing.assert_array_equal(np.asarray(bold), expected)
    with pytest.raises(IndexError, match="index 9 is out of bounds for axis 0 with 9 entries"):
        bold[9]
    repeats = found.stories["slash/test"].repeats
    np.testing.assert_array_equal(repeats[:, 4:], repeats[:][:, 4:])


def test_some_stories_only(tmp_path, assembly):
    path = save_assembly(assembly, tmp_path / "s.h5")
    found = load_assembly(path, stories=["a", "b"])
    assert tuple(found.stories) == ("b", "a") and found.test_stories == ()
    np.testing.assert_array_equal(found.stories["a"].bold[:], assembly.stories["a"].bold)
    assert tuple(load_assembly(path, stories="slash/test").stories) == ("slash/test",)
    with pytest.raises(ValueError, match=r"No story 'c' in .*s\.h5; it has b, a, slash/test"):
        load_assembly(path, stories=["c"])


def test_converting_is_one_call(tmp_path, assembly):
    first = save_assembly(assembly, tmp_path / "one.h5")
    second = convert(first, tmp_path / "two.h5", stories=["a"])
    np.testing.assert_array_equal(load_assembly(second).stories["a"].bold[:], assembly.stories["a"].bold)


def test_a_surface_that_is_not_there_any_more_is_said(tmp_path, assembly):
    store = tmp_path / "pycortex-db"
    (store / "S9").mkdir(parents=True)
    moved = Assembly("S9", 2.0, {"a": assembly.stories["a"]}, surface=Surface("S9", "t", "thick", str(store)))
    path = save_assembly(moved, tmp_path / "s.h5")
    assert load_assembly(path).surface == moved.surface
    (store / "S9").rmdir()
    with pytest.warns(UserWarning, match="The surface of S9 is not at"):
        assert load_assembly(path).surface == Surface("S9", "t", "thick")


def test_a_broken_off_write_leaves_nothing_behind(tmp_path, assembly):
    class Breaks(LazyArray):
        pass

    def read(key):
        raise RuntimeError("the disk went away")

    story = Story("a", assembly.stories["a"].words, np.arange(7.0), Breaks((7, 6), np.float32, read))
    path = tmp_path / "s.h5"
    save_assembly(assembly, path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="the disk went away"):
        save_assembly(Assembly("S", 2.0, {"a": story}), path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_a_home_is_expanded_as_when_opening(tmp_path, assembly, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert save_assembly(assembly, "~/m.h5") == tmp_path / "m.h5"
    assert load_assembly("~/m.h5").subject == assembly.subject and not (tmp_path / "~").exists()


def test_what_cannot_be_saved(tmp_path, assembly):
    with pytest.raises(TypeError, match="save_assembly: expected an Assembly, got 'demo'"):
        save_assembly("demo", tmp_path / "s.h5")
    with pytest.raises(TypeError, match="save_assembly: expected a path as a text, got None"):
        save_assembly(assembly, None)
    with pytest.raises(ValueError, match=r"s\.pkl: expected a name that ends in \.h5 or \.hdf5; try s\.h5"):
        save_assembly(assembly, tmp_path / "s.pkl")
    odd = Assembly("S", 2.0, {"a": make_story("a", 7, extras={"when": {1, 2}})})
    with pytest.raises(ValueError, match="a, extras, when: expected arrays, numbers, texts"):
        save_assembly(odd, tmp_path / "s.h5")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path, assembly):
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        file["data"] = np.zeros((3, 2))
    with pytest.raises(
        ValueError, match="got another HDF5 file; a ds003020 story is opened by its data set's"
    ):
        load_assembly(path)
    for content in (b"", b"hello", b"{}", b"[" * 5000):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a file written by save_assembly"):
            load_assembly(path)
    save_assembly(assembly, path)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"version": 1', b'"version": 2', 1))
    with pytest.raises(ValueError, match="format version 2, this package reads 1; update encoding_nb"):
        load_assembly(path)
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="it is cut off or damaged"):
        load_assembly(path)
    damaged = bytearray(content)
    damaged[json.JSONDecoder().raw_decode(content.decode("latin-1"))[0]["head_bytes"] + 20] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="its checksum is wrong; it is damaged"):
        load_assembly(path)


def test_the_head_covers_all_but_blocks_of_bold(tmp_path, assembly):
    content = save_assembly(assembly, tmp_path / "s.h5").read_bytes()
    head, _ = json.JSONDecoder().raw_decode(content.decode("latin-1"))
    inside = np.zeros(len(content), bool)
    for start, size in head["blocks"]:
        inside[start : start + size] = True
    assert len(head["blocks"]) > 1 and inside.any() and len(content) == head["size"]
    rng = np.random.default_rng(0)
    path = tmp_path / "copy.h5"
    for at in rng.choice(np.flatnonzero(~inside[: len(content)]), 60, replace=False):
        copy = bytearray(content)
        copy[at] ^= 0xFF
        path.write_bytes(copy)
        with pytest.raises(ValueError, match=r"copy\.h5"):
            load_assembly(path)
    for at in rng.choice(np.flatnonzero(inside), 20, replace=False):
        copy = bytearray(content)
        copy[at] ^= 0xFF
        path.write_bytes(copy)
        found = load_assembly(path)
        with pytest.raises(ValueError, match=r"cannot be read .*; the file is damaged"):
            for story in found.stories.values():
                np.asarray(story.bold)
                if story.repeats is not None:
                    np.asarray(story.repeats)


def test_damaged_copies_load_or_are_refused_in_a_sentence(tmp_path, assembly):
    content = save_assembly(assembly, tmp_path / "s.h5").read_bytes()
    path, refused, n_copies = tmp_path / "copy.h5", 0, 0
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for copy in damaged_copies(content, seed=2):
            n_copies += 1
            path.write_bytes(copy)
            try:
                for story in load_assembly(path).stories.values():
                    np.testing.assert_array_equal(story.bold[:], assembly.stories[story.name].bold)
            except ValueError as error:
                assert str(error)
                refused += 1
    assert 0 < refused <= n_copies
