"""The package's own file: everything comes back, lazily, and a damaged file is one sentence."""

import warnings
from pathlib import Path
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
    with pytest.raises(ValueError, match=r"s\.h5: no story c; it has b, a, slash/test"):
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
    with pytest.warns(UserWarning, match="The surface of S9 is no longer at"):
        assert load_assembly(path).surface == Surface("S9", "t", "thick")


def test_a_broken_off_write_leaves_nothing_behind(tmp_path, assembly):
    class Breaks(LazyArray):
        pass

    def read(key):
        raise RuntimeError("the disk went away")

    story = Story("a", assembly.stories["a"].words, 2.0 * np.arange(7), Breaks((7, 6), np.float32, read))
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
    with pytest.raises(TypeError, match="save_assembly: expected a path"):
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
    with pytest.raises(ValueError, match="got another HDF5 file; to open a story of ds003020, pass the data"):
        load_assembly(path)
    for content in (b"", b"hello", b"{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"s\.h5: cannot be read as HDF5 .* not a file of save_assembly"):
            load_assembly(path)
    content = save_assembly(assembly, path).read_bytes()
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 3
    with pytest.raises(ValueError, match="version 2, got version 3; update encoding_nb"):
        load_assembly(path)
    path.write_bytes(content[:-10])
    with pytest.raises(ValueError, match="it is damaged or not a file of save_assembly"):
        load_assembly(path)


def test_files_of_version_1_are_still_read():
    """A file that was saved before the format had version 2, with its checksum in HDF5's user block."""
    found = load_assembly(Path(__file__).with_name("assembly_version_1.h5"))
    b, test = found.stories["b"], found.stories["t"]
    assert (found.subject, found.tr, found.test_stories) == ("S", 2.0, ("t",)) and found.truth["seed"] == 3
    assert b.words.text == ("one", "two é") and b.contexts == {"fullcontext": ("one", "one two é")}
    np.testing.assert_array_equal(b.bold[:], np.arange(15).reshape(5, 3))
    np.testing.assert_array_equal(b.words.onsets, [0.5, 1.5])
    np.testing.assert_array_equal(b.tr_times, np.arange(7) * 2.0 - 4)
    np.testing.assert_array_equal(b.extras["word_rates"], np.ones((7, 1)))
    np.testing.assert_array_equal(test.repeats[:], np.arange(24).reshape(2, 4, 3))
    np.testing.assert_array_equal(found.rois["AC"], [True, False, True])


def test_arrays_of_every_shape_come_back(tmp_path, assembly):
    extras = {"number": np.array(2.5), "empty": np.zeros((0, 3)), "large": np.arange(300_000).reshape(3, -1)}
    story = make_story("a", 7, extras=extras)
    found = load_assembly(save_assembly(Assembly("S", 2.0, {"a": story}), tmp_path / "s.h5")).stories["a"]
    for name, values in extras.items():
        np.testing.assert_array_equal(found.extras[name], values)
        assert np.shape(found.extras[name]) == values.shape


def test_a_file_that_was_replaced_after_it_was_opened(tmp_path, assembly):
    path = save_assembly(assembly, tmp_path / "s.h5")
    bold = load_assembly(path).stories["b"].bold
    save_assembly(load_assembly(path, stories=["a"]), path)
    with pytest.raises(ValueError, match=r"s\.h5: the file changed after it was opened; call load_assembly"):
        bold[:]


@pytest.mark.parametrize("name", ["arrays/0", "bold/0/bold"])
@pytest.mark.parametrize("forgery", ["external", "virtual", "linked", "empty"])
def test_values_that_are_not_in_the_file_are_refused(tmp_path, assembly, name, forgery):
    """A file that somebody built can point HDF5 to other files, or announce more values than it has."""
    path, other = save_assembly(assembly, tmp_path / "s.h5"), tmp_path / "other"
    with h5py.File(path, "r+") as file:
        shape = file[name].shape
        del file[name]
        if forgery == "external":
            other.write_bytes(b"private" * 1000)
            file.create_dataset(name, shape, "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])
        elif forgery == "empty":
            file.create_dataset(name, (2**31, *shape[1:]), "f4", chunks=(1024, *shape[1:]))
        else:
            with h5py.File(other, "w") as elsewhere:
                elsewhere["x"] = np.zeros(shape, "f4")
            if forgery == "linked":
                file[name] = h5py.ExternalLink(str(other), "x")
            else:
                layout = h5py.VirtualLayout(shape, "f4")
                layout[...] = h5py.VirtualSource(str(other), "x", shape)
                file.create_virtual_dataset(name, layout)
    with pytest.raises(ValueError, match=f"the values of {name} are not in the file"):
        load_assembly(path)


def everything(assembly):
    """All that an assembly has, to compare."""
    surface = assembly.surface
    found = [assembly.subject, assembly.tr, assembly.test_stories, surface, assembly.voxel_names]
    for story in assembly.stories.values():
        arrays = (story.words.onsets, story.words.offsets, story.tr_times, story.bold, story.repeats)
        found += [None if values is None else np.asarray(values).tobytes() for values in arrays]
        found += [story.name, story.words.text, story.contexts, repr(story.extras)]
    return [*found, repr(assembly.rois), repr(assembly.truth)]


def test_one_changed_byte_is_refused_or_changes_nothing(tmp_path, assembly):
    """Every 7th byte here; all of them, twice, when the format was chosen. Texts of variable length would hang."""
    path = save_assembly(assembly, tmp_path / "s.h5")
    content, expected, refused = path.read_bytes(), everything(load_assembly(path)), 0
    with no_hang():
        for at in range(0, len(content), 7):
            copy = bytearray(content)
            copy[at] ^= 0xFF
            path.write_bytes(copy)
            try:
                assert everything(load_assembly(path)) == expected, f"byte {at}"
            except ValueError as error:
                assert "s.h5" in str(error)
                refused += 1
    assert refused > 100


def test_damaged_copies_load_or_are_refused_in_a_sentence(tmp_path, assembly):
    content = save_assembly(assembly, tmp_path / "s.h5").read_bytes()
    expected = everything(load_assembly(tmp_path / "s.h5"))
    path, refused, n_copies = tmp_path / "copy.h5", 0, 0
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for copy in damaged_copies(content, seed=2):
            n_copies += 1
            path.write_bytes(copy)
            try:
                assert everything(load_assembly(path)) == expected
            except ValueError as error:
                assert "copy.h5" in str(error)
                refused += 1
    assert 0 < refused <= n_copies
