"""TextGrids as they are found: encodings, overlaps, empty intervals, and damaged copies of all three forms."""

import codecs
import warnings

import numpy as np
import pytest

from encoding_nb.assembly import Words
from encoding_nb.stimuli import AUTHORS_BAD_WORDS, BAD_WORDS, read_textgrid

from .fuzz import N_COPIES, damaged_copies, no_hang
from .test_stimuli import FORMS, long_form

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
        ('"ooTextFile"\n"TextGrid"\n0\n1e999\n<exists>\n1e300\n', "expected"),
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
        for seed, content in enumerate(contents):
            for copy in damaged_copies(content, seed=seed, n=-(-N_COPIES // len(contents))):
                path.write_bytes(copy)
                try:
                    words = read_textgrid(path, tier=1)
                    assert isinstance(words, Words) and len(words) > 0
                    outcomes.add("read")
                except ValueError as error:
                    assert "story.TextGrid" in str(error)
                    outcomes.add("refused")
    assert outcomes == {"read", "refused"}
