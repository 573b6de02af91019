"""TextGrids as they are found: encodings, overlaps, empty intervals, and damaged copies of all three forms."""

import codecs
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from encoding_nb.assembly import Words
from encoding_nb.datasets import read_textgrid
from encoding_nb.datasets.marks import AUTHORS_BAD_WORDS, BAD_WORDS

from ..features.test_tokens import FORMS, long_form, quoted
from ..fuzz import N_COPIES, damaged_copies, no_hang

ENTRIES = [
    (0.0, 0.3, "{SL}"), (0.3, 0.70001, "The"), (0.7, 0.7, "a"), (0.7, 1.2, "caf\u00e9"), (1.2, 1.4, ""),
    (1.4, 2.0, 'said "so"'), (2.0, 2.5, "sp"), (2.5, 3.0, "{LG}"),
]  # fmt: skip
TIERS = [("phone", [(0.0, 1.5, "AH0"), (1.49999, 3.0, "T")]), ("word", ENTRIES)]
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16-le with mark": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be with mark": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "latin-1": lambda text: text.encode("latin-1"),
    "utf-8, Windows": lambda text: text.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("form", sorted(FORMS))
def test_every_form_and_encoding_with_overlapping_and_empty_intervals(tmp_path, form, encoding):
    path = tmp_path / "story.TextGrid"
    path.write_bytes(ENCODINGS[encoding](FORMS[form](TIERS, 3.0)))
    for tier in (1, "word", "Words"):
        words = read_textgrid(path, tier=tier)
        assert words.text == ("the", "a", "caf\u00e9", 'said "so"')
        np.testing.assert_array_equal(words.onsets, [0.3, 0.7, 0.7, 1.4])
        np.testing.assert_array_equal(words.offsets, [0.70001, 0.7, 1.2, 2.0])


def test_the_short_and_the_extended_list_of_marks(tmp_path):
    marks = ["sl", "cg", "ig", "", "br", "lg", "ls", "ns", "sp", "sentence_start", "sentence_end"]
    path = tmp_path / "story.TextGrid"
    entries = [(float(i), i + 1.0, text) for i, text in enumerate([*marks, "word"])]
    path.write_text(long_form([("word", entries)], len(entries)))
    assert read_textgrid(path).text == ("word",)
    assert read_textgrid(path, bad_words=AUTHORS_BAD_WORDS).text == ("sl", "cg", "ig", "", "word")
    assert set(marks) == BAD_WORDS and AUTHORS_BAD_WORDS < BAD_WORDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"' * 200_001, "a quotation mark that nothing closes|expected the file type|got"),
        ('"ooTextFile"\n"TextGrid"\n0\n1e999\n<exists>\n1e300\n', "the file ends before tier 1 begins"),
        ('"ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1e999\n', "as a whole number, got inf"),
        ('"ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1\n"IntervalTier"\n"word"\n0\n1\n999999999999\n', "the file ends"),
        ('"ooTextFile"\n"TextGrid"\n0\n1\n<exists>\n1\n"IntervalTier"\n"word"\n0\n1\n1\n0\n1e999\n"a"\n', "not finite"),
        ("x" * 500_000, "expected the file type"),
    ],
)  # fmt: skip
def test_files_made_to_hang_or_to_fill_memory(tmp_path, text, expected):
    path = tmp_path / "story.TextGrid"
    path.write_text(text)
    with no_hang(), pytest.raises(ValueError, match=expected):
        read_textgrid(path)


def test_damaged_copies_are_read_or_refused_in_a_sentence(tmp_path):
    contents = [
        ENCODINGS[encoding](FORMS[form](TIERS, 3.0))
        for form in sorted(FORMS)
        for encoding in ("utf-8", "utf-16-le with mark")
    ]
    path, outcomes = tmp_path / "story.TextGrid", set()
    with no_hang(), warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*unknown letter in Praat's spelling|.*the file goes on in line")
        for seed, content in enumerate(contents):
            for copy in damaged_copies(content, seed=seed, n=-(-N_COPIES // len(contents))):
                path.write_bytes(copy)
                try:
                    words = read_textgrid(path, tier=1, bad_words=BAD_WORDS)
                    assert isinstance(words, Words) and len(words) > 0
                    outcomes.add("read")
                except ValueError as error:
                    assert "story.TextGrid" in str(error)
                    outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# ---------------------------------------------------------------------- files that are cut off


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    form=st.sampled_from(sorted(FORMS)),
    encoding=st.sampled_from(sorted(ENCODINGS)),
    tier_after=st.booleans(),
    share=st.floats(0, 1, exclude_max=True),
)
@example(
    form="short", encoding="latin-1", tier_after=True, share=0.88671875
)  # within the head of the second tier
def test_wherever_a_file_is_cut_its_whole_entries_are_kept(tmp_path, form, encoding, tier_after, share):
    path, encode = tmp_path / "story.TextGrid", ENCODINGS[encoding]
    text = FORMS[form]([*TIERS, ("more", TIERS[0][1])] if tier_after else TIERS, 3.0)
    whole = encode(text)
    path.write_bytes(whole)
    words = read_textgrid(path, bad_words=frozenset())
    cut = int(share * len(whole))
    path.write_bytes(whole[:cut])
    # an entry is whole for sure when something stands behind its last quotation mark
    ends = [0]
    for _, _, word in ENTRIES:
        ends.append(
            text.index(quoted(word), text.index('"word"') if len(ends) == 1 else ends[-1]) + len(quoted(word))
        )
    there = sum(len(encode(text[: end + 1])) <= cut for end in ends[1:])
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", ".*it is not UTF-8")
        try:
            found = read_textgrid(path, bad_words=frozenset(), partial=True)
        except ValueError as error:
            assert there == 0 and "story.TextGrid" in str(error)
            return
    assert there <= len(found) <= there + 1 and found.text == words.text[: len(found)]
    np.testing.assert_array_equal(found.offsets, words.offsets[: len(found)])
    if len(found) < len(words):
        assert "the file ends" in str(heard[0].message) and len(heard) == 1


@pytest.mark.parametrize(
    ("form", "behind", "says"),
    [
        ("long", "size = 2\n", "the tiers are none; the file ends before tier 1 begins"),
        (
            "long",
            "AH0",
            "the tiers are 0: 'phone'; .* ends within a text after 0 of 2 entries of tier 'phone'",
        ),
        ("short", '"T"\n', "the tiers are 0: 'phone'; the file ends before tier 2 begins"),
        ("short", '"word"\n0\n3.0\n', "the tiers are .*; the file ends before tier 2 begins"),
        ("chronological", '"phone" 0', "the tiers are none; the file ends before tier 1 begins"),
    ],
)
def test_a_tier_that_a_cut_file_never_reaches(tmp_path, form, behind, says):
    path, text = tmp_path / "story.TextGrid", FORMS[form](TIERS, 3.0)
    path.write_text(text[: text.index(behind) + len(behind)])
    for tier in (1, "word"):
        with pytest.raises(ValueError, match=f"story.TextGrid: no tier is called '?{tier}'?; {says}"):
            read_textgrid(path, tier=tier, partial=True)
    with pytest.raises(ValueError, match=r"story.TextGrid, line \d+: "):
        read_textgrid(path)


@pytest.mark.parametrize("tail", ["", "{LG", '"', '""'])
def test_a_cut_before_the_first_word_leaves_nothing(tmp_path, tail):
    path, text = tmp_path / "story.TextGrid", FORMS["short"](TIERS, 3.0)
    path.write_text(text[: text.index("0.3\n0.70001\n") + 12] + tail)
    with pytest.raises(
        ValueError,
        match=r"none of the 1 intervals of tier 'word' is a word; the file ends .*after 1 of 8 entries",
    ):
        read_textgrid(path, partial=True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"bad_words": "sp"}, "read_textgrid: expected bad_words as a set of texts, got 'sp'; write {'sp'}"),
        ({"bad_words": 3}, "read_textgrid: expected bad_words as a set of texts, got 3"),
        ({"tier": None}, "read_textgrid: expected tier as a name or an index from 0, got None"),
        ({"tier": 1.5}, "read_textgrid: expected tier as a name or an index from 0, got 1.5"),
        ({"tier": True}, "read_textgrid: expected tier as a name or an index from 0, got True"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, arguments, says):
    path = tmp_path / "story.TextGrid"
    path.write_text(long_form(TIERS, 3.0))
    with pytest.raises(ValueError, match=says):
        read_textgrid(path, **arguments)
    assert len(read_textgrid(path, tier=np.int64(1), bad_words=sorted(BAD_WORDS))) == 4


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.TextGrid does not exist; check the path"):
        read_textgrid(tmp_path / "no.TextGrid")
    with pytest.raises(FileNotFoundError, match="is a folder, not a file; check the path"):
        read_textgrid(tmp_path)
    with pytest.raises(TypeError, match="read_textgrid: expected a path"):
        read_textgrid(None)


MARKS = (
    *(
        "sil",
        "SIL",
        "sp",
        "spn",
        "<eps>",
        "<sil>",
        "<unk>",
        "[noise]",
        "[laughter]",
        "[vocalized-noise]",
        "{laugh}",
    ),
    *(
        "{LG}",
        "{NS}",
        "{SL}",
        "{BR}",
        "{CG}",
        "<p:>",
        "<usb>",
        "<nib>",
        "#",
        "(silence)",
        "<s>",
        "</s>",
        "++breath++",
    ),
    *("xxx", "", " ", "sentence_start", "..."),
)


def test_marks_of_all_aligners_are_no_words_and_are_counted(tmp_path):
    words = ["rain", "(he", "spare", "silent", "a-", "nose", "<3"]
    labels = [label for mark in MARKS for label in ("rain", mark)] + words
    path = tmp_path / "aligned.TextGrid"
    path.write_text(grid_of(labels), encoding="utf-8")
    with pytest.warns(
        UserWarning, match=rf"{len(MARKS) - 2} labels mark silence or noise .*bad_words=\(\) keeps"
    ) as said:
        found = read_textgrid(path, lower=False)
    assert found.text == ("rain",) * len(MARKS) + tuple(words)
    assert len(said) == 1 and "'sil' 1" in str(said[0].message)
    assert len(read_textgrid(path, bad_words=())) == len(labels)


def test_a_textgrid_in_windows_1252(tmp_path):
    path = tmp_path / "old.TextGrid"
    path.write_bytes(grid_of(["that\u2019s", "fa\xe7ade", "\u0153uvre", "\u201cno\u201d"]).encode("cp1252"))
    with pytest.warns(UserWarning, match="old.TextGrid: it is not UTF-8, so it is read as Windows-1252"):
        assert read_textgrid(path).text == ("that\u2019s", "fa\xe7ade", "\u0153uvre", "\u201cno\u201d")


def test_letters_in_praats_spelling(tmp_path):
    path = tmp_path / "typed.TextGrid"
    path.write_text(
        grid_of([r"caf\e'", r'M\u"hle', r"stra\sse", r"gar\c,on", r"ni\n~o", r"s\o/t", r"h\oete", r"\I'dem"])
    )
    assert read_textgrid(path, lower=False).text == (
        "caf\xe9", "M\xfchle", "stra\xdfe", "gar\xe7on", "ni\xf1o", "s\xf8t", "h\u0153te", "\xcddem"
    )  # fmt: skip
    path.write_text(grid_of([r"a\qqb", "boat"]))
    with pytest.warns(UserWarning, match=r"has '\\\\qq', an unknown letter in Praat's spelling; it stays so"):
        assert read_textgrid(path).text == (r"a\qqb", "boat")


def grid_of(labels):
    """A long TextGrid with one tier of these labels, half a second each."""
    n = len(labels)
    head = (
        f'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0\nxmax = {n / 2}\ntiers? <exists>\n'
    )
    head += "size = 1\nitem []:\n"
    head += f'item [1]:\nclass = "IntervalTier"\nname = "words"\nxmin = 0\nxmax = {n / 2}\nintervals: size = {n}\n'
    return head + "".join(
        'intervals [{}]:\nxmin = {}\nxmax = {}\ntext = "{}"\n'.format(
            i + 1, i / 2, (i + 1) / 2, label.replace('"', '""')
        )
        for i, label in enumerate(labels)
    )


def test_a_file_that_goes_on_after_its_last_entry_says_so(tmp_path):
    """A size that is too small: Praat itself reads no further."""
    path, text = tmp_path / "story.TextGrid", FORMS["short"](TIERS[1:], 3.0)
    assert text.count("\n8\n") == 1
    path.write_text(text.replace("\n8\n", "\n6\n"))
    line = text[: text.index("\n2.0\n2.5") + 1].count("\n") + 1
    with pytest.warns(
        UserWarning, match=f"the file goes on in line {line}, after the last entry .* is not read"
    ):
        assert len(read_textgrid(path, tier="word", bad_words=())) == 6
