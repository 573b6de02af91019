"""Read word timings from tables: BIDS events files, and others with a column each for word and onset.

BIDS: tab-separated, `onset` and `duration` in seconds, "n/a" for missing values (bids-specification.readthedocs.io,
"Task events"). Tables of others have commas or semicolons, decimal commas, quotes, ends in place of durations, names of
their own for the columns, or no names at all (the align.csv of Gentle).
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from .._validation import as_path, shorten
from ..assembly import Words
from ._checks import check_downloaded
from .marks import check_marks, is_mark, tell_left_out
from .textgrid import decode, warn_of_windows

# tried in this order, in upper or lower case
WORD_COLUMNS = ("word", "words", "text", "token")
EVENT_COLUMNS = ("trial_type", "value", "stim_file")  # of BIDS: one of them may hold the words
ONSET_COLUMNS = ("onset", "onsets", "start", "begin", "start_time", "onset_time", "xmin", "tmin")
DURATION_COLUMNS = ("duration", "dur")
OFFSET_COLUMNS = ("offset", "offsets", "end", "stop", "end_time", "offset_time", "xmax", "tmax")
MISSING = ("n/a", "")
_NO_TIME = (*MISSING, "nan", "na", "none", "null")
_GENTLE = ("word", "alignedWord", "start", "end")  # align.csv has no line of names
_DISAGREE = 0.05  # seconds by which onset + duration may differ from a column of ends
_LONE_QUOTE = 'is there a quotation mark that nothing closes? A cell that is one is written """".'
_MOST_ROWS_ALIKE = 10  # so many rows with one text are no words


def read_word_table(
    path: str | Path,
    *,
    word_column: str | None = None,
    onset_column: str | None = None,
    duration_column: str | None = None,
    offset_column: str | None = None,
    rows: Mapping[str, Any] | None = None,
    bad_words: Collection[str] | None = None,
    lower: bool = True,
) -> Words:
    """Words with their times from a table, such as a BIDS events file.

    Parameters
    ----------
    path : file
        Columns divided by tabs, commas or semicolons; UTF-8, UTF-16 or Windows-1252; the first line has the columns'
        names (or none, for the align.csv of Gentle). Names are compared in upper or lower case. Numbers may have
        decimal commas where columns are not divided by commas.
    word_column : str, optional
        None takes "word", "words", "text" or "token", or the only one of BIDS' "trial_type", "value" and "stim_file"
        that holds texts.
    onset_column : str, optional
        Seconds. On which clock is up to the file: in a BIDS events file from the first volume of the run, in others
        often from the start of the sound (see `first_tr` of `Assembly.from_arrays`). None takes "onset", "start" or
        another usual name.
    duration_column, offset_column : str, optional
        Seconds; how long a word lasts, or when it ends. None takes "duration", or else "offset", "end" or another usual
        name, if the table has it. Without them, or where they are missing, a word ends when it starts.
    rows : {column: value or values}, optional
        Read only the rows with these values, such as ``{"section": 1}`` in a table of several runs.
    bad_words : set of str, optional
        Marks of silence and noise, which are left out with a warning that counts them; see `marks.is_mark`.
    lower : bool
        Whether to convert words to lower case.

    Returns
    -------
    Words. Rows without a word ("n/a" or empty: pauses, button presses) are left out, with a warning. A word without an
    onset ("n/a", empty or NaN: an aligner did not find it) has NaN times, with a warning.

    Raises
    ------
    FileNotFoundError
        No such file, or one that was not downloaded.
    ValueError
        Columns that are missing, named twice, or may all hold the words; durations and ends that disagree; times that
        are not numbers, or not in order; the message gives file and line.
    TypeError
        `path` is not a path.
    """
    path = as_path(path, "read_word_table")
    for option, name in (
        ("word_column", word_column),
        ("onset_column", onset_column),
        ("duration_column", duration_column),
        ("offset_column", offset_column),
    ):
        if name is not None and not isinstance(name, str):
            raise ValueError(f"read_word_table: expected {option} as the name of a column, got {name!r}.")
    if rows is not None and not isinstance(rows, Mapping):
        raise ValueError(f'read_word_table: expected rows such as {{"run": 1}}, got {rows!r}.')
    check_marks(bad_words, "read_word_table")
    check_downloaded(path, how="check the path")
    table = _read_table(path).only(rows)
    word_column = word_column or _word_column(table)
    texts = table.column(word_column, "set word_column")
    onset_name = table.one_of([onset_column] if onset_column else ONSET_COLUMNS, "onset_column")
    onsets = table.seconds(onset_name)
    offsets = _offsets(table, onsets, duration_column, offset_column)
    missing = [text.strip().lower() in MISSING for text in texts]
    marks = [not gone and is_mark(text, bad_words) for text, gone in zip(texts, missing, strict=True)]
    kept = [i for i in range(len(texts)) if not missing[i] and not marks[i]]
    if not kept:
        raise ValueError(f"{path}: none of its {len(texts)} rows has a word in column {word_column!r}.")
    if any(missing):
        _progress.warn(
            f"{path}: {sum(missing)} of {len(texts)} rows have no word and are left out.", stacklevel=2
        )
    tell_left_out(path, Counter(text.strip() for text, mark in zip(texts, marks, strict=True) if mark))
    untimed = [i for i in kept if math.isnan(onsets[i])]
    if untimed and len(untimed) < len(kept):
        _progress.warn(
            f"{path}: {len(untimed)} of {len(kept)} words have no onset, first {texts[untimed[0]].strip()!r} in line "
            f"{table.lines[untimed[0]]}: they are context for a language model, but no TR samples them.",
            stacklevel=2,
        )
    words = [texts[i].strip().lower() if lower else texts[i].strip() for i in kept]
    _refuse_lines(table, kept, words)
    try:
        return Words(tuple(words), onsets[kept], offsets[kept])
    except ValueError as error:
        raise ValueError(f"{path}: {error}{_runs(table, onsets)}") from error


def _refuse_lines(table: _Table, kept: list[int], words: list[str]) -> None:
    """Refuse a word of several lines."""
    for row, word in zip(kept, words, strict=True):
        if "\n" in word or "\r" in word:
            raise ValueError(
                f"{table.path}, line {table.lines[row]}: expected a word, got several lines, {shorten(repr(word))}; "
                f"{_LONE_QUOTE}"
            )


def _offsets(
    table: _Table, onsets: np.ndarray, duration_column: str | None, offset_column: str | None
) -> np.ndarray:
    """(n_rows,) seconds, from columns of durations and of ends; the onsets where there is neither."""
    if duration_column and offset_column:
        raise ValueError(
            f"{table.path}: expected duration_column or offset_column, got both; give one of them."
        )
    named = duration_column or offset_column
    if named:
        table.column(named, f"omit {'duration_column' if duration_column else 'offset_column'}")
    duration = duration_column or (None if named else table.find(DURATION_COLUMNS))
    end = offset_column or (None if named else table.find(OFFSET_COLUMNS))
    by_duration = None if duration is None else onsets + table.seconds(duration)
    ends = None if end is None else table.seconds(end)
    if by_duration is not None and ends is not None:
        differ = np.abs(by_duration - ends) > _DISAGREE
        if differ.any():
            row = int(differ.argmax())
            raise ValueError(
                f"{table.path}, line {table.lines[row]}: by {duration!r} the word ends at {by_duration[row]:.3f} s, by "
                f"{end!r} at {ends[row]:.3f} s; choose with duration_column or offset_column."
            )
    known = np.full(len(onsets), np.nan)
    for found in (by_duration, ends, onsets):  # each where those before are missing
        if found is not None:
            known = np.where(np.isnan(known), found, known)
    return np.where(np.isnan(onsets), np.nan, known)


def _word_column(table: _Table) -> str:
    """The column that holds the words, by its name and its content."""
    named = [name for name in WORD_COLUMNS if table.find([name])]
    known = [name for name in EVENT_COLUMNS if table.find([name])]
    for name in named:  # one of numbers is an index, or a code
        if table.holds_texts(name) or not table.given(name):
            return name
    texts = [name for name in known if table.holds_texts(name)]
    if len(texts) == 1:
        values = {text.strip() for text in table.column(texts[0])} - set(MISSING)
        if len(values) != 1 or len(table.lines) < _MOST_ROWS_ALIKE:
            return texts[0]
        raise ValueError(
            f"{table.path}: column {texts[0]!r} has only {values.pop()!r} in all rows, which is not a list of words; "
            f"set word_column, one of {', '.join(table.columns)}."
        )
    if texts:
        shown = "; ".join(f"{name!r} has {table.examples(name)}" for name in texts)
        raise ValueError(f"{table.path}: more than one column may hold the words: {shown}; set word_column.")
    if named or known:
        shown = "; ".join(f"{name!r} has {table.examples(name)}" for name in named + known)
        raise ValueError(
            f"{table.path}: no column of words is found, only numbers: {shown}; set word_column."
        )
    others = [name for name in table.columns if table.holds_texts(name)]
    hint = f", such as word_column={others[0]!r} ({table.examples(others[0])})" if others else ""
    raise ValueError(
        f"{table.path}: expected a column {' or '.join(map(repr, WORD_COLUMNS))}, got "
        f"{', '.join(table.columns) or 'none'}; set word_column{hint}."
    )


def _runs(table: _Table, onsets: np.ndarray) -> str:
    """Advice where onsets start again: the columns by which the rows of one run can be chosen."""
    timed = np.flatnonzero(np.isfinite(onsets))
    back = timed[1:][np.diff(onsets[timed]) < 0]
    changing = []
    for name in table.columns:
        values = [cell.strip() for cell in table.column(name)]
        changes = {i for i in range(1, len(values)) if values[i] != values[i - 1]}
        if len(back) and changes and changes <= {int(i) for i in back}:
            changing.append((name, values[0]))
    if not changing:
        return ""
    name, first = changing[0]
    return (
        f' rows={{"{name}": {first!r}}} takes the rows of one run, for example (line {table.lines[back[0]]}).'
    )


# ---------------------------------------------------------------------- the cells of a table


@dataclass(frozen=True)
class _Table:
    """The rows of a table as texts; an error names file and line."""

    path: Path
    columns: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    decimal_commas: bool

    def find(self, names: Iterable[str]) -> str | None:
        """The first of the names that is a column, in upper or lower case."""
        by_name = {column.lower(): column for column in self.columns}
        return next((by_name[name.lower()] for name in names if name.lower() in by_name), None)

    def one_of(self, names: Iterable[str], option: str) -> str:
        """As `find`; an error where there is none."""
        names = list(names)
        found = self.find(names)
        if found is None:
            wanted = " or ".join(map(repr, names))
            got = ", ".join(self.columns) or "none"
            raise ValueError(f"{self.path}: expected a column {wanted}, got {got}; set {option}.")
        return found

    def column(self, name: str, advice: str = "check its name") -> list[str]:
        """(n_rows,) texts."""
        found = self.find([name])
        if found is None:
            got = ", ".join(self.columns) or "none"
            raise ValueError(f"{self.path}: expected the column {name!r}, got {got}; {advice}.")
        number = self.columns.index(found)
        return [row[number] for row in self.cells]

    def only(self, rows: Mapping[str, Any] | None) -> _Table:
        """The rows with these values; numbers are compared as numbers."""
        kept = range(len(self.cells))
        for name, wanted in (rows or {}).items():
            values = [wanted] if isinstance(wanted, str) or not np.iterable(wanted) else list(wanted)
            known = self.column(name, "check rows")
            kept = [i for i in kept if any(_same(known[i], value) for value in values)]
            if not kept:
                got = ", ".join(dict.fromkeys(cell.strip() for cell in known))
                raise ValueError(f"{self.path}: no row has {name} {wanted!r}; it has {shorten(got)}.")
        return _Table(
            self.path,
            self.columns,
            tuple(self.cells[i] for i in kept),
            tuple(self.lines[i] for i in kept),
            self.decimal_commas,
        )

    def seconds(self, name: str, *, missing: float = math.nan) -> np.ndarray:
        """(n_rows,) numbers of a column; `missing` where it has none."""
        texts = [text.strip() for text in self.column(name)]
        # a point anywhere in the column: a comma is then no decimal comma
        commas = self.decimal_commas and not any("." in text for text in texts)
        found = np.full(len(texts), missing)
        for row, text in enumerate(texts):
            if text.lower() in _NO_TIME:
                continue
            plain = text.replace(",", ".") if commas and re.fullmatch(r"[-+]?\d*,\d+", text) else text
            try:
                value = float(plain)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise ValueError(
                    f"{self.path}, line {self.lines[row]}: expected {name} in seconds, got {shorten(repr(text))}."
                )
            found[row] = value
        return found

    def holds_texts(self, name: str) -> bool:
        """Whether most of a column's cells, but for those that are missing, are not numbers."""
        cells = self.given(name)
        return sum(not _is_number(cell) for cell in cells) > len(cells) / 2

    def given(self, name: str) -> list[str]:
        """The cells of a column that are not missing."""
        cells = (cell.strip() for cell in self.column(name))
        return [cell for cell in cells if cell.lower() not in _NO_TIME]

    def examples(self, name: str) -> str:
        """The first few texts of a column, for a message."""
        cells = dict.fromkeys(cell.strip() for cell in self.column(name))
        return ", ".join(shorten(repr(cell), 20) for cell in list(cells)[:3]) or "nothing"


def _same(cell: str, value: Any) -> bool:
    text, wanted = cell.strip(), str(value).strip()
    return text == wanted or (_is_number(text) and _is_number(wanted) and _number(text) == _number(wanted))


def _is_number(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?", text))


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def _read_table(path: Path) -> _Table:
    content, utf = decode(path.read_bytes())
    if not utf:
        warn_of_windows(path, stacklevel=4)
    head = content.lstrip("\ufeff\r\n").split("\n", 1)[0]
    delimiter = _delimiter(head, path)
    try:
        cells = _cells(content, delimiter)
    except csv.Error as error:
        raise ValueError(
            f"{path}: cannot be read as a table ({error}); save it as UTF-8 with tabs."
        ) from error
    numbered = [(line, row) for line, row in cells if any(cell.strip() for cell in row)]
    columns = tuple(name.strip() for name in numbered[0][1]) if numbered else ()
    if numbered and _without_names(numbered):
        columns = _GENTLE
    elif numbered and any(_is_number(name) for name in columns) and not _known(columns):
        raise ValueError(
            f"{path}: expected the names of columns in line 1, such as onset, duration and word, got "
            f"{shorten(', '.join(columns))}; add a line of names."
        )
    else:
        numbered = numbered[1:]
    twice = [name for name, n in Counter(name.lower() for name in columns).items() if n > 1 and name]
    if twice:
        raise ValueError(f"{path}: expected each column once, got {twice[0]!r} twice; rename one of them.")
    for line, row in numbered:
        if len(row) != len(columns):
            raise ValueError(f"{path}, line {line}: expected {len(columns)} columns, got {len(row)}.")
        for cell in row:
            if any(_is_row(text, delimiter, len(columns)) for text in cell.split("\n")[1:]):
                raise ValueError(
                    f"{path}, line {line}: one cell holds whole rows, {shorten(repr(cell))}; {_LONE_QUOTE}"
                )
    return _Table(
        path,
        columns,
        tuple(tuple(row) for _, row in numbered),
        tuple(line for line, _ in numbered),
        delimiter != ",",
    )


def _delimiter(head: str, path: Path) -> str:
    """What divides the columns, from the line of names: by the file's ending, if the line has it at all."""
    plain = re.sub(r'"[^"]*"', "", head)
    usual = "," if path.suffix.lower() == ".csv" else "\t"
    if usual == "," and ";" in plain and plain.count(";") > plain.count(","):
        return ";"
    return next((mark for mark in (usual, "\t", ";", ",") if mark in plain), usual)


def _cells(content: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """[(line, cells)] of all rows."""
    if delimiter == "\t":
        lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        plain = [(number, line.split("\t")) for number, line in enumerate(lines, start=1)]
        if not _is_quoted([row for _, row in plain if any(row)]):
            return plain
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    rows, line = [], 1
    for row in reader:
        rows.append((line, row))
        line = reader.line_num + 1
    return rows


def _is_quoted(rows: list[list[str]]) -> bool:
    """Whether quotation marks surround the cells of a table with tabs, as pandas and R write them.

    In a BIDS table a quotation mark is a character like any other. Pandas quotes cells that hold one, and doubles it;
    R quotes all texts, so that every cell of a column is quoted.
    """
    quoted = [cell for row in rows for cell in row if '"' in cell]
    if not quoted or not all(re.fullmatch(r'"([^"]|"")*"', cell) for cell in quoted):
        return False
    if any('""' in cell[1:-1] for cell in quoted):
        return True
    columns = list(zip(*rows[1:], strict=False))
    return any(column and all(len(c) > 1 and c[0] == c[-1] == '"' for c in column) for column in columns)


def _is_row(text: str, delimiter: str, n_columns: int) -> bool:
    """Whether a line within a cell looks like a row of the table: as many columns, with a number in one."""
    cells = text.split(delimiter)
    return len(cells) == n_columns > 1 and any(map(_is_number, cells))


def _known(columns: Collection[str]) -> bool:
    """Whether one of these names is usual; further columns may have numbers as names, as in pandas."""
    usual = {*WORD_COLUMNS, *EVENT_COLUMNS, *ONSET_COLUMNS}
    return any(name.lower() in usual for name in columns)


def _without_names(rows: list[tuple[int, list[str]]]) -> bool:
    """Whether these are rows of Gentle's align.csv: word, aligned word, start, end, without a line of names."""
    if {len(row) for _, row in rows} != {4}:
        return False
    times = [cell.strip() for _, row in rows for cell in row[2:]]
    return any(times) and all(not cell or _is_number(cell) for cell in times)
