"""What a data set must hold, and what it refuses."""

import pickle
import warnings
from functools import partial

import numpy as np
import pandas
import pytest
import torch

from encoding_nb._validation import as_path
from encoding_nb.assembly import Assembly, LazyArray, Story, Surface, Words, check_words_in_run


def make_words(n=6):
    return Words([f"w{i}" for i in range(n)], np.arange(n) * 1.0, np.arange(n) + 0.5)


def make_story(name="storya", n_voxels=3, n_rows=8, **more):
    return Story(name, make_words(), np.arange(10) * 2.0, np.zeros((n_rows, n_voxels), np.float32), **more)


def test_times_are_the_middle_of_each_word():
    np.testing.assert_array_equal(make_words(3).times, [0.25, 1.25, 2.25])


@pytest.mark.parametrize(
    ("text", "onsets", "offsets", "says"),
    [
        (["a"], [0.0, 1.0], [0.5, 1.5], "1 words, 2 onsets and 2 offsets"),
        (["a", "b"], [0.0, 1.0], [0.5, 0.9], r"word 1 \('b', 1.000 to 0.900 s\) ends before it starts"),
        (["a", "b"], [1.0, 0.0], [1.5, 0.5], "word 1 .* starts before the previous word"),
        (["a"], [np.nan], [0.5], "word 0 .* has only one of its two times"),
        (["a", "b"], [np.nan] * 2, [np.nan] * 2, "none of 2 words has a time"),
        (["a"], [np.inf], [np.inf], "1 of 1 times are not finite"),
        (["a"], ["x"], ["y"], r"Words.onsets: expected times in seconds, got 'x' \(number 0\)"),
        (["a", "b"], [0, 1], [0.5, None], "word 1 .* has only one of its two times"),
        (
            ["a", "b", "c", "d"],
            [0, 20, 0.5, 21],
            [0.4, 21, 0.8, 22],
            "onsets start again at word 2 .* several runs",
        ),
        (
            ["a", "b", "c", "d"],
            [0, 20, 18, 21],
            [0.4, 21, 18.5, 22],
            "word 2 .* starts before .* sort the words",
        ),
        (["a", "b"], [0, [1]], [0.5, 1], r"Words.onsets: expected times in seconds, got \[1\] \(number 1\)"),
        (["a"], [[0.0]], [[0.5]], "one time in seconds per entry"),
        ("a", [0.0], [0.5], "expected a sequence of strings, got one string, 'a'"),
        (
            list("abc"),
            [1, 2, 3],
            [0.4, 0.5, 3.5],
            "word 0 .* ends before it starts; most words do: .* durations",
        ),
        (
            ["a", "b"],
            np.ma.array([0.0, 1.0], mask=[False, True]),
            [0.5, 1.5],
            "word 1 .* only one of its two",
        ),
        ([None], [0.0], [0.5], "expected strings, but word 0 is None"),
    ],
)
def test_words_that_cannot_be(text, onsets, offsets, says):
    with pytest.raises(ValueError, match=says):
        Words(text, onsets, offsets)


def test_words_keep_their_own_times():
    onsets = np.array([0.0, 1.0])
    words = Words(["a", "b"], onsets, onsets + 0.5)
    onsets[0] = 9
    assert words.onsets[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        words.onsets[0] = 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"words": Words([], [], [])}, "storya: the story has no words"),
        ({"tr_times": np.array([0.0, 2.0, 2.0])}, "TR 2 is not after TR 1"),
        ({"bold": np.zeros(8)}, r"BOLD as \(rows, voxels\), got shape \(8,\)"),
        ({"repeats": np.zeros((5, 7, 3))}, r"repeats as \(repeats, 8, 3\).*got \(5, 7, 3\)"),
        ({"repeats": [1, 2]}, r"storya: expected repeats as an array of \(repeats, 8, 3\), got a list"),
        (
            {"repeats": np.zeros((0, 8, 3))},
            r"storya: .* repeats with values, got an empty array of shape \(0, 8, 3\)",
        ),
        ({"bold": [[1]]}, r"storya: expected BOLD as an array of \(rows, voxels\), got a list"),
        (
            {"bold": np.zeros((8, 0))},
            r"storya: expected BOLD with values, got an empty array of shape \(8, 0\)",
        ),
        (
            {"bold": np.zeros((0, 3))},
            r"storya: expected BOLD with values, got an empty array of shape \(0, 3\)",
        ),
        (
            {"bold": np.ma.masked_equal(np.eye(8, 3), 1)},
            "storya: .* masked array with 3 of 24 masked; leave",
        ),
        ({"contexts": 3}, "storya: expected contexts as .*, got 3"),
        ({"extras": 3}, "storya: expected extras as .*, got 3"),
        ({"name": 1}, "Story: expected a name as a string, got 1"),
    ],
)
def test_stories_that_cannot_be(change, says):
    whole = {"name": "storya", "words": make_words(), "tr_times": np.arange(10.0), "bold": np.zeros((8, 3))}
    with pytest.raises(ValueError, match=says):
        Story(**(whole | change))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"stories": {}}, "at least one story"),
        ({"tr": 0}, "TR above 0 s, got 0"),
        ({"tr": "2"}, "TR above 0 s, got '2'"),
        ({"tr": 2000}, "expected a TR in seconds, got 2000. If that is in milliseconds, pass tr=2"),
        ({"test_stories": ["b"]}, "'b' is not one of the stories: a, c"),
        (
            {"test_stories": "a"},
            r"Assembly of S: expected test_stories as a list of names, got 'a'; write \['a'\]",
        ),
        ({"test_stories": None}, "Assembly of S: expected test_stories as a list of names, got None"),
        ({"test_stories": ["a", "c", "a"]}, "Assembly of S: expected each test story once, got 'a' 2 times"),
        ({"voxel_names": "abc"}, "Assembly of S: expected voxel_names as a list of names, got 'abc'"),
        ({"voxel_names": ["a"]}, "Assembly of S: expected one name for each of 3 columns of BOLD, got 1"),
        ({"stories": [make_story("a")]}, "Assembly of S: expected stories as {name: Story}, got "),
        ({"stories": {1: make_story("a")}}, "Assembly of S: expected names of stories as strings, got 1"),
        ({"subject": None}, "Assembly: expected the subject's name as a string, got None"),
        (
            {"surface": "S1"},
            r"Assembly of S: expected surface as Surface\(subject, transform, mask\), got 'S1'",
        ),
        ({"rois": [1]}, r"Assembly of S: expected rois as {name: mask}, got \[1\]"),
        (
            {"rois": {"AC": [1, 2, 3]}},
            r"ROI AC: expected a mask of 3 voxels, .* with other values; from voxel numbers, make one with np.isin",
        ),
        ({"stories": {"a": make_story("a"), "c": make_story("c", n_voxels=4)}}, "c has 4 voxels but a has 3"),
        ({"rois": {"AC": np.zeros(2, bool)}}, "ROI AC: expected a mask of 3 voxels"),
    ],
)
def test_assemblies_that_cannot_be(change, says):
    whole = {"subject": "S", "tr": 2.0, "stories": {"a": make_story("a"), "c": make_story("c")}}
    with pytest.raises(ValueError, match=says):
        Assembly(**(whole | change))


def test_simulated_data_say_so():
    plain = Assembly("S", 2.0, {"a": make_story("a")})
    made = Assembly("S", 2.0, {"a": make_story("a")}, truth={"seed": 1})
    assert not plain.simulated and "simulated" not in repr(plain)
    assert made.simulated and "simulated BOLD of 3 voxels" in repr(made)


def test_the_notebook_table_escapes_names():
    shown = Assembly("S", 2.0, {"<b>": make_story("<b>")}, test_stories=["<b>"])._repr_html_()
    assert "&lt;b&gt;" in shown and "<td><b></td>" not in shown
    assert shown.count("<tr>") == 2


# ---------------------------------------------------------------------- data in memory, and what is read late


def parts(**changes):
    rng = np.random.default_rng(0)
    made = {"words": ["a", "b", "c"], "onsets": [0.0, 1.0, 2.5], "offsets": [0.5, 2.0, 3.0]}
    return made | {"bold": rng.standard_normal((8, 3)).astype(np.float32)} | changes


def test_an_assembly_from_arrays():
    given = {
        "one": parts(),
        "two": {
            "words": make_words(4),
            "bold": np.ones((8, 3)),
            "tr_times": np.arange(9) * 2.0,
            "extras": {"run": 2},
        },
    }
    assembly = Assembly.from_arrays(given, subject="sub-01", tr=2.0, test_stories=["two"], first_tr=1.0)
    one, two = assembly.stories["one"], assembly.stories["two"]
    np.testing.assert_array_equal(one.tr_times, 1.0 + 2.0 * np.arange(8))
    np.testing.assert_array_equal(one.words.times, [0.25, 1.5, 2.75])
    np.testing.assert_array_equal(one.bold, given["one"]["bold"])
    assert two.n_trs == 9 and two.extras["run"] == 2 and assembly.test_stories == ("two",)
    bare = Assembly.from_arrays({"one": parts(offsets=None, bold=[[1, 2], [3, 4]])}, subject="s", tr=2.0)
    np.testing.assert_array_equal(bare.stories["one"].words.times, [0.0, 1.0, 2.5])
    with pytest.raises(TypeError, match="does not support item assignment"):
        two.extras["run"] = 3


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"words": "a b c"}, "one: expected words as a sequence of strings, got 'a b c'"),
        ({"words": ["a", 2, "c"]}, "one: Words: expected strings, but word 1 is 2, a int; leave out rows"),
        ({"words": ["a", None, "c"]}, "one: Words: expected strings, but word 1 is None, a NoneType"),
        ({"words": [float("nan"), "b", "c"]}, "one: Words: expected strings, but word 0 is nan, a float"),
        ({"words": 3}, "one: expected words as a sequence of strings, got '3'"),
        ({"words": ["", " ", ""]}, "one: all of 3 words are blank; check which column"),
        ({"words": Words([" "], [0], [0]), "onsets": None, "offsets": None}, "one: all of 1 words are blank"),
        ({"words": make_words(3)}, "one: onsets and offsets given twice"),
        ({"words": ["nan", "nan", " "]}, "one: all words are 'nan'; check which column"),
        ({"onsets": "soon"}, "one: Words.onsets: expected times in seconds, got 'soon'"),
        ({"onsets": ["a", "b", "c"]}, r"one: Words.onsets: expected times in seconds, got 'a' \(number 0\)"),
        ({"onsets": None}, "one: "),
        ({"onsets": [0.0, 1.0]}, "one: Words: expected as many onsets and offsets as words, got 3 words, 2 onsets"),
        ({"bold": np.zeros(8)}, r"one: expected BOLD as numbers in \(rows, voxels\), got shape \(8,\)"),
        ({"bold": np.array([["x"]])}, "one: expected BOLD as numbers .*, got values of type"),
        ({"colour": "red"}, "one: unknown parts colour; the parts of a story are words, onsets"),
        ({"repeats": np.zeros((2, 7, 3))}, "one: expected repeats as"),
        ({"repeats": [1, 2]}, r"one: expected repeats as numbers in \(repeats, rows, voxels\), got shape \(2,\)"),
        ({"repeats": [[["x"]]]}, r"one: expected repeats as numbers in .*, got values of type"),
        ({"bold": [[1, 2], [3]]}, r"one: expected BOLD that numpy can read, got a list"),
        ({"repeats": np.full((2, 8, 3), [1, np.nan, 1])},
         "one: expected finite repeats, but 8 values of presentation 0 are not finite, in 1 of 3 voxels"),
        ({"tr_times": np.arange(8.0)}, "one: expected tr_times 2 s apart .*, got 1 s"),
        ({"tr_times": 2000 * np.arange(8.0)}, "one: expected tr_times 2 s apart .*, got 2000 s"),
        ({"tr_times": 2 * np.arange(8.0) + 1000},
         r"one: 3 of 3 words end before the run of story one starts at 1000\.0 s, first 'a' at 0\.0 s; check that"),
        ({"contexts": {"fullcontext": ["x"]}}, "one: .* one stored fullcontext window for each of 3 words, got 1"),
        ({"onsets": [1e3, 2e3, 3e3], "offsets": None}, "one: 3 of 3 words start past the end of the run .* in seconds"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be(changes, says):
    with pytest.raises(ValueError, match=says):
        Assembly.from_arrays({"one": parts(**changes)}, subject="s", tr=2.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tr": 2000}, "expected a TR in seconds, got 2000"),
        ({"test_stories": None}, "expected test_stories as a list of names, got None"),
        ({"test_stories": "one"}, r"expected test_stories as a list of names, got 'one'; write \['one'\]"),
        (
            {"roi": {}},
            "unknown arguments roi; besides stories it takes surface, rois, voxel_names, truth",
        ),
        ({"stories": [parts()]}, "expected stories as .*, got a list"),
        ({"stories": {"one": [1, 2]}}, "expected stories as .*, got a mapping of something else"),
        ({"tr": "2"}, "expected a TR above 0 s, got '2'"),
        ({"tr": np.nan}, "expected a TR above 0 s, got nan"),
        ({"first_tr": None}, "expected first_tr in seconds, got None"),
    ],
)
def test_data_sets_that_cannot_be_made(changes, says):
    with pytest.raises(ValueError, match=rf"Assembly of s: {says}"):
        Assembly.from_arrays(**({"stories": {"one": parts()}, "subject": "s", "tr": 2.0} | changes))


def test_words_that_a_table_wrote_for_missing_ones_are_said():
    with pytest.warns(
        UserWarning, match=r"one: 2 of 3 words are 'nan', which tables write for a missing word"
    ):
        Assembly.from_arrays({"one": parts(words=["nan", "so", "NaN"])}, subject="s", tr=2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Assembly.from_arrays({"one": parts(words=["none", "", "c"])}, subject="s", tr=2.0)


def test_parts_that_are_missing_and_words_that_are_late():
    with pytest.raises(ValueError, match="one: no words and no bold; the parts of a story are"):
        Assembly.from_arrays({"one": {}}, subject="s", tr=2.0)
    with pytest.raises(ValueError, match="one: expected onsets with the words"):
        Assembly.from_arrays({"one": {"words": ["a"], "bold": np.zeros((3, 2))}}, subject="s", tr=2.0)
    with pytest.raises(ValueError, match="TR above 0 s"):
        Assembly.from_arrays({"one": parts()}, subject="s", tr=0.0)
    late = parts(onsets=[0.0, 1.0, 16.5], offsets=None)
    with pytest.warns(
        UserWarning, match="1 of 3 words start past the end of the run of story one at 16.0 s, first 'c'"
    ):
        Assembly.from_arrays({"one": late}, subject="s", tr=2.0)


@pytest.mark.parametrize(
    "bold",
    [
        pytest.param(lambda values: torch.from_numpy(values), id="tensor"),
        pytest.param(lambda values: torch.from_numpy(values).half(), id="half"),
        pytest.param(lambda values: pandas.DataFrame(values), id="table"),
        pytest.param(lambda values: values.tolist(), id="lists"),
    ],
)
def test_bold_and_repeats_may_be_whatever_numpy_can_read(bold):
    values = np.arange(24, dtype=np.float32).reshape(8, 3)
    given = parts(bold=bold(values), repeats=[bold(values), bold(values)])
    story = Assembly.from_arrays({"one": given}, subject="s", tr=2.0).stories["one"]
    np.testing.assert_array_equal(story.bold[2:], values[2:])
    np.testing.assert_array_equal(story.repeats[:, 2:], [values[2:], values[2:]])


def test_bold_that_numpy_cannot_read_is_refused():
    bold = torch.ones(8, 3, requires_grad=True)
    with pytest.raises(
        ValueError, match=r"one: expected BOLD that numpy can read, got a Tensor .*detach\(\)"
    ):
        Assembly.from_arrays({"one": parts(bold=bold)}, subject="s", tr=2.0)


@pytest.mark.parametrize("dtype", [bool, int, float])
def test_masks_may_be_lists_of_flags(dtype):
    flags = np.array([True, False, True]).astype(dtype).tolist()
    made = Assembly.from_arrays({"one": parts()}, subject="s", tr=2.0, rois={"AC": flags})
    assert made.rois["AC"].dtype == bool and made.rois["AC"].tolist() == [True, False, True]


def test_one_presentation_alone_is_a_story_heard_once():
    bold = np.ones((8, 3))
    assert make_story().repeats is None and make_story(repeats=bold[None]).repeats is None
    assert make_story(repeats=np.stack([bold, bold])).repeats.shape == (2, 8, 3)


def test_a_measured_tr_is_near_enough_to_the_nominal_one():
    for tr in (2.0, 2.0045, 1.9957):
        Assembly.from_arrays({"one": parts(tr_times=np.arange(8) * 2.0)}, subject="s", tr=tr)
    with pytest.raises(ValueError, match=r"one: expected tr_times 2\.1 s apart .*, got 2 s"):
        Assembly.from_arrays({"one": parts(tr_times=np.arange(8) * 2.0)}, subject="s", tr=2.1)


def test_words_at_both_ends_of_a_run():
    words = make_words(80)

    def check(first_tr, n_trs=40):
        grid = first_tr + 2.0 * np.arange(n_trs)
        check_words_in_run(Story("s", words, grid, np.ones((4, 2))), 2.0, where="here")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(-10.0, n_trs=60)  # silence at both ends
        check(-0.5)  # the last word starts as the last TR does
        check(20.5)  # the first rows were cut
    with pytest.warns(
        UserWarning, match=r"here: 1 of 80 words start past the end .* at 79\.0 s.* no TR samples them"
    ):
        check(-1.0)
    with pytest.warns(
        UserWarning, match=r"here: 21 of 80 words end before the run of story s starts at 21\.0 s, f"
    ):
        check(21.0)
    with pytest.warns(
        UserWarning, match=r"here: 30 .* end before .*, and 10 of 80 words start past the end .* 70\.0 s"
    ):
        check(30.0, n_trs=20)
    with pytest.raises(
        ValueError, match=r"here: 80 of 80 words end before .* at 1000\.0 s.* fit about 1000 s later"
    ):
        check(1000.0)
    with pytest.raises(ValueError, match=r"here: 80 of 80 words start past .* fit about 300 s earlier"):
        check(-300.0)
    with pytest.raises(
        ValueError, match=r"here: 80 of 80 words start past the end of the run of story s at 0\.0 s"
    ):
        check(0.0, n_trs=0)


def test_tr_times_have_the_spacing_of_the_tr():
    story = make_story()  # every 2 s
    Assembly("S1", 2.01, {"storya": story})  # as measured
    for tr in (1.0, 2.1):
        with pytest.raises(
            ValueError, match=f"storya: expected tr_times {tr:g} s apart .*, got 2 s; give both"
        ):
            Assembly("S1", tr, {"storya": story})


def test_gaps_between_trs_are_noted():
    words, grid = make_words(80), 2.0 * np.arange(40)
    grid[20:] += 6.0
    with pytest.warns(UserWarning) as said:
        check_words_in_run(Story("s", words, grid, np.ones((40, 2))), 2.0, where="here")
    assert [str(w.message) for w in said] == [
        "here: TR 20 of story s comes 8 s after TR 19, but the TR is 2 s; there are 1 such gaps. Delays count rows of "
        "BOLD, so make one story of each part."
    ]


def test_paths():
    assert as_path("~/a.h5", "f").parts[0] != "~"
    with pytest.raises(TypeError, match="f: expected a path, got None"):
        as_path(None, "f")
    with pytest.raises(ValueError, match="f: expected a path, got an empty string"):
        as_path("", "f")


def test_a_lazy_array_reads_what_is_asked_for():
    values, asked = np.arange(24.0).reshape(6, 4), []

    def read(key):
        asked.append(key)
        return values[key]

    lazy = LazyArray((6, 4), float, read)
    story = Story("a", make_words(), np.arange(9.0), lazy)
    np.testing.assert_array_equal(story.bold[2:4], values[2:4])
    np.testing.assert_array_equal(lazy[-1, 1:3], values[-1, 1:3])
    assert asked == [(slice(2, 4),), (-1, slice(1, 3))] and story.n_rows == 6
    np.testing.assert_array_equal(lazy[values[:, 0] > 9], values[values[:, 0] > 9])
    np.testing.assert_array_equal(lazy[True], values[True])
    assert asked[2:] == [(slice(None), slice(None))] * 2
    assert repr(lazy) == "LazyArray(shape=(6, 4), dtype=float64)"
    with pytest.raises(IndexError, match="index -7 is out of bounds for axis 0"):
        lazy[-7]


def test_a_surface_may_name_its_store():
    assert Surface("S1", "fullhead", "demo") == Surface("S1", "fullhead", "demo", None)
    assert (
        len({Surface("S1", "t", "thick"), Surface("S1", "t", "thick", "/data"), Surface("S1", "t", "thick")})
        == 2
    )


def test_a_lazy_array_goes_to_other_processes(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(6.0).reshape(3, 2))
    lazy = LazyArray((3, 2), float, partial(read_npy, path))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lazy))[1:], [[2, 3], [4, 5]])


def read_npy(path, key):
    return np.load(path)[key]
