"""Are the times of words seconds on the clock of the run? Wrong units, ends as durations, words without a time."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoding_nb import Assembly, load_assembly, save_assembly
from encoding_nb.assembly import Story, Words, assembly_digest
from encoding_nb.features import FeatureSpec, joined_features, word_rate

TR, N_TRS = 2.0, 120


def speech(n=400, seconds=236.0, seed=0, length=0.25):
    """Words, onsets and offsets of speech that covers a run of 240 s."""
    rng = np.random.default_rng(seed)
    onsets = np.cumsum(rng.uniform(0.3, 1.7, n))
    onsets *= seconds / onsets[-1]
    return [f"word{i % 40}" for i in range(n)], onsets, onsets + length * rng.uniform(0.5, 1.5, n)


def made(words, onsets, offsets, *, tr=TR, shape=(N_TRS, 4)):
    """The assembly, and the warnings with which it is made."""
    bold = np.random.default_rng(0).standard_normal(shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parts = {"words": words, "onsets": onsets, "offsets": offsets, "bold": bold}
        assembly = Assembly.from_arrays({"run": parts}, subject="s", tr=tr)
    return assembly, [str(warning.message) for warning in caught]


def heard(*parts, **options):
    """What is said of words: the error, or the warnings in one text."""
    try:
        return " | ".join(made(*parts, **options)[1])
    except ValueError as error:
        return f"refused: {error}"


@settings(max_examples=60, deadline=None)
@given(
    rate=st.floats(0.7, 6.0),
    length=st.floats(0.05, 0.6),
    cover=st.floats(0.62, 0.99),
    tr=st.sampled_from([0.72, 1.0, 1.5, 2.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_speech_in_seconds_is_silent(rate, length, cover, tr, seed):
    seconds = N_TRS * tr * cover
    words, onsets, offsets = speech(max(25, int(rate * seconds)), seconds, seed, length)
    assert heard(words, onsets, np.minimum(offsets, N_TRS * tr), tr=tr) == ""


W, ON, OFF = speech()
WRONG = {
    "durations in milliseconds": (
        (ON, ON + 1000 * (OFF - ON)),
        {},
        "refused: .*lengths look like milliseconds",
    ),
    "ends as durations": ((ON, ON + OFF), {}, "refused: .*look like ends: give them as offsets"),
    "ends in milliseconds": ((ON, 1000 * OFF), {}, "refused: .*the ends look like milliseconds"),
    "durations in hundredths": (
        (ON, ON + 100 * (OFF - ON)),
        {},
        "refused: .*lengths look like hundredths of a second",
    ),
    "hundredths": ((100 * ON, 100 * OFF), {}, "refused: .*words look like hundredths of a second"),
    "durations in samples": ((ON, ON + 16_000 * (OFF - ON)), {}, "refused: .*lengths look like samples at"),
    "onsets in milliseconds": (
        (1000 * ON, 1000 * OFF),
        {},
        "refused: .*the times of words look like milliseconds",
    ),
    "onsets in samples": ((44_100 * ON, 44_100 * OFF), {}, "refused: .*look like samples at 44100 Hz"),
    "onsets in HTK units": ((1e7 * ON, 1e7 * OFF), {}, "refused: .*look like units of 100 nanoseconds"),
    "minutes": ((ON / 60, OFF / 60), {}, "words cover only 2% of the run .*look like minutes"),
    "TRs": ((ON / TR, OFF / TR), {}, "words cover only 49% of the run .*look like TRs"),
    "a TR twice too long": ((ON, OFF), {"tr": 4.0}, "words cover only 49% .*a TR of 2 s would fit, got 4 s"),
    "a TR twice too short": ((ON, OFF), {"tr": 1.0}, "start past the end .*a TR of 2 s would fit, got 1 s"),
    "voxels by TRs": (
        (ON, OFF),
        {"shape": (5000, N_TRS)},
        r"words cover only 2% .*\(voxels, rows\), got \(5000, 120\)",
    ),
    "few voxels by TRs": (
        (ON, OFF),
        {"shape": (6, N_TRS)},
        r"refused: .*looks like \(voxels, rows\), got \(6, 120\)",
    ),
    "ten words a second": ((ON / 10 + 100, ON / 10 + 100.01), {}, "17 words a second"),
}


@pytest.mark.parametrize("case", WRONG)
def test_times_in_another_unit_are_found_with_their_likely_cause(case):
    import re

    times, options, says = WRONG[case]
    assert re.search(says, heard(W, *times, **options)), heard(W, *times, **options)


@settings(max_examples=40, deadline=None)
@given(
    unit=st.sampled_from([1e3, 1e6, 1e7, 16_000, 22_050, 44_100, 1 / 60, 1 / 2]),
    rate=st.floats(1.0, 5.0),
    seed=st.integers(0, 99),
)
def test_no_unit_but_seconds_is_silent(unit, rate, seed):
    words, onsets, offsets = speech(int(236 * rate), 236.0, seed)
    assert heard(words, unit * onsets, unit * offsets)
    if unit > 1:
        assert heard(words, onsets, onsets + unit * (offsets - onsets))


def test_long_words_that_do_not_overlap_and_short_lists_are_fine():
    """Single words shown for 2.5 s, one every 3 s, are too slow for speech but no units; three words say nothing."""
    onsets = 3.0 * np.arange(75)
    said = heard(["a"] * 75, onsets, onsets + 2.5)
    assert "0.33 words a second" in said and "look like" not in said
    assert heard(["a", "b", "c"], [1, 2, 3], [5, 6, 7]) == ""


def test_one_word_that_ends_long_after_the_next_begin():
    for number, end in ((200, 12.0), (399, 40.0)):  # the last word ends after the run
        ends = OFF.copy()
        ends[number] = ON[number] + end
        said = heard(W, ON, ends)
        assert (
            f"1 of 400 words last longer than 10 s, until after the next ones begin, first '{W[number]}'"
            in said
        )
    pause = np.where(np.arange(400) > 200, 12.0, 0.0)  # a long word, and no other meanwhile
    ends = OFF * 0.9
    ends[200] = 0.9 * ON[201] + 12.0
    assert heard(W, 0.9 * ON + pause, ends + np.where(np.arange(400) > 200, 12.0, 0.0)) == ""


def test_words_that_are_there_twice():
    twice = np.repeat(np.arange(400), 2)
    said = heard([W[i] for i in twice], ON[twice], OFF[twice])
    assert (
        said
        == "run: 400 of 800 words of story run repeat the word before them at the same time; give each word once."
    )
    assert heard([f"{W[i]}{n % 2}" for n, i in enumerate(twice)], ON[twice], OFF[twice]) == "", "two speakers"


def test_a_saved_file_says_the_same_of_its_words(tmp_path):
    twice = np.repeat(np.arange(400), 2)
    assembly, said = made([W[i] for i in twice], ON[twice], OFF[twice])
    path = save_assembly(assembly, tmp_path / "a.h5")
    with pytest.warns(UserWarning, match="repeat the word before them") as again:
        load_assembly(path)
    assert [str(w.message).replace(str(path), "run") for w in again] == said


# ---------------------------------------------------------------------- words without a time


def untimed(seed=1):
    words, onsets, offsets = speech(seed=seed)
    lost = np.random.default_rng(seed).random(len(words)) < 0.1
    return words, np.where(lost, np.nan, onsets), np.where(lost, np.nan, offsets), ~lost


def test_words_without_a_time_are_context_and_in_no_tr(tmp_path):
    words, onsets, offsets, timed = untimed()
    assembly, said = made(words, onsets, offsets)
    assert said == [f"run: {(~timed).sum()} of 400 words of story run have no time: a language model reads them as "
                    "context, but no TR samples them."]  # fmt: skip
    story = assembly.stories["run"]
    assert story.words.text == tuple(words) and story.words.timed.tolist() == timed.tolist()
    kept = Words([w for w, t in zip(words, timed, strict=True) if t], onsets[timed], offsets[timed])
    np.testing.assert_array_equal(word_rate(story.words, story.tr_times), word_rate(kept, story.tr_times))
    # embeddings do not depend on context: those of the words with a time alone
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(f"word{i} {i}.5 {i * i} -1\n" for i in range(40)))
    spec = {"a": FeatureSpec("embeddings", embedding=str(vectors))}
    for method in ("lanczos", "average", "last"):
        found = joined_features(story, spec, downsample_method=method).values
        other = Story("run", kept, story.tr_times, story.bold)
        np.testing.assert_array_equal(found, joined_features(other, spec, downsample_method=method).values)
    back = load_assembly(save_assembly(assembly, tmp_path / "a.h5"))
    np.testing.assert_array_equal(back.stories["run"].words.onsets, onsets)
    assert assembly_digest(back) == assembly_digest(assembly)


def test_split_indices_count_all_words_and_sample_those_with_a_time(tmp_path):
    """LITcoder's boundaries refer to all words: here TR 0 has words 0 to 2, TR 1 words 3 and 4."""
    onsets = np.array([0.0, np.nan, 0.6, np.nan, 2.2])
    story = Story("s", Words(list("abcde"), onsets, onsets), [0.0, 2.0], np.ones((2, 3)))
    vectors = tmp_path / "vectors.txt"
    vectors.write_text(
        "".join(f"{w} {v} 1\n" for w, v in zip("abcde", (1, 10, 100, 1000, 10_000), strict=True))
    )
    spec = {"a": FeatureSpec("embeddings", embedding=str(vectors))}
    found = joined_features(story, spec, downsample_method="sum", downsample_options={"split_indices": [3]})
    assert found.values.tolist() == [[101.0, 2.0], [10_000.0, 1.0]]


def test_a_language_model_reads_words_without_a_time(demo, tmp_path):
    """The features of the words around them are those with the lost words in the window."""
    from encoding_nb import ActivationSpec, layer_activations
    from encoding_nb.design import downsample

    words = ["the", "harbour", "was", "empty", "and", "cold", "that", "night"]
    onsets = np.array([0.1, np.nan, 0.9, 1.3, 1.9, 2.4, np.nan, 3.5])
    story = Story("s", Words(words, onsets, onsets), [0.0, 2.0, 4.0], np.ones((3, 2)))
    spec = FeatureSpec(activation=ActivationSpec("demo", lookback=6), layer_idx=2)
    found = joined_features(story, {"m": spec}, memory=tmp_path, downsample_method="sum").values
    every = layer_activations(words, spec.activation, layer_idx=2, memory=tmp_path)
    timed = np.isfinite(onsets)
    np.testing.assert_array_equal(
        found, downsample(every[timed], onsets[timed], story.tr_times, method="sum")
    )
