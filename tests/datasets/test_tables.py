"""BIDS-style tables of words."""

import csv
import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoding_nb.datasets import read_word_table
from encoding_nb.datasets.marks import is_mark

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
    path.write_bytes('\ufeffstart,end,w\r\n1.0,1.0,"a, b"\r\n\r\n2.0,,C\r\n'.encode())
    words = read_word_table(path, word_column="w", onset_column="start", lower=False)
    assert words.text == ("a, b", "C") and words.times.tolist() == [1.0, 2.0]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1).filter(
            lambda t: t.lower() != "n/a" and not ('"' in t and t[0] == t[-1] == '"')
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_word_comes_back(tmp_path, texts):
    path = tmp_path / "events.tsv"
    rows = "".join(f"{i}\t0.5\t{text}\n" for i, text in enumerate(texts))
    path.write_text(f"onset\tduration\tword\n{rows}", encoding="utf-8")
    words = read_word_table(path, word_column="word", lower=False, bad_words=())
    assert words.text == tuple(texts)
    np.testing.assert_array_equal(words.onsets, np.arange(len(texts)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "expected a column 'word' or 'words' or 'text' or 'token', got none; set word_column"),
        ("onset\tduration\n1\t2\n", "got onset, duration; set word_column"),
        ("at\tword\n1\ta\n", "expected a column 'onset' .* or 'tmin', got at, word; set onset_column"),
        ("onset\tword\nsoon\ta\n", r"events.tsv, line 2: expected onset in seconds, got 'soon'"),
        ("onset\tword\nn/a\ta\nn/a\tb\n", "none of 2 words has a time"),
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
    (tmp_path / "a.csv").write_text('onset,word\n1,"a\n')
    with pytest.raises(ValueError, match="cannot be read as a table"):
        read_word_table(tmp_path / "a.csv")


# ---------------------------------------------------------------------- dialects

WANTED = ("Hafen", "\u201eschlief\u201c", "war", "leer")
ONSETS, OFFSETS = [0.5, 0.9, 1.4, 2.0], [0.75, 1.2, 1.9, 2.5]


def table(delimiter, head, *, comma=False, quote=None, ends=False, words=WANTED):
    number = (lambda x: f"{x:.2f}".replace(".", ",")) if comma else (lambda x: f"{x:.2f}")
    quoted = (lambda text: f"{quote}{text}{quote}") if quote else (lambda text: text)
    last = OFFSETS if ends else [b - a for a, b in zip(ONSETS, OFFSETS, strict=True)]
    rows = [
        delimiter.join([number(a), number(b), quoted(w)]) for a, b, w in zip(ONSETS, last, words, strict=True)
    ]
    return "\n".join([delimiter.join(head), *rows]) + "\n"


DIALECTS = {
    "bids.tsv": table("\t", ["onset", "duration", "word"]).encode(),
    "excel.csv": table(";", ["onset", "duration", "word"], comma=True).encode(),
    "excel-utf8.csv": table(";", ["onset", "duration", "word"], comma=True).encode("utf-8-sig"),
    "excel.txt": table("\t", ["Onset", "Duration", "Word"], comma=True).encode("utf-16"),
    "comma.csv": table(",", ["start", "end", "word"], ends=True).encode(),
    "praat.tsv": table("\t", ["tmin", "tmax", "text"], ends=True).encode(),
    "le-petit-prince.csv": table(",", ["onset", "offset", "word"], ends=True).encode(),
    "tabs.csv": table("\t", ["onset", "duration", "word"]).encode(),
    "commas.tsv": table(",", ["onset", "duration", "word"]).encode(),
    "r.tsv": table("\t", ['"onset"', '"duration"', '"word"'], quote='"').encode(),
    "r-no-head.tsv": table("\t", ["onset", "duration", "word"], quote='"').encode(),
    "upper.tsv": table("\t", [" ONSET ", "DURATION", "WORD"]).encode(),
    "windows.csv": table(";", ["onset", "duration", "word"], comma=True).encode("cp1252"),
    "mac.csv": table(",", ["onset", "duration", "word"]).replace("\n", "\r\n").encode("utf-8-sig"),
    "semicolons.tsv": table(";", ["onset", "duration", "word"]).encode(),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.filterwarnings("ignore:.*read as Windows-1252")
def test_tables_in_the_dialects_that_programs_write(tmp_path, name):
    (tmp_path / name).write_bytes(DIALECTS[name])
    words = read_word_table(tmp_path / name, lower=False)
    assert words.text == WANTED
    np.testing.assert_allclose(words.onsets, ONSETS)
    np.testing.assert_allclose(words.offsets, OFFSETS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1).filter(lambda t: not is_mark(t)),
        min_size=2, max_size=8,
    ),
    delimiter=st.sampled_from("\t,;"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    end=st.sampled_from(["duration", "offset", "end"]),
    comma=st.booleans(),
)  # fmt: skip
def test_a_table_in_any_dialect_comes_back(tmp_path, texts, delimiter, quoting, encoding, end, comma):
    words = [f'{text}, "{i}"' if i % 2 and quoting != csv.QUOTE_ALL else text for i, text in enumerate(texts)]
    onsets = np.arange(len(words)) * 0.75 + 0.25
    ends = np.full(len(words), 0.5) if end == "duration" else onsets + 0.5
    number = (lambda x: str(x).replace(".", ",")) if comma and delimiter != "," else str
    buffer = io.StringIO()
    writer = csv.writer(buffer, delimiter=delimiter, quoting=quoting, lineterminator="\n")
    writer.writerow(["onset", end, "word"])
    writer.writerows(
        [number(float(a)), number(float(b)), w] for a, b, w in zip(onsets, ends, words, strict=True)
    )
    path = tmp_path / "words.tsv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    found = read_word_table(path, word_column="word", lower=False)
    assert found.text == tuple(words)
    np.testing.assert_allclose(found.onsets, onsets)
    np.testing.assert_allclose(found.offsets, onsets + 0.5)


def test_quotes_as_pandas_writes_them_and_as_bids_does(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text('onset\tword\n1\t"""well,"\n2\the\n3\t"said"""\n')
    assert read_word_table(path).text == ('"well,', "he", 'said"')
    path.write_text('onset\tword\n1\t"well,\n2\the\n3\tsaid"\n')
    assert read_word_table(path).text == ('"well,', "he", 'said"')


def test_a_table_that_is_not_utf8_says_how_it_is_read(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_bytes("onset\tword\n1\tcaf\xe9\n2\tthat\u2019s\n".encode("cp1252"))
    with pytest.warns(UserWarning, match=r"events.tsv: it is not UTF-8, so it is read as Windows-1252"):
        assert read_word_table(path).text == ("caf\xe9", "that\u2019s")


def test_the_align_csv_of_gentle_has_no_names(tmp_path):
    path = tmp_path / "align.csv"
    path.write_text("Seven,seven,3.10,3.45\n1931,,,\nBoats,boats,4.02,4.40\nqua,<unk>,5,5.5\n")
    with pytest.warns(
        UserWarning, match=r"1 of 4 words have no onset, first '1931' in line 2: they are context"
    ):
        words = read_word_table(path)
    assert words.text == ("seven", "1931", "boats", "qua") and words.timed.tolist() == [
        True,
        False,
        True,
        True,
    ]
    assert words.offsets[[0, 2]].tolist() == [3.45, 4.4]


EVENTS = "onset\tduration\ttrial_type\tvalue\n0.5\t0.2\tharbour\t17\n0.9\t0.3\twas\t4\n1.4\t0.4\tempty\t9\n"


def test_the_column_of_words_is_found_by_content_or_asked_for(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text(EVENTS)
    assert read_word_table(path).text == ("harbour", "was", "empty")
    assert read_word_table(path, word_column="value").text == ("17", "4", "9")
    path.write_text(EVENTS.replace("17", "the").replace("4\n", "boat\n").replace("9\n", "left\n"))
    with pytest.raises(
        ValueError, match=r"'trial_type' has 'harbour', 'was', 'empty'; 'value' has 'the', 'boat', .*set word"
    ):
        read_word_table(path)
    assert read_word_table(path, word_column="value").text == ("the", "boat", "left")
    path.write_text("onset\ttrial_type\n" + "".join(f"{i}\tspeech\n" for i in range(12)))
    with pytest.raises(ValueError, match="'trial_type' has only 'speech' in all rows"):
        read_word_table(path)
    path.write_text("onset\tvalue\n1\t3\n2\t4\n")
    with pytest.raises(ValueError, match="no column of words is found, only numbers: 'value' has '3', '4'"):
        read_word_table(path)
    path.write_text("onset\tlabel\n1\ta\n2\tb\n")
    with pytest.raises(ValueError, match=r"set word_column, such as word_column='label' \('a', 'b'\)"):
        read_word_table(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("onset\tword\tWord\n1\ta\tb\n", "expected each column once, got 'word' twice"),
        ("1\ta\n2\tb\n", "expected the names of columns in line 1, .* got 1, a; add a line of names"),
        ("onset\tduration\tend\tword\n1\t1\t2\ta\n3\t4\t4\tb\n4\t5\t5\tc\n",
         "line 3: by 'duration' the word ends at 7.000 s, by 'end' at 4.000 s; choose with"),
        ("onset\tword\n1,234.5\ta\n2\tb\n", "line 2: expected onset in seconds, got '1,234.5'"),
        ("onset\tword\n1.5\ta\n2,5\tb\n", "line 3: expected onset in seconds, got '2,5'"),
    ],
)  # fmt: skip
def test_tables_that_could_be_read_in_two_ways_are_refused(tmp_path, content, says):
    path = tmp_path / "events.tsv"
    path.write_text(content)
    with pytest.raises(ValueError, match=rf"events\.tsv.*: .*{says}|events\.tsv, {says}"):
        read_word_table(path)


RUNS = "onset\tword\tsection\n0.1\tonce\t1\n0.5\twhen\t1\n61\tlived\t1\n0.2\tlater\t2\n0.6\tthat\t2\n60\tday\t2\n"


def test_rows_of_one_run_in_a_table_of_several(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text(RUNS)
    says = r"onsets start again at word 3 \('later'\).* several runs.* rows={\"section\": '1'} takes the rows of one"
    with pytest.raises(ValueError, match=says) as raised:
        read_word_table(path)
    assert "sort" not in str(raised.value)
    assert read_word_table(path, rows={"section": 2}).text == ("later", "that", "day")
    assert read_word_table(path, rows={"Section": ["1"]}).onsets.tolist() == [0.1, 0.5, 61.0]
    with pytest.raises(ValueError, match="no row has section 3; it has 1, 2"):
        read_word_table(path, rows={"section": 3})


def test_marks_in_a_table_are_counted_and_can_be_kept(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tword\n1\t<eps>\n2\tthe\n3\tsil\n4\tboat\n5\tsil\n")
    with pytest.warns(
        UserWarning, match=r"3 labels mark silence or noise and are left out: 'sil' 2, '<eps>' 1"
    ):
        assert read_word_table(path).text == ("the", "boat")
    assert len(read_word_table(path, bad_words=())) == 5
    assert read_word_table(path, bad_words={"the"}).text == ("<eps>", "sil", "boat", "sil")


def test_numbers_are_not_words_whatever_their_column_is_called(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text("word;text;onset\n1;boat;0,5\n2;left;1,5\n")
    assert read_word_table(path).text == ("boat", "left")
    path.write_text("word;onset;value\n1;0,5;1,5\n2;1,5;2,5\n")
    with pytest.raises(
        ValueError, match="no column of words is found, only numbers: 'word' has '1', '2'; 'value' has"
    ):
        read_word_table(path)
    assert read_word_table(path, word_column="word").text == ("1", "2")


def test_one_duration_that_disagrees_or_is_missing(tmp_path):
    path = tmp_path / "events.tsv"
    rows = "".join(f"{i}\t0.5\t{i + 0.5}\tw{i}\n" for i in range(9))
    path.write_text(f"onset\tduration\tend\tword\n{rows}9\tn/a\t9.75\tlast\n10\tn/a\tn/a\tend\n")
    assert read_word_table(path).offsets[-3:].tolist() == [8.5, 9.75, 10.0]
    path.write_text(f"onset\tduration\tend\tword\n{rows}9\t0.5\t9.75\tlast\n")
    with pytest.raises(
        ValueError, match=r"line 11: by 'duration' the word ends at 9.500 s, by 'end' at 9.750 s"
    ):
        read_word_table(path)


@pytest.mark.parametrize(
    ("label", "mark"),
    [
        ("[[noise]]", True),
        ("(a (long) pause)", True),
        ("<s> [noise]", True),
        ("++breath++", True),
        ("(((silence)))", True),
        ("SIL", True),
        ("[well] no [yes]", False),  # begins and ends with a bracket, and a word is between
        ("(he) said (so)", False),
        ("un(believable)", False),
        ("c++", False),
        ("<3", False),
    ],
)
def test_brackets_within_brackets_are_marks_and_words_between_are_none(label, mark):
    assert is_mark(label) == mark


def test_marks_of_ones_own_are_found_in_any_case(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("onset\tword\n1\tboat\n2\tUM\n3\tum\n")
    with pytest.warns(UserWarning, match="'UM' 1, 'um' 1"):
        assert read_word_table(path, bad_words={"Um"}).text == ("boat",)
    with pytest.raises(ValueError, match=r"expected bad_words as a set of texts, got \[1\]"):
        read_word_table(path, bad_words=[1])


LONE = "onset,duration,word,note\n0,1,we,{0}\n1,1,said,x\n2,1,it,y\n3,1,twice,{1}\n4,1,over,z\n"


def test_a_quotation_mark_that_nothing_closes(tmp_path):
    path = tmp_path / "events.csv"
    path.write_text(LONE.format("", ""))
    assert len(read_word_table(path)) == 5
    path.write_text(LONE.format('"', '"'))  # of the rows between, nothing would be read
    with pytest.raises(
        ValueError, match=r"events.csv, line 2: one cell holds whole rows, .* that nothing closes"
    ):
        read_word_table(path)
    path.write_text('onset,word\n0,we\n1,"\n2,"\n3,out\n')
    with pytest.raises(
        ValueError, match=r"events.csv, line 3: .*that nothing closes\? A cell that is one is written"
    ):
        read_word_table(path)
    path.write_text('onset,note,word\n0,"first\nsecond, third, fourth",we\n1,,are\n')
    assert read_word_table(path).text == ("we", "are"), "a note of several lines is no row"
    path.write_text('onset,note,word\n0,,"we\nare"\n')
    with pytest.raises(ValueError, match=r"line 2: expected a word, got several lines, 'we\\nare'"):
        read_word_table(path)


def test_columns_named_by_numbers_and_empty_lines_above(tmp_path):
    path = tmp_path / "features.csv"
    path.write_text("\n\nonset;word;0;1;2\n0,5;we;1,5;2;3\n1,5;are;1;2;3\n")
    words = read_word_table(path)
    assert words.text == ("we", "are") and words.onsets.tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    "option", ["word_column", "onset_column", "duration_column", "offset_column", "rows"]
)
def test_options_that_cannot_be(tmp_path, option):
    path = tmp_path / "events.tsv"
    path.write_text(BIDS)
    with pytest.raises(ValueError, match=f"read_word_table: expected {option}.* got 3"):
        read_word_table(path, **{option: 3})
