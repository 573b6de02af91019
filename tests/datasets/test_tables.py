"""BIDS-style tables of words."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoding_nb.datasets import read_word_table

BIDS = 'onset\tduration\ttrial_type\n0.5\t0.25\tThe\n0.75\tn/a\tCat\n1.5\t0.5\tn/a\n2\t0.5\tsaid "so"\n'


def test_a_bids_events_file(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text(BIDS)
    with pytest.warns(UserWarning, match="1 of 4 rows have no word and are left out"):
        words = read_word_table(path)
    assert words.text == ("the", "cat", 'said "so"')
    assert words.onsets.tolist() == [0.5, 0.75, 2.0] and words.offsets.tolist() == [0.75, 0.75, 2.5]


def test_other_columns_and_commas(tmp_path):
    path = tmp_path / "words.csv"
    path.write_bytes('\ufeffstart,end,w\r\n1.0,x,"a, b"\r\n\r\n2.0,x,C\r\n'.encode())
    words = read_word_table(path, word_column="w", onset_column="start", lower=False)
    assert words.text == ("a, b", "C") and words.times.tolist() == [1.0, 2.0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1).filter(
            lambda t: t.lower() != "n/a"
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_word_comes_back(tmp_path, texts):
    path = tmp_path / "events.tsv"
    rows = "".join(f"{i}\t0.5\t{text}\n" for i, text in enumerate(texts))
    path.write_text(f"onset\tduration\tword\n{rows}", encoding="utf-8")
    words = read_word_table(path, lower=False)
    assert words.text == tuple(texts)
    np.testing.assert_array_equal(words.onsets, np.arange(len(texts)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "expected the columns 'onset' and 'word or words or text"),
        ("onset\tduration\n1\t2\n", "got onset, duration; set onset_column, word_column"),
        ("onset\tword\nsoon\ta\n", r"events.tsv, line 2: expected onset in seconds, got 'soon'"),
        ("onset\tword\n1\ta\nn/a\tb\n", r"line 3: expected onset in seconds, got 'n/a'"),
        ("onset\tword\tduration\n1\ta\tinf\n", "line 2: expected duration in seconds, got 'inf'"),
        ("onset\tword\n1\ta\tb\n", r"line 2: expected 2 columns, got 3"),
        ("onset\tword\n2\ta\n1\tb\n", r"events.tsv: Words: word 1 .* starts before"),
        ("onset\tword\n1\tn/a\n", "none of its 1 rows has a word in column 'word'"),
        ("onset\tword\tduration\n1\ta\t-1\n", "word 0 .* ends before it starts"),
    ],
)
def test_tables_that_cannot_be(tmp_path, content, says):
    path = tmp_path / "events.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=says):
        read_word_table(path)


def test_a_column_of_durations_that_is_named_must_be_there(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tword\tlength\n1\ta\t0.5\n")
    assert read_word_table(path, duration_column="length").offsets.tolist() == [1.5]
    assert read_word_table(path).offsets.tolist() == [1.0]
    with pytest.raises(
        ValueError, match=r"events.tsv: expected the column 'durr', got onset, word, length; omit"
    ):
        read_word_table(path, duration_column="durr")


def test_files_that_are_no_tables(tmp_path):
    path = tmp_path / "events.tsv"
    with pytest.raises(FileNotFoundError, match="is a folder, not a file; check the path"):
        read_word_table(tmp_path)
    with pytest.raises(TypeError, match="read_word_table: expected a path"):
        read_word_table(None)
    with pytest.raises(FileNotFoundError, match="does not exist; check the path"):
        read_word_table(path)
    path.write_bytes(b"onset\tword\n1\t\xff\xfe\n")
    with pytest.raises(ValueError, match=r"cannot be read as a UTF-8 table .*position 13"):
        read_word_table(path)
    (tmp_path / "a.csv").write_text('onset,word\n1,"a\n')
    with pytest.raises(ValueError, match="cannot be read as a UTF-8 table"):
        read_word_table(tmp_path / "a.csv")
