"""Read word timings from tables: BIDS events files, and others with a column each for onset and word.

BIDS: tab-separated, `onset` and `duration` in seconds, "n/a" for missing values (bids-specification.readthedocs.io,
"Task events").
"""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from .. import _progress
from .._validation import as_path, shorten
from ..assembly import Words
from ._checks import check_downloaded

WORD_COLUMNS = ("word", "words", "text", "token", "value", "trial_type")  # tried in this order
MISSING = ("n/a", "")


def read_word_table(
    path: str | Path,
    *,
    word_column: str | None = None,
    onset_column: str = "onset",
    duration_column: str | None = None,
    lower: bool = True,
) -> Words:
    """Words with their times from a BIDS-style table.

    Parameters
    ----------
    path : file, .tsv, or .csv with commas; UTF-8, first line the columns' names
    word_column : str, optional
        None takes the first of `WORD_COLUMNS` that the table has.
    onset_column : str
        Seconds from the start of the sound.
    duration_column : str, optional
        Seconds. None takes "duration" if the table has it. Without a duration, or where it is "n/a", a word ends when
        it starts.
    lower : bool
        Whether to convert words to lower case.

    Returns
    -------
    Words. Rows without a word ("n/a" or empty: pauses, button presses) are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        No such file, or one that was not downloaded.
    ValueError
        Columns that are missing, times that are not numbers or not in order; the message gives file and line.
    TypeError
        `path` is not a path.
    """
    path = as_path(path, "read_word_table")
    check_downloaded(path, how="check the path")
    columns, rows = _read_rows(path)
    found = [name for name in ([word_column] if word_column else WORD_COLUMNS) if name in columns]
    got = ", ".join(columns) or "none"
    if onset_column not in columns or not found:
        wanted = f"{onset_column!r} and {word_column or ' or '.join(WORD_COLUMNS)!r}"
        raise ValueError(f"{path}: expected the columns {wanted}, got {got}; set onset_column, word_column.")
    if duration_column is not None and duration_column not in columns:
        raise ValueError(f"{path}: expected the column {duration_column!r}, got {got}; omit duration_column.")
    duration_column = duration_column or "duration"
    entries = []
    for where, row in rows.items():
        text = row[found[0]].strip()
        if text.lower() in MISSING:
            continue
        onset = _seconds(row[onset_column], f"{where}: expected {onset_column}")
        length = row.get(duration_column, "").strip()
        duration = 0.0 if length in MISSING else _seconds(length, f"{where}: expected {duration_column}")
        entries.append((text.lower() if lower else text, onset, onset + duration))
    if not entries:
        raise ValueError(f"{path}: none of its {len(rows)} rows has a word in column {found[0]!r}.")
    if len(entries) < len(rows):
        left_out = f"{len(rows) - len(entries)} of {len(rows)} rows"
        _progress.warn(f"{path}: {left_out} have no word and are left out.", stacklevel=2)
    words, onsets, offsets = zip(*entries, strict=True)
    try:
        return Words(words, np.array(onsets), np.array(offsets))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_rows(path: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Names of the columns, and {file and line: a row's cells by column}."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
        comma = path.suffix.lower() == ".csv"
        # a quotation mark in a BIDS table is a character like any other
        dialect: dict[str, Any] = {"quoting": csv.QUOTE_MINIMAL if comma else csv.QUOTE_NONE}
        cells = list(csv.reader(lines, delimiter="," if comma else "\t", strict=True, **dialect))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: cannot be read as a UTF-8 table ({error}); save it as UTF-8.") from error
    columns = [name.strip() for name in cells[0]] if cells else []
    rows = {}
    for line, row in enumerate(cells[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(columns):
            raise ValueError(f"{path}, line {line}: expected {len(columns)} columns, got {len(row)}.")
        rows[f"{path}, line {line}"] = dict(zip(columns, row, strict=True))
    return columns, rows


def _seconds(text: str, expected: str) -> float:
    seconds = math.nan
    with suppress(ValueError):
        seconds = float(text)
    if not math.isfinite(seconds):
        raise ValueError(f"{expected} in seconds, got {shorten(repr(text.strip()))}.")
    return seconds
