"""LITcoder's pickles: every field arrives, nothing of a file runs, and damage is one sentence."""

import os
import pickle
import pickletools
import struct
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoding_nb import Settings, Surface, load_assembly, run
from encoding_nb.assembly import Assembly
from encoding_nb.datasets._pickles import PickleError, Record, read_pickle
from encoding_nb.datasets.litcoder import CLASSES, context_type_of
from encoding_nb.litcoder import LitcoderAssembly

from ..fuzz import N_COPIES, damaged_copies, no_hang

GOLDEN = Path(__file__).parents[1] / "golden"
PICKLE = GOLDEN / "assembly_lebel_fullcontext.pkl"
ASSEMBLY, STORY = CLASSES
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")


@pytest.fixture(scope="module")
def stimuli():
    with np.load(GOLDEN / "stimuli.npz") as file:
        return dict(file)


@pytest.fixture
def classes():
    """LITcoder's two classes under its own names, for as long as a test pickles instances of them."""
    made, added = [], {}
    for module, name in (ASSEMBLY, STORY):
        parts = module.split(".")
        for i in range(1, len(parts) + 1):
            added[".".join(parts[:i])] = types.ModuleType(".".join(parts[:i]))
        kind = type(name, (), {"__module__": module})
        setattr(added[module], name, kind)
        made.append(kind)
    before = {name: sys.modules.get(name) for name in added}
    sys.modules.update(added)
    yield made
    for name, module in before.items():
        if module is None:
            del sys.modules[name]
        else:
            sys.modules[name] = module


def story_fields(**changes):
    fields = {
        "name": "a",
        "brain_data": np.arange(40.0).reshape(10, 4),
        "stimuli": ["one", "one two", "one two three"],
        "split_indices": [0, 1, 2],
        "tr_times": np.arange(15) * 2.0 - 10,
        "data_times": np.array([0.5, 2.5, 4.0]),
        "temporal_baseline": None,
        "word_rates": np.ones((15, 1)),
        "words": ["one", "two", "three"],
        "mask_indices": np.array([3, 5, 8, 9]),
        "audio_path": "a.wav",
    }
    return {name: value for name, value in (fields | changes).items() if value is not Ellipsis}


def write(path, classes, *, protocol=pickle.HIGHEST_PROTOCOL, names=("a",), top=None, **changes):
    """A pickle as LITcoder writes it; `...` as a value leaves a field out."""
    assembly_class, story_class = classes
    assembly = assembly_class()
    records = {}
    for name in names:
        records[name] = story_class()
        records[name].__dict__.update(story_fields(**changes))
    assembly.__dict__.update({"stories": list(names), "story_data": records, "validation_method": "outer"})
    assembly.__dict__["data"] = np.vstack([np.zeros((10, 4))] * len(names))
    assembly.__dict__["coords"] = {"story_id": {"values": np.repeat(list(names), 3)}}
    assembly.__dict__.update(top or {})
    path.write_bytes(pickle.dumps(assembly, protocol=protocol))
    return path


# ---------------------------------------------------------------------- what arrives


def test_every_field_of_the_golden_pickle_arrives(stimuli):
    assembly = load_assembly(PICKLE, subject="UTS99")
    assert assembly.subject == "UTS99" and assembly.tr == 2.0
    assert tuple(assembly.stories) == STORIES and assembly.test_stories == ("storyz_test",)
    assert assembly.source == str(PICKLE) and dict(assembly.source_options) == {"subject": "UTS99"}
    for name, story in assembly.stories.items():
        assert story.words.text == tuple(stimuli[f"{name}/words"].tolist())
        assert story.contexts["fullcontext"] == tuple(stimuli[f"{name}/stimuli_fullcontext"].tolist())
        for found, key in (
            (story.words.times, "data_times"),
            (story.tr_times, "tr_times"),
            (story.bold[:], "brain_data"),
            (story.extras["split_indices"], "split_indices"),
            (story.extras["word_rates"], "word_rates"),
        ):
            expected = stimuli[f"{name}/{key}"]
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == expected.dtype
        assert story.extras["audio_path"] == f"audio_files/{name}.wav"


def test_some_stories_and_a_surface():
    surface = Surface("UTS99", "UTS99_auto", "thick")
    assembly = load_assembly(PICKLE, stories=["storyd", "storya"], surface=surface)
    assert tuple(assembly.stories) == ("storya", "storyd") and assembly.test_stories == ()
    assert assembly.surface == surface and assembly.subject == PICKLE.stem
    with pytest.raises(ValueError, match=r"no story nowhere; it has storya, storyb"):
        load_assembly(PICKLE, stories=["nowhere"])
    with pytest.raises(
        ValueError, match="take no repeats; they take subject, stories, context_type, surface"
    ):
        load_assembly(PICKLE, repeats=True)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F", "strided", "swapped"])
def test_every_way_in_which_numpy_writes_an_array(tmp_path, classes, protocol, order):
    bold = np.arange(40.0).reshape(10, 4)
    stored = {
        "C": bold,
        "F": np.asfortranarray(bold),
        "strided": np.repeat(bold, 2, axis=1)[:, ::2],
        "swapped": bold.astype(">f8"),
    }[order]
    path = write(tmp_path / "a.pkl", classes, protocol=protocol, brain_data=stored)
    story = load_assembly(path).stories["a"]
    np.testing.assert_array_equal(story.bold[:], bold)
    np.testing.assert_array_equal(story.bold[2:5], bold[2:5])
    np.testing.assert_array_equal(story.bold[::-1, 1], bold[::-1, 1])
    assert story.bold.dtype.isnative
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(story.bold))[2:5], bold[2:5])  # to a worker
    np.testing.assert_array_equal(story.extras["mask_indices"], [3, 5, 8, 9])


def test_both_generations_of_numpy_names(tmp_path, classes):
    content = write(tmp_path / "a.pkl", classes, protocol=5).read_bytes()
    ours, other = (b"numpy._core.numeric", b"numpy.core.numeric")
    if ours not in content:
        ours, other = other, ours
    swapped = content.replace(bytes([len(ours)]) + ours, bytes([len(other)]) + other)
    # the frame's length counts the names: without the frame the instructions stay the same
    assert swapped != content
    (tmp_path / "b.pkl").write_bytes(swapped)
    np.testing.assert_array_equal(
        load_assembly(tmp_path / "b.pkl").stories["a"].bold[:], story_fields()["brain_data"]
    )


def test_numbers_of_numpy_within_lists(tmp_path, classes):
    path = write(tmp_path / "a.pkl", classes, split_indices=[np.int64(0), np.int64(1), np.int64(2)])
    np.testing.assert_array_equal(load_assembly(path).stories["a"].extras["split_indices"], [0, 1, 2])


def test_a_temporal_baseline_arrives(tmp_path, classes):
    baseline = np.arange(20.0).reshape(10, 2)
    assembly = load_assembly(write(tmp_path / "a.pkl", classes, temporal_baseline=baseline))
    np.testing.assert_array_equal(assembly.stories["a"].extras["temporal_baseline"], baseline)
    np.testing.assert_array_equal(LitcoderAssembly(assembly).get_temporal_baseline("a"), baseline)


def test_an_inner_assembly_holds_nothing_out(tmp_path, classes):
    path = write(tmp_path / "a.pkl", classes, top={"validation_method": "inner"})
    assert load_assembly(path).test_stories == ()


def test_the_type_of_stored_windows_is_told_by_how_they_fall(stimuli):
    for context_type in ("fullcontext", "nocontext", "halfcontext"):
        windows = [tuple(stimuli[f"{name}/stimuli_{context_type}"].tolist()) for name in STORIES]
        assert context_type_of(windows) == context_type
        assert {context_type_of([texts]) for texts in windows} == {context_type}
    assert tuple(load_assembly(PICKLE, context_type="nocontext").stories["storya"].contexts) == ("nocontext",)


def test_a_fit_on_the_golden_pickle_trims_as_the_tutorial_does():
    result = run(load_assembly(PICKLE), Settings(modality="wordrate"), progress=False)
    assert result.predictions["storyz_test"].shape == (53, 80)  # the golden run's X_test


# ---------------------------------------------------------------------- what is refused


class Hostile:
    """Pickled as a call that leaves a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_would_run_a_command_is_refused_and_nothing_runs(tmp_path, protocol):
    trace = tmp_path / "ran"
    path = tmp_path / "hostile.pkl"
    path.write_bytes(pickle.dumps(Hostile(trace), protocol=protocol))
    with pytest.raises(
        ValueError,
        match=rf"references {os.system.__module__}.system, which LITcoder .* never contain. Nothing was executed",
    ):
        load_assembly(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())  # the plain unpickler would have run it
    assert trace.exists()


def test_a_command_hidden_in_a_true_assembly_is_refused(tmp_path, classes):
    trace = tmp_path / "ran"
    for where in ({"audio_path": Hostile(trace)}, {"words": ["one", "two", Hostile(trace)]}):
        with pytest.raises(ValueError, match="system, which LITcoder assemblies never contain"):
            load_assembly(write(tmp_path / "a.pkl", classes, **where))
    with pytest.raises(ValueError, match="system, which LITcoder assemblies never contain"):
        load_assembly(write(tmp_path / "a.pkl", classes, top={"coords": Hostile(trace)}))
    assert not trace.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.array([{}], dtype=object),
        np.array([("a", 1)], dtype=[("x", "U1"), ("y", int)]),
        np.array(["2020"], "M8[D]"),
    ],
    ids=["objects", "fields", "dates"],
)
def test_arrays_of_anything_but_numbers_and_texts_are_refused(tmp_path, classes, value):
    with pytest.raises(
        ValueError, match=r"expected arrays of numbers or texts|which LITcoder assemblies never contain"
    ):
        load_assembly(write(tmp_path / "a.pkl", classes, word_rates=value))


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def name(module, attribute):
    return text(module) + text(attribute) + b"\x93"


DTYPE = name("numpy", "dtype") + text("f8") + b"\x85R"
NEST = (
    b"N"
    + b"\x94h\x00h\x00\x86"
    + b"".join(b"\x94h" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(1, 60))
)
ATTACKS = {
    "a key that takes 2^60 steps to hash": b"}" + NEST + b"Ns",
    "a key of a dict in a group": b"}(" + NEST + b"Nu",
    "a key of which many have one hash": b"}\x8a\x08" + struct.pack("<q", 2**61 - 1) + b"Ns",
    "a module named by a nest": NEST + text("dtype") + b"\x93",
    "a name that is a nest": text("numpy") + NEST + b"\x93",
    "a type named by a nest": name("numpy", "dtype") + NEST + b"\x85R",
    "a shape that is a nest": name("numpy.core.numeric", "_frombuffer") + b"(C\x00" + DTYPE + NEST + text("C") + b"tR",
    "2^40 texts of no length": name("numpy.core.numeric", "_frombuffer")
    + b"(C\x00" + name("numpy", "dtype") + text("U0") + b"\x85R\x8a\x06" + struct.pack("<q", 2**40)[:6] + b"\x85"
    + text("C") + b"tR",
    "an array of no numbers, too big for numpy": name("numpy.core.numeric", "_frombuffer")
    + b"(C\x00" + DTYPE + b"K\x00\x8a\x08" + struct.pack("<q", 2**62) + b"\x86" + text("C") + b"tR",
    "bytes that are not there": b"\x96" + struct.pack("<Q", 2**40),
    "more bytes than numbers can say": b"\x96" + b"\xff" * 8,
    "a text that is not there": b"\x8d" + struct.pack("<Q", 2**40),
    "a memo of 64 GB": b"Nr" + struct.pack("<I", 2**32 - 1),  # would fill memory in the C unpickler
    "an array of 2^60 numbers": name("numpy.core.numeric", "_frombuffer")
    + b"(C\x08" + b"\0" * 8 + DTYPE + b"\x8a\x08" + struct.pack("<q", 2**60) + b"\x85" + text("C") + b"tR",
    "an array with a length below 0": name("numpy.core.numeric", "_frombuffer")
    + b"(C\x00" + DTYPE + b"J" + struct.pack("<i", -1) + b"\x85" + text("C") + b"tR",
    "a state for a function": name("numpy.core.numeric", "_frombuffer") + b"}" + text("__code__") + b"Nsb",
    "a state for a class": name("numpy", "dtype") + b"}" + text("x") + b"Nsb",
    "an instance with arguments": name(*STORY) + b"K\x01\x85\x81",
    "an instance of numpy's": name("numpy", "ndarray") + b")\x81",
    "an instance of a function": name("numpy.core.numeric", "_frombuffer") + b")\x81",
    "a state that changes the class": name(*STORY)
    + b")\x81N}" + text("__class__") + name("numpy", "dtype") + b"s\x86b",
    "an array without content": name("numpy.core.multiarray", "_reconstruct") + name("numpy", "ndarray") + b"\x85R",
    "a shape of 8 numbers of 1.5 MB": name("numpy.core.numeric", "_frombuffer")
    + b"(C\x08" + b"\0" * 8 + DTYPE + b"\x8b" + struct.pack("<i", 1_500_000) + b"\x7f" * 1_500_000 + b"\x94"
    + b"(" + b"h\x00" * 8 + b"t" + text("C") + b"tR",
    "a call of a class": name(*STORY) + b")R",
    "a name from numbers": b"K\x01K\x02\x93",
    "a list within itself": b"]\x94h\x00a",
    "lists 100,000 deep": b"]" * 100_000 + b"a" * 99_999,
    "an extension": b"\x82\x01",
    "a persistent name": b"K\x01Q",
    "a group without a beginning": b"NNt",
    "a number of 64 thousand digits": b"\x8b" + struct.pack("<i", 27_000) + b"\x7f" * 27_000,
    "marks without end": b"(" * 200_000 + b"t" * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_on_the_reader_are_one_sentence(tmp_path, attack):
    path = tmp_path / "attack.pkl"
    path.write_bytes(b"\x80\x05" + ATTACKS[attack] + b".")
    with no_hang(), pytest.raises(ValueError, match=r"attack\.pkl"):
        load_assembly(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"words": ...}, r"story 'a': fields missing: words; it has name, brain_data"),
        ({"tr_times": None, "data_times": None}, "fields missing: tr_times, data_times; it has"),
        ({"words": [1, 2, 3]}, "words: expected texts, but entry 0 is 1, a int"),
        ({"stimuli": ["x"]}, "got 3 words, 1 stimuli, 3 data_times"),
        ({"tr_times": "soon"}, "tr_times: expected an array of numbers, got a str"),
        (
            {"brain_data": np.arange(4.0)},
            r"brain_data: expected numbers in \(rows, voxels\), got an array of",
        ),
        ({"data_times": np.array([3.0, 2.0, 1.0])}, "word 1 .* starts before"),
        ({"data_times": np.array([3e3, 4e3, 5e3])}, "3 of 3 words start past the end of the run of story a"),
        ({"tr_times": np.zeros(15)}, "TR 1 is not after TR 0"),
        (
            {"words": ["one", "two", "\ud800"]},
            r"story 'a', words: '.ud800' has half a character",
        ),
        ({"stimuli": ["one", "\udfff", ""]}, "story 'a', stimuli: '.udfff' has half a character"),
        (
            {"tr_times": np.array(2.0)},
            r"story 'a': expected lists of times, got tr_times of shape \(\)",
        ),
        (
            {"data_times": np.zeros((3, 1))},
            r"story 'a': expected lists of times, .* data_times of shape \(3, 1\)",
        ),
    ],
)
def test_fields_that_cannot_be(tmp_path, classes, changes, says):
    with pytest.raises(ValueError, match=says) as error:
        load_assembly(write(tmp_path / "a.pkl", classes, **changes))
    assert "a.pkl" in str(error.value)


def test_a_small_file_that_names_one_long_text_very_often(tmp_path, classes):
    """Work and memory follow the file's size, not what its references would add up to (2 TB here)."""
    long = "word " * 400_000
    path = write(
        tmp_path / "a.pkl",
        classes,
        words=[long] * 1_000_000,
        stimuli=[long] * 1_000_000,
        data_times=np.linspace(0, 10, 1_000_000),
    )
    assert path.stat().st_size < 20e6
    with no_hang():
        assert len(load_assembly(path).stories["a"].words) == 1_000_000


def test_a_file_that_was_replaced_after_it_was_opened(tmp_path, classes):
    path = write(tmp_path / "a.pkl", classes)
    bold = load_assembly(path).stories["a"].bold
    write(path, classes, words=["a longer word", "two", "three"])  # the arrays are in other places now
    with pytest.raises(ValueError, match=r"a\.pkl: the file changed after it was opened; call load_assembly"):
        bold[:]


def test_other_files_and_other_pickles(tmp_path, classes):
    for content, says in (
        (b"", "the file is empty"),
        (b"hello", "expected a whole pickle of plain data, but .* Nothing was executed"),
        (pickle.dumps({"stories": []}), "expected a SimpleNeuroidAssembly, got a dict"),
        (PICKLE.read_bytes()[:-1], "expected a whole pickle of plain data, but EOFError"),
        (PICKLE.read_bytes()[:5000], "bytes should follow byte|EOFError"),
    ):
        path = tmp_path / "other.pkl"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=says):
            load_assembly(path)
    with pytest.raises(ValueError, match="expected a list 'stories' and a record of each"):
        load_assembly(write(tmp_path / "a.pkl", classes, top={"stories": ["b"]}))
    (tmp_path / "pointer.pkl").write_text("/annex/objects/MD5E-s5--d41d8cd98f00b204e9800998ecf8427e.pkl\n")
    with pytest.raises(FileNotFoundError, match="not downloaded"):
        load_assembly(tmp_path / "pointer.pkl")


# ---------------------------------------------------------------------- against pickle itself, and damage

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=plain, protocol=st.integers(3, 5))
def test_plain_data_come_as_pickle_gives_them(tmp_path, value, protocol):
    path = tmp_path / "plain.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickle(path, classes={}) == pickle.loads(path.read_bytes())


def test_a_record_is_inert(tmp_path, classes):
    found = read_pickle(write(tmp_path / "a.pkl", classes), classes=CLASSES)
    assert isinstance(found, Record) and isinstance(vars(found)["story_data"]["a"], Record)
    assert not any(callable(value) for value in vars(found).values())
    with pytest.raises(PickleError, match="SimpleNeuroidAssembly, which LITcoder assemblies never contain"):
        read_pickle(tmp_path / "a.pkl", classes={})


def read_whole(path):
    assembly = load_assembly(path)
    assert isinstance(assembly, Assembly)
    for story in assembly.stories.values():
        assert np.asarray(story.bold).shape == tuple(story.bold.shape)
        assert len(story.words) == len(next(iter(story.contexts.values())))


@pytest.mark.parametrize("of", ["small", "golden"])
def test_damaged_copies_load_or_are_refused_in_a_sentence(tmp_path, classes, of):
    small = write(tmp_path / "small.pkl", classes, names=("a", "b"))
    content = (small if of == "small" else PICKLE).read_bytes()
    path, refused = tmp_path / "copy.pkl", 0
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for copy in damaged_copies(content, seed=1):
            path.write_bytes(copy)
            try:
                read_whole(path)
            except ValueError as error:
                assert str(error) and "\n" not in str(error).strip()
                refused += 1
    assert 0 < refused < N_COPIES


def test_the_golden_pickle_needs_no_other_names():
    names = set()
    strings = []
    for instruction, argument, _ in pickletools.genops(PICKLE.read_bytes()):
        if isinstance(argument, str):
            strings.append(argument)
        if instruction.name == "STACK_GLOBAL":
            names.add(tuple(strings[-2:]))
    assert names == {ASSEMBLY, STORY, ("numpy", "dtype"), ("numpy.core.numeric", "_frombuffer")}


def test_a_missing_word_that_became_text_is_counted(tmp_path, classes):
    """LITcoder turns words into texts, so that a missing one arrives as "nan"."""
    with pytest.warns(UserWarning, match=r"a: 1 of 3 words are 'nan', which tables write for a missing word"):
        load_assembly(write(tmp_path / "a.pkl", classes, words=["one", "nan", "three"]))
    with pytest.raises(
        ValueError, match="words: expected texts, but entry 1 is nan, a float; leave out words"
    ):
        load_assembly(write(tmp_path / "a.pkl", classes, words=["one", float("nan"), "three"]))
