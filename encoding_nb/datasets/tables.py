"""Word timings as tables: BIDS events files, and others with a column each for onset and word.

BIDS: tab-separated, `onset` and `duration` in seconds, "n/a" for what is missing (bids-specification.readthedocs.io,
"Task events").
"""

from __future__ import annotations

import csv
import math
import warnings
from pathlib import Path

import numpy as np

from .._validation import require_path
from ..assembly import Words
from ._download import check_downloaded

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
        None takes the first there is of `WORD_COLUMNS`.
    onset_column : str
        Seconds from the start of the sound.
    duration_column : str, optional
        Seconds. None takes "duration", if there is one. Without durations, or where one is "n/a", a word ends as it
        starts.
    lower : bool
        Words come in lower case.

    Returns
    -------
    Words. Rows without a word ("n/a" or empty: pauses, button presses) are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        No such file, or one that was not downloaded.
    ValueError
        Columns that are not there, times that are no numbers or out of order; the message gives file and line.
    TypeError
        A `path` that is none.
    """
    path = require_path(path, "read_word_table")
    check_downloaded(path, how="check the path")
    columns, rows = _read_rows(path)
    found = [name for name in ([word_column] if word_column else WORD_COLUMNS) if name in columns]
    if onset_column not in columns or not found:
        wanted = word_column or " or ".join(WORD_COLUMNS)
        raise ValueError(
            f"{path}: expected the columns {onset_column!r} and {wanted!r}, got {', '.join(columns) or 'none'}; name "
            f"them with onset_column and word_column."
        )
    if duration_column is not None and duration_column not in columns:
        raise ValueError(
            f"{path}: expected the column {duration_column!r}, got {', '.join(columns)}; leave duration_column out if "
            f"there are no durations."
        )
    duration_column = duration_column or "duration"
    words, onsets, offsets = [], [], []
    for line, row in rows:
        text = row[found[0]].strip()
        if text.lower() in MISSING:
            continue
        onset = _seconds(row[onset_column], onset_column, path, line)
        length = row.get(duration_column, "").strip()
        words.append(text.lower() if lower else text)
        onsets.append(onset)
        offsets.append(onset + (0.0 if length in MISSING else _seconds(length, duration_column, path, line)))
    if not words:
        raise ValueError(f"{path}: none of its {len(rows)} rows holds a word in column {found[0]!r}.")
    if len(words) < len(rows):
        warnings.warn(
            f"{path}: {len(rows) - len(words)} of {len(rows)} rows have no word and are left out.",
            stacklevel=2,
        )
    try:
        return Words(tuple(words), np.array(onsets), np.array(offsets))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Names of the columns, and each row with its line number."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text, got byte {error.start} that is none; save it as UTF-8."
        ) from error
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    # a quotation mark in a BIDS table is a character like any other
    quoting = csv.QUOTE_MINIMAL if delimiter == "," else csv.QUOTE_NONE
    try:
        cells = list(csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read as a table ({error}).") from error
    columns = [name.strip() for name in cells[0]] if cells else []
    rows = []
    for line, row in enumerate(cells[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(columns):
            raise ValueError(f"{path}, line {line}: expected {len(columns)} columns, got {len(row)}.")
        rows.append((line, dict(zip(columns, row, strict=True))))
    return columns, rows


def _seconds(text: str, column: str, path: Path, line: int) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{path}, line {line}: expected {column} in seconds, got {text.strip()[:40]!r}.")
    return seconds
