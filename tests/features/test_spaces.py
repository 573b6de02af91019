"""Feature spaces on a story's TRs."""

import gzip
import pickle
import shutil
import struct
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from encoding_nb._progress import Cancelled
from encoding_nb.assembly import Story, Words
from encoding_nb.design import add_delays, downsample
from encoding_nb.features import (
    FEATURE_SPACES,
    ActivationSpec,
    FeatureSpec,
    extra_features,
    extras_width,
    file_embeddings,
    is_cached,
    joined_features,
    layer_activations,
    position_features,
    time_features,
    token_embeddings,
    word_rate,
)
from encoding_nb.features.word_vectors import read_word_vectors

GOLDEN = Path(__file__).parents[1] / "golden"
TINY = str(GOLDEN / "hf" / "tiny-gpt2")
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")
SPEC = FeatureSpec(activation=ActivationSpec(TINY, processing="litcoder"), layer_idx=2)


def story_features(story, spec, **options):
    return joined_features(story, {"a": spec}, **options).values


@pytest.fixture(scope="module")
def stories():
    stimuli = np.load(GOLDEN / "stimuli.npz")
    made = {}
    for name in STORIES:
        times = stimuli[f"{name}/data_times"]
        words = Words(tuple(stimuli[f"{name}/words"].tolist()), times, times)
        contexts = {"fullcontext": tuple(stimuli[f"{name}/stimuli_fullcontext"].tolist())}
        bold = stimuli[f"{name}/brain_data"]
        made[name] = Story(name, words, stimuli[f"{name}/tr_times"], bold, contexts=contexts)
    return made


@pytest.mark.parametrize("name", STORIES)
def test_golden_word_rate(stories, name):
    expected = np.load(GOLDEN / "stimuli.npz")[f"{name}/word_rates"]
    story, litcoder = stories[name], FeatureSpec("wordrate", word_rate_bins="litcoder")
    assert np.array_equal(word_rate(story.words, story.tr_times, bins="litcoder"), expected)
    assert np.array_equal(story_features(story, litcoder), expected)


@pytest.mark.parametrize("name", STORIES)
def test_word_rate_is_on_the_clock_of_the_other_features(stories, name):
    """Counted one by one, as the sum of ones over a TR's words, and as LITcoder counts half a TR earlier."""
    words, tr_times = stories[name].words, stories[name].tr_times
    counted = [sum(bool(word) and -1 <= t - at < 1 for word, t in zip(words.text, words.times, strict=True))
               for at in tr_times]  # fmt: skip
    found = word_rate(words, tr_times)
    assert found.dtype == np.float32 and found[:, 0].tolist() == counted
    ones = np.array([[float(bool(word))] for word in words.text])
    assert np.array_equal(downsample(ones, words.times, tr_times, method="sum"), found)
    assert np.array_equal(word_rate(words, tr_times - 1, bins="litcoder"), found)
    assert np.array_equal(story_features(stories[name], FeatureSpec("wordrate")), found)


@pytest.mark.parametrize("lag", [2.0, 3.0, 5.0])
def test_a_planted_lag_comes_back_from_word_rate(lag):
    """A response `lag` seconds after each word: the centre of the FIR weights, within a tenth of a TR."""
    rng = np.random.default_rng(0)
    tr_times = 2.0 * np.arange(1500)
    onsets = np.sort(rng.uniform(0, 3000, 5000))
    after = tr_times[:, None] - onsets[None] - lag
    bold = np.exp(-((after / 0.6) ** 2) / 2).sum(axis=1)
    X = add_delays(word_rate(Words(["w"] * 5000, onsets, onsets), tr_times).astype(float), range(9))[10:]
    weights = np.linalg.lstsq(X - X.mean(0), bold[10:] - bold[10:].mean(), rcond=None)[0].clip(0)
    assert 2 * (np.arange(9) * weights**2).sum() / (weights**2).sum() == pytest.approx(lag, abs=0.2)


def test_word_rate_bins_have_two_names():
    with pytest.raises(ValueError, match="word_rate: bins must be one of centred, litcoder; got 'nearest'"):
        word_rate(Words(["a"], [0.5], [0.6]), [0.0, 2.0], bins="nearest")


@pytest.mark.parametrize("name", STORIES)
def test_golden_language_model_features_from_stored_windows(stories, name, tmp_path):
    spec = FeatureSpec(activation=SPEC.activation, layer_idx=2, use_stored_contexts=True)
    found = story_features(stories[name], spec, memory=tmp_path)
    expected = np.load(GOLDEN / "downsampled.npz")[f"{name}/lanczos_w3_c1"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=5e-5)  # sums of some ten words at 1e-5 each
    assert is_cached(stories[name], spec, memory=tmp_path)
    assert not is_cached(stories[name], SPEC, memory=tmp_path)


def test_lookback_truly_changes_features_and_options_reach_the_filter(stories):
    story = stories["storya"]
    other = FeatureSpec(activation=ActivationSpec(TINY, lookback=8), layer_idx=2)
    words = layer_activations(story.words.text, other.activation, layer_idx=2)
    found = story_features(story, other, downsample_method="lanczos", downsample_options={"window": 2})
    expected = downsample(words, story.words.times, story.tr_times, window=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    longer = FeatureSpec(activation=ActivationSpec(TINY, lookback=16), layer_idx=2)
    assert np.abs(found - story_features(story, longer, downsample_options={"window": 2})).max() > 0.1


def test_progress_reaches_its_total_and_the_rows_are_those_of_the_tr_grid(stories):
    story, seen = stories["storyb"], []
    found = story_features(story, SPEC, progress=lambda *step: seen.append(step))
    assert found.shape == (story.n_trs, 64)
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.parametrize("error", [ValueError("mine"), RuntimeError("mine"), Cancelled("mine")])
@pytest.mark.parametrize("space", ["wordrate", "language_model", "embeddings"])
def test_what_a_progress_function_raises_is_no_failure_of_the_story(stories, space, error):
    def progress(done, total):
        raise error

    spec = FeatureSpec(space, activation=SPEC.activation, layer_idx=2, embedding=TINY)
    with pytest.raises(type(error)) as raised:
        joined_features(stories["storya"], {"a": spec}, progress=progress)
    assert raised.value is error and str(error) == "mine"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            FeatureSpec("phonemes"),
            "modality must be one of language_model, wordrate, embeddings, position, time, extras; got 'phonemes'",
        ),
        (FeatureSpec(), "storya: a language model's features need"),
        (FeatureSpec("embeddings"), "storya: embeddings need"),
        (FeatureSpec(activation=ActivationSpec(TINY), layer_idx=9), "storya: Layer 9 is out of range"),
        (
            FeatureSpec(activation=ActivationSpec(TINY, context_type="nocontext"), use_stored_contexts=True),
            "storya: expected stored windows of type 'nocontext', got fullcontext",
        ),
    ],
)
def test_errors_name_the_story(stories, spec, message):
    with pytest.raises(ValueError, match=message):
        story_features(stories["storya"], spec)


def test_a_model_that_gives_no_numbers_is_refused_with_the_story(stories, monkeypatch):
    def broken(words, *_, **__):
        return np.full((len(words), 4), np.nan, dtype=np.float32)

    monkeypatch.setattr("encoding_nb.features.spaces.layer_activations", broken)
    with pytest.raises(ValueError, match="storya: downsample: 1320 of 1320 features are not finite"):
        story_features(stories["storya"], SPEC)


def test_a_models_embedding_needs_the_model_and_a_file_does_not(stories, tmp_path):
    write_text(tmp_path / "vectors.txt", header=True)
    story = stories["storya"]
    assert is_cached(story, FeatureSpec("wordrate"), memory=tmp_path)
    assert is_cached(
        story, FeatureSpec("embeddings", embedding=str(tmp_path / "vectors.txt")), memory=tmp_path
    )
    for model in (TINY, "demo", "x" * 300):
        assert not is_cached(story, FeatureSpec("embeddings", embedding=model), memory=tmp_path)


def test_every_space_is_ready_to_be_named():
    words = {"language_model", "wordrate", "embeddings"}
    assert set(FEATURE_SPACES) == words | {"position", "time", "extras"}


# ---------------------------------------------------------------------- controls on the TR grid


def test_position_counts_rows_and_marks_the_first_30_s():
    tr_times = 10.0 + 1.5 * np.arange(50)
    found = position_features(tr_times)
    np.testing.assert_array_equal(found[:, 0], np.arange(50))
    np.testing.assert_allclose(found[:, 1], [np.log(1 + i) for i in range(50)], rtol=1e-6)
    np.testing.assert_array_equal(found[:, 2], [1.0] * 20 + [0.0] * 30)


def test_time_is_a_smoothed_identity_that_all_stories_share():
    found = time_features(30, 40, sigma=2.0)
    kernel = gaussian_filter1d(np.eye(90), 2.0, axis=0, truncate=8)[30:60, 30:70]
    np.testing.assert_allclose(found / found[10, 10], kernel / kernel[10, 10], atol=1e-6)
    np.testing.assert_array_equal(found[:20], time_features(20, 40, sigma=2.0))


def test_extras_are_the_arrays_that_came_with_the_data(stories):
    story = stories["storya"]
    motion, sound = np.random.default_rng(0).normal(size=(story.n_trs, 6)), np.arange(story.n_trs)
    with_extras = replace(story, extras={"motion": motion, "sound": sound, "notes": "as they came"})
    found = story_features(with_extras, FeatureSpec("extras", extras=("sound", "motion"), delayed=False))
    np.testing.assert_allclose(found, np.column_stack([sound, motion]), rtol=1e-6)
    assert extras_width(with_extras, ("sound", "motion")) == 7


@pytest.mark.parametrize(
    ("extras", "says"),
    [
        ({"motion": 1}, "storya: expected 'sound' in its extras, got motion"),
        ({}, "storya: expected 'sound' in its extras, got no arrays"),
        ({"sound": "loud"}, "storya: expected the extras 'sound' as numbers"),
        ({"sound": 3.0}, r"\(rows,\) or \(rows, columns\), got float64 of shape \(\)"),
        ({"sound": np.zeros((4, 2, 2))}, r"got float64 of shape \(4, 2, 2\)"),
        (
            {"sound": np.zeros(7)},
            r"storya: expected \d+ rows in the extras 'sound', one for each TR time, got 7",
        ),
    ],
)
def test_extras_that_do_not_fit_are_refused(stories, extras, says):
    with pytest.raises(ValueError, match=says):
        extra_features(replace(stories["storya"], extras=extras), ("sound",))


# ---------------------------------------------------------------------- static embeddings


def test_a_models_own_embedding(stories):
    story = stories["storya"]
    found = story_features(story, FeatureSpec("embeddings", embedding=TINY), downsample_method="average")
    words = token_embeddings(story.words.text, TINY)
    assert np.array_equal(found, downsample(words, story.words.times, story.tr_times, method="average"))


VECTORS = {
    "the": [1.0, 2.0, 3.0],
    "new york": [4.0, 5.0, 6.0],
    "caf\u00e9": [-1.0, 0.5, 1e-3],
    "Suite": [7.0, 8.0, 9.0],
}


def write_text(path, header):
    lines = [f"{len(VECTORS)} 3"] * header
    lines += [f"{word} {' '.join(map(repr, vector))}" for word, vector in VECTORS.items()]
    path.write_bytes(("\n".join(lines) + "\n").encode())


def write_binary(path):
    # the binary form ends a word with a blank, so that none can be in it
    entries = [
        f"{w.replace(' ', '_')} ".encode() + struct.pack("<3f", *v) + b"\n" for w, v in VECTORS.items()
    ]
    path.write_bytes(f"{len(VECTORS)} 3\n".encode() + b"".join(entries))


@pytest.mark.parametrize("form", ["word2vec text", "glove text", "gzipped text", "binary"])
def test_word_vectors_in_every_form(tmp_path, form):
    path = tmp_path / ("vectors.bin" if form == "binary" else "vectors.txt")
    if form == "binary":
        write_binary(path)
    else:
        write_text(path, header=form != "glove text")
    if form == "gzipped text":
        path.write_bytes(gzip.compress(path.read_bytes()))
    found = read_word_vectors(path, ["the", "THE", "new york", "caf\u00e9", "nowhere"])
    assert set(found) == {"the", "THE", "caf\u00e9"} | ({"new york"} if form != "binary" else set())
    for word in found:
        assert found[word].tolist() == np.float32(VECTORS[word.lower()]).tolist()


def test_words_that_are_not_in_the_file_are_counted(tmp_path):
    write_text(tmp_path / "vectors.txt", header=True)
    words = ["the", "zyzzyva", "", "the", "qwerty", "zyzzyva"]
    with pytest.warns(
        UserWarning, match=r"3 of 5 words are not in vectors\.txt and are 0 \('zyzzyva', 'qwerty'\)"
    ):
        found = file_embeddings(words, tmp_path / "vectors.txt")
    assert found.tolist() == [VECTORS["the"] if word == "the" else [0, 0, 0] for word in words]
    with pytest.raises(ValueError, match="none of the 1 words is in it"):
        file_embeddings(["qwerty"], tmp_path / "vectors.txt")


def test_files_that_hold_no_vectors_are_refused(tmp_path):
    path = tmp_path / "vectors.kv"
    path.write_bytes(pickle.dumps({"the": 1}))
    with pytest.raises(ValueError, match="is a pickle, which is not opened"):
        read_word_vectors(path, ["the"])
    path.write_text("4 3\nthe 1 2 3\nand 1 2\n")
    with pytest.raises(ValueError, match=r"vectors\.kv, line 3: expected a word and 3 numbers"):
        read_word_vectors(path, ["the"])
    path.write_text("4 3\nthe 1 2 x\n")
    with pytest.raises(
        ValueError,
        match=r"vectors\.kv, line 2: expected a word and 3 numbers, got b'the 1 2 x.*could not convert",
    ):
        read_word_vectors(path, ["the"])
    path.write_text("4 3\nthe 1 2 3\nand 1 2 3\n")
    with pytest.raises(
        ValueError, match=r"vectors\.kv: expected 4 vectors, .* the file ends after 2; it is cut off"
    ):
        read_word_vectors(path, ["the"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.txt does not exist; check the path"):
        read_word_vectors(tmp_path / "nowhere.txt", ["the"])
    with pytest.raises(TypeError, match=r"read_word_vectors: expected a path.*got None"):
        read_word_vectors(None, ["the"])
    short = tmp_path / "vectors.bin"
    write_binary(short)
    short.write_bytes(short.read_bytes()[:-6])
    with pytest.raises(ValueError, match="expected 4 vectors of 3 numbers, but it ends after 3"):
        read_word_vectors(short, ["Suite"])


# ---------------------------------------------------------------------- several spaces


def test_joined_spaces_stand_in_their_order_with_their_widths(stories, tmp_path):
    story = stories["storya"]
    write_text(tmp_path / "vectors.txt", header=True)
    specs = {
        "rate": FeatureSpec("wordrate"),
        "model": SPEC,
        "vectors": FeatureSpec("embeddings", embedding=str(tmp_path / "vectors.txt")),
    }
    with pytest.warns(UserWarning, match="are not in vectors.txt"):
        joined = joined_features(story, specs, memory=tmp_path)
        parts = {name: story_features(story, spec, memory=tmp_path) for name, spec in specs.items()}
    assert joined.widths == {"rate": 1, "model": 64, "vectors": 3}
    assert list(joined.widths) == ["rate", "model", "vectors"]
    assert joined.values.shape == (story.n_trs, 68)
    assert np.array_equal(joined.values, np.hstack(list(parts.values())))


def test_joined_progress_reaches_its_total(stories):
    specs = {"a": FeatureSpec("wordrate"), "b": FeatureSpec("embeddings", embedding=TINY)}
    seen = []
    joined_features(stories["storya"], specs, progress=lambda *step: seen.append(step))
    assert seen == [(100, 200), (100, 200), (200, 200)]
    with pytest.raises(ValueError, match="storya: expected at least one feature space"):
        joined_features(stories["storya"], {})


def test_cancelled_at_every_call_keeps_finished_stories_only(stories, tmp_path, monkeypatch):
    # one window a batch: batches that grow with the machine's speed change the last digits
    monkeypatch.setattr("encoding_nb.features.language_model._most_tokens", lambda _: 1)
    first, second = (shortened(stories[name], 12) for name in ("storya", "storyb"))
    model = FeatureSpec(activation=ActivationSpec("demo", lookback=4, context_type="nocontext"), layer_idx=1)
    specs = {
        "rate": FeatureSpec("wordrate"),
        "model": model,
        "own": FeatureSpec("embeddings", embedding=TINY),
    }
    calls = []
    expected = joined_features(second, specs, progress=lambda *step: calls.append(step))
    assert len(calls) > 7 and calls[0] == (100, 300) and calls[-1] == (300, 300)
    assert calls == sorted(calls)
    joined_features(first, specs, memory=tmp_path)
    files, threads = sorted(tmp_path.rglob("*")), threading.enumerate()
    # calls of the model's features; its last one comes before they are kept
    in_model = [n for n, (done, _) in enumerate(calls) if done < 200 or calls[n - 1][0] < 200]

    def cancel_at(number, seen):
        def progress(done, total):
            seen.append((done, total))
            if len(seen) > number:
                raise Cancelled

        return progress

    for number in range(len(calls)):
        seen, memory = [], tmp_path if number in in_model else tmp_path / f"from call {number}"
        with pytest.raises(Cancelled):
            joined_features(second, specs, memory=memory, progress=cancel_at(number, seen))
        assert seen == calls[: number + 1]
        assert is_cached(second, model, memory=memory) == (number not in in_model)
        assert threading.enumerate() == threads
        if number not in in_model:
            assert {path.suffix for path in memory.rglob("*") if path.is_file()} == {".zip"}
            shutil.rmtree(memory)
        left = [path for path in tmp_path.rglob("array.zip") if path not in files]
        assert len(left) <= 1, "the finished part of the story, which the next call would go on from"
        for path in left:
            shutil.rmtree(path.parent)
        assert sorted(tmp_path.rglob("*")) == files
    found = joined_features(second, specs, memory=tmp_path)
    assert found.values.tobytes() == expected.values.tobytes()


def shortened(story, n_words):
    """The first words of a story, on its first TRs."""
    words = Words(story.words.text[:n_words], story.words.times[:n_words], story.words.times[:n_words])
    return Story(story.name, words, story.tr_times[:8], story.bold[:8])


def test_words_are_sampled_at_their_middle(tmp_path):
    """The golden stories know one time of each word; here the onsets lie in other TRs."""
    write_text(tmp_path / "vectors.txt", header=True)
    words = Words(("the", "caf\u00e9"), [0.0, 3.2], [1.0, 8.8])
    story = Story("s", words, 2.0 * np.arange(5), np.zeros((5, 1)))
    spec = FeatureSpec("embeddings", embedding=str(tmp_path / "vectors.txt"))
    found = story_features(story, spec, downsample_method="sum")
    expected = np.zeros((5, 3))
    expected[0], expected[3] = VECTORS["the"], VECTORS["caf\u00e9"]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
