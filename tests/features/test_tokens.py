"""TextGrids in all their forms, and windows against a word-by-word reference."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoding_nb.datasets import read_textgrid
from encoding_nb.datasets.marks import BAD_WORDS
from encoding_nb.features import CONTEXT_TYPES, context_windows
from encoding_nb.features.tokens import encode, stored_windows, tokenize_words

GOLDEN = Path(__file__).parents[1] / "golden"
STORIES = ("storya", "storyb", "storyc", "storyd", "storyz_test")

# ---------------------------------------------------------------------- TextGrids


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def long_form(tiers, end):
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for i, (name, entries) in enumerate(tiers, start=1):
        lines += [f"    item [{i}]:", '        class = "IntervalTier"', f"        name = {quoted(name)}"]
        lines += ["        xmin = 0", f"        xmax = {end}", f"        intervals: size = {len(entries)}"]
        for j, (start, stop, text) in enumerate(entries, start=1):
            lines += [
                f"        intervals [{j}]:",
                f"            xmin = {start}",
                f"            xmax = {stop}",
            ]
            lines += [f"            text = {quoted(text)} "]
    return "\n".join(lines) + "\n"


def short_form(tiers, end):
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        f"{end}",
        "<exists>",
        f"{len(tiers)}",
    ]
    for name, entries in tiers:
        lines += ['"IntervalTier"', quoted(name), "0", f"{end}", f"{len(entries)}"]
        for start, stop, text in entries:
            lines += [f"{start}", f"{stop}", quoted(text)]
    return "\n".join(lines) + "\n"


def chronological_form(tiers, end):
    lines = [
        '"Praat chronological TextGrid text file"',
        f"0 {end}   ! Time domain.",
        f"{len(tiers)}   ! Number of tiers.",
    ]
    lines += [f'"IntervalTier" {quoted(name)} 0 {end}' for name, _ in tiers]
    entries = [(start, i, stop, text) for i, (_, tier) in enumerate(tiers, 1) for start, stop, text in tier]
    lines += [f"\n{i} {start} {stop}\n{quoted(text)}" for start, i, stop, text in sorted(entries)]
    return "\n".join(lines) + "\n"


FORMS = {"long": long_form, "short": short_form, "chronological": chronological_form}
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with BOM": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16 big-endian with BOM": lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
    "utf-16 without BOM": lambda text: text.encode("utf-16-le"),
    "carriage returns": lambda text: text.replace("\n", "\r\n").encode(),
}
WORDS = [
    (0.0, 0.5, "sp"),
    (0.5, 0.81, "The"),
    (0.81, 1.2, "caf\u00e9"),
    (1.2, 1.2001, "{BR}"),
    (1.2001, 2.0, 'said "so"'),
]
TIERS = [("phone", [(0.0, 2.0, "AH0")]), ("word", WORDS)]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_encoding_gives_the_same_words(tmp_path, form, encoding):
    path = tmp_path / "story.TextGrid"
    path.write_bytes(ENCODINGS[encoding](FORMS[form](TIERS, 2.0)))
    words = read_textgrid(path)
    assert words.text == ("the", "caf\u00e9", 'said "so"')
    assert words.onsets.tolist() == [0.5, 0.81, 1.2001]
    assert words.offsets.tolist() == [0.81, 1.2, 2.0]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=8), min_size=1, max_size=6
    ),
    form=st.sampled_from(sorted(FORMS)),
)
def test_any_text_comes_back(tmp_path, texts, form):
    entries = [(float(i), i + 0.75, text) for i, text in enumerate(texts)] + [(99.0, 100.0, "end")]
    path = tmp_path / "story.TextGrid"
    path.write_bytes(FORMS[form]([("word", entries)], 100.0).encode())
    words = read_textgrid(path, bad_words=frozenset(), lower=False)
    assert words.text == (*(text.strip() for text in texts), "end")
    assert words.onsets.tolist() == [entry[0] for entry in entries]


def test_marks_of_the_lebel_files_are_no_words(tmp_path):
    marks = ["sentence_start", "SENTENCE_END", "{LG}", "{ns}", " sp ", "{ SL }", "", "ig", "cg", "LS"]
    entries = [(float(i), i + 1.0, mark) for i, mark in enumerate([*marks, "spare", "brother", "{spoken}"])]
    path = tmp_path / "story.TextGrid"
    path.write_text(short_form([("word", entries)], 13))
    assert read_textgrid(path, bad_words=BAD_WORDS).text == ("spare", "brother", "{spoken}")


def test_tiers_by_index_and_name(tmp_path):
    path = tmp_path / "story.TextGrid"
    path.write_text(long_form([("Phones", [(0, 1, "AH0")]), ("Words", [(0, 1, "uh")])], 1))
    assert read_textgrid(path, tier=0).text == ("ah0",)
    assert read_textgrid(path, tier="word").text == ("uh",)
    with pytest.raises(
        ValueError, match=r"no tier is called 'syllable'; the tiers are 0: 'Phones', 1: 'Words'"
    ):
        read_textgrid(path, tier="syllable")
    with pytest.raises(ValueError, match="no tier is called 2"):
        read_textgrid(path, tier=2)


@pytest.mark.parametrize("form", ["long", "short"])
def test_a_file_that_is_cut_off_is_refused_with_its_line_or_kept_in_part(tmp_path, form):
    path = tmp_path / "story.TextGrid"
    whole = FORMS[form]([("word", [(float(i), i + 1.0, f"word{i}") for i in range(9)])], 9.0)
    path.write_text(whole[: whole.index("word5") - 20].rsplit("\n", 2)[0] + "\n")
    with pytest.raises(ValueError, match=r"story.TextGrid, line \d+: .*the file ends"):
        read_textgrid(path)
    path.write_text(whole[: whole.index('"word5"')] + '"word5"\n')
    with pytest.raises(ValueError, match=r"after 6 of 9 entries of tier 'word', at 6.0 of 9.0 s"):
        read_textgrid(path)
    with pytest.warns(UserWarning, match="after 6 of 9 entries"):
        assert len(read_textgrid(path, partial=True)) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hello", "line 1: expected the file type"),
        ('File type = "ooTextFile"\nObject class = "Sound 2"\n', "got 'ooTextFile' with 'Sound 2'"),
        (
            long_form([("word", WORDS)], 2.0).replace("xmin = 0.81", "xmin = ?"),
            "line 26: expected the end of entry 3 of tier 'word' .a number., but got the text",
        ),
        (long_form([("word", WORDS)], 2.0).replace('"The"', '"The'), r"line \d+: "),
        (short_form([("word", WORDS)], 2.0).replace('"IntervalTier"', '"SoundTier"'), "got 'SoundTier'"),
        (short_form([("word", [(0, 1, "sp")])], 2.0), "none of the 1 intervals of tier 'word' is a word"),
        (short_form([("word", [(0, 2, "b"), (1, 2, "a"), (0.5, 1, "c")])], 2.0), "word 2 .* starts before"),
        ("/annex/objects/MD5E-s100--d41d8cd98f.TextGrid\n", "not downloaded"),
    ],
)
def test_what_is_no_textgrid_is_said_in_a_sentence(tmp_path, content, message):
    path = tmp_path / "story.TextGrid"
    path.write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        read_textgrid(path)
    assert "story.TextGrid" in str(error.value)


def test_a_link_to_nothing_is_not_downloaded(tmp_path):
    (tmp_path / "story.TextGrid").symlink_to(tmp_path / ".git" / "annex" / "missing")
    with pytest.raises(FileNotFoundError, match=r"git annex get story\.TextGrid"):
        read_textgrid(tmp_path / "story.TextGrid")


# ---------------------------------------------------------------------- windows


@pytest.fixture(scope="module")
def golden_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(GOLDEN / "hf" / "tiny-gpt2")


def made_tokenizer(kind):
    """A small tokenizer of each kind, trained on the golden words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    stimuli = np.load(GOLDEN / "stimuli.npz")
    texts = [" ".join(stimuli[f"{story}/words"].tolist()) for story in STORIES]
    special = ["<s>", "<unk>"]
    if kind == "sentencepiece-like":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token="<unk>")
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special)
    elif kind == "merges across blanks":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special)
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
    tokenizer.train_from_iterator(texts, trainer)
    if kind == "byte-level with its own BOS":
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


class Slow:
    """A tokenizer without offsets, such as SentencePiece's own."""

    is_fast = False

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer

    def __call__(self, text, **options):
        return self._tokenizer(text, **options)


KINDS = (
    "byte-level",
    "byte-level with its own BOS",
    "sentencepiece-like",
    "wordpiece",
    "merges across blanks",
)


@pytest.fixture(scope="module")
def tokenizers():
    fast = {kind: made_tokenizer(kind) for kind in KINDS}
    return fast | {f"slow {kind}": Slow(tokenizer) for kind, tokenizer in fast.items()}


def reference_starts(ends, context_type, lookback, stride):
    """Where windows begin, word by word, from the design's own sentences."""
    starts, start, previous = [], 0, 0
    for end in ends:
        if context_type == "fullcontext":
            start = max(0, end - lookback)
        elif context_type == "nocontext":
            if end - start > lookback:
                start = previous
        elif context_type == "halfcontext":
            while end - start > lookback:
                start += max(1, lookback // 2)
        else:
            start = 0
            while end - start > lookback + stride:
                start += stride
        starts.append(start)
        previous = end
    return starts


def reference_windows(words, tokenizer, context_type, lookback, stride):
    """Each word's window, from the tokens of the story up to that word alone."""
    texts = [" ".join(word.split()) for word in words]
    longest = lookback + (stride if context_type == "strided" else 0)
    prefixes, spoken = [], []
    for i, text in enumerate(texts):
        if text:
            prefixes.append(encode(" ".join(t for t in texts[: i + 1] if t), tokenizer))
            spoken.append(i)
    starts = reference_starts([len(p) for p in prefixes], context_type, lookback, stride)
    windows = [np.zeros(0, int)] * len(texts)
    for i, prefix, start in zip(spoken, prefixes, starts, strict=True):
        windows[i] = prefix[start:][-longest:]
    return windows, prefixes, spoken


texts_strategy = st.lists(
    st.one_of(
        st.sampled_from(
            ["the", "and", "exception", "raise", "a", "don't", "3.14", "", " ", "new york", "hi!", "..."]
        ),
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=6),
    ),
    min_size=1,
    max_size=30,
).filter(lambda words: any(word.strip() for word in words))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "merges across blanks"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=texts_strategy,
    context_type=st.sampled_from(sorted(CONTEXT_TYPES)),
    lookback=st.integers(1, 40),
    stride=st.integers(1, 20),
)
def test_windows_are_what_the_design_says(tokenizers, kind, words, context_type, lookback, stride):
    for name in (kind, f"slow {kind}"):
        windows = context_windows(
            words, tokenizers[name], lookback=lookback, context_type=context_type, stride=stride
        )
        expected, _, _ = reference_windows(words, tokenizers[name], context_type, lookback, stride)
        for i, window in enumerate(expected):
            assert windows.ids(i).tolist() == window.tolist(), (i, words[i])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=texts_strategy, lookback=st.integers(1, 40))
def test_a_tokenizer_that_merges_across_blanks_never_shows_the_next_word(tokenizers, words, lookback):
    for name in ("merges across blanks", "slow merges across blanks"):
        windows = context_windows(words, tokenizers[name], lookback=lookback, context_type="fullcontext")
        _, prefixes, spoken = reference_windows(words, tokenizers[name], "fullcontext", lookback, 0)
        for i, prefix in zip(spoken, prefixes, strict=True):
            assert windows.ids(i).tolist() == prefix[-lookback:].tolist(), (i, words[i])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=texts_strategy,
    context_type=st.sampled_from(sorted(CONTEXT_TYPES)),
    lookback=st.integers(1, 24),
    stride=st.integers(1, 24),
)
def test_windows_keep_their_promises(golden_tokenizer, words, context_type, lookback, stride):
    windows = context_windows(
        words, golden_tokenizer, lookback=lookback, context_type=context_type, stride=stride
    )
    most = lookback + (stride if context_type == "strided" else 0)
    assert windows.stop.max() <= most
    assert [windows.segment[i] < 0 for i in range(len(words))] == [not word.strip() for word in words]
    ends = tokenize_words(words, golden_tokenizer).ends
    if context_type == "strided":
        late = [i for i, end in enumerate(ends) if end > lookback]
        assert all(lookback < windows.stop[i] <= most for i in late)
    if context_type == "fullcontext":
        assert all(windows.stop[i] == min(end, lookback) for i, end in enumerate(ends) if end > 0)
    alone = windows.one_by_one()
    assert all(np.array_equal(alone.ids(i), windows.ids(i)) for i in range(len(words)))
    assert len(alone.segments) == sum(bool(word.strip()) for word in words)


@pytest.mark.parametrize("context_type", ["fullcontext", "nocontext", "halfcontext"])
def test_stored_windows_give_the_golden_tokens(golden_tokenizer, context_type):
    stimuli, tokens = np.load(GOLDEN / "stimuli.npz"), np.load(GOLDEN / "tokens_tl218.npz")
    texts = [text for story in STORIES for text in stimuli[f"{story}/stimuli_{context_type}"].tolist()]
    windows = stored_windows(texts, golden_tokenizer)
    ids, offsets = (tokens[f"tiny-gpt2/{context_type}/{what}"] for what in ("ids", "offsets"))
    for i in range(len(texts)):
        with_bos = ids[offsets[i] : offsets[i + 1]].tolist()
        assert windows.ids(i).tolist() == with_bos[1:]
    if context_type != "fullcontext":
        assert len(windows.segments) < len(texts) / 10, "windows that grow share a segment"


def test_stored_windows_that_are_too_long_are_counted_and_keep_their_end(golden_tokenizer):
    texts = ["try", "", "try suite finally", "raise the exception now and then"]
    whole = stored_windows(texts, golden_tokenizer)
    with pytest.warns(UserWarning, match="1 of 4 stored windows"):
        short = stored_windows(texts, golden_tokenizer, longest=5)
    assert short.ids(3).tolist() == whole.ids(3)[-5:].tolist()
    assert short.segment[1] == -1


def test_windows_that_share_a_beginning_share_a_segment(golden_tokenizer):
    words = "the raise statement is used to generate exceptions in the try suite and more".split() * 40
    n_segments = {
        kind: len(context_windows(words, golden_tokenizer, lookback=64, context_type=kind).segments)
        for kind in ("nocontext", "halfcontext", "strided")
    }
    n_tokens = int(tokenize_words(words, golden_tokenizer).ends[-1])
    assert n_segments["nocontext"] <= n_tokens / 64 * 1.2 + 1
    assert n_segments["halfcontext"] <= n_tokens / 32 + 1
    assert n_segments["strided"] <= n_tokens / 64 + 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"context_type": "sliding"},
            "context_type must be one of fullcontext, nocontext, halfcontext, strided; got 'sliding'",
        ),
        ({"lookback": 0}, r"lookback \(in tokens\) must be a whole number of 1 or more, got 0"),
        ({"lookback": 2.5}, "got 2.5"),
        ({"context_type": "strided", "stride": 0}, r"stride .* got 0"),
        ({"words": []}, "got 0 words"),
        ({"words": ["", " "]}, "got 2 words, none with text"),
    ],
)
def test_windows_that_cannot_be(golden_tokenizer, asked, message):
    options = {"words": ["a"], "lookback": 4, "context_type": "fullcontext"} | asked
    with pytest.raises(ValueError, match=message):
        context_windows(options.pop("words"), golden_tokenizer, **options)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["a", None], r"words: expected texts, got None \(number 1\)"),
        (["a", float("nan")], "words: expected texts, got nan"),
        ([b"a"], "words: expected texts, got b'a'"),
        (["a", "\ud83d"], "words: number 1, '.ud83d', contains half of a character"),
    ],
)
def test_words_that_are_no_texts(golden_tokenizer, words, says):
    for tokenizer in (golden_tokenizer, Slow(golden_tokenizer)):
        with pytest.raises(ValueError, match=says):
            context_windows(words, tokenizer, lookback=4, context_type="fullcontext")
    with pytest.raises(ValueError, match=says.replace("words", "contexts")):
        stored_windows(words, golden_tokenizer)


def test_the_digest_follows_the_tokens(golden_tokenizer):
    words = "the raise statement is used to generate exceptions".split()
    windows = {
        (lookback, kind, text): context_windows(
            text, golden_tokenizer, lookback=lookback, context_type=kind
        ).digest
        for lookback in (3, 4)
        for kind in ("fullcontext", "nocontext")
        for text in (tuple(words), (*words[:-1], "errors"))
    }
    assert len(set(windows.values())) == len(windows)
    again = context_windows(list(words), golden_tokenizer, lookback=3, context_type="nocontext").digest
    assert again == windows[3, "nocontext", tuple(words)]


def test_long_stories_are_tokenised_without_a_warning(golden_tokenizer):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        context_windows(["exception"] * 2000, golden_tokenizer, lookback=8, context_type="nocontext")


def test_the_digest_follows_where_windows_end_within_a_segment(golden_tokenizer):
    one, other = (
        stored_windows(["the", second, "the raise statement"], golden_tokenizer)
        for second in ("the", "the raise")
    )
    assert one.segment.tolist() == other.segment.tolist() == [0, 0, 0]
    assert one.ids(1).tolist() != other.ids(1).tolist()
    assert one.digest != other.digest
