"""Read the words of a Praat TextGrid, in all three text forms and as they occur in published data.

Why no library: those that are maintained do not read published files. `textgrid` (github.com/kylebgorman/textgrid)
raises an error where intervals overlap by rounding or have no length, `praatio` (github.com/timmahrt/praatIO) ends a
tier without a warning where a file is damaged, and neither reads the chronological form. Praat itself reads any of the
three forms by one short rule: see `_FREE`.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np

from .. import _progress
from .._validation import as_path, shorten
from ..assembly import Words
from ._checks import check_downloaded
from .marks import BAD_WORDS, check_marks, is_mark, tell_left_out

Entry = tuple[float, float, str]  # start and end in seconds, and text


def read_textgrid(
    path: str | Path,
    *,
    tier: str | int = "word",
    bad_words: Collection[str] | None = None,
    lower: bool = True,
    partial: bool = False,
) -> Words:
    """Words with their times from a Praat TextGrid in any of its three text forms.

    Parameters
    ----------
    path : file
        Long, short or chronological text; UTF-8 or UTF-16, with or without a byte-order mark, else Windows-1252.
        Letters in Praat's spelling, such as ``caf\\e'``, become what they stand for.
    tier : str or int
        Name (in upper or lower case; "word" finds "words" too) or index from 0.
    bad_words : set of str, optional
        Marks of silence and noise, which are not words, compared in lower case and without surrounding braces. None
        takes those of the usual aligners (`marks.is_mark`). A warning counts what is left out, except for
        `marks.BAD_WORDS`, those of the LeBel data. With a set without "", empty intervals stay as empty words.
    lower : bool
        Whether to convert words to lower case.
    partial : bool
        Whether to keep the complete entries of a file that is cut off, with a warning that says how far it goes.

    Returns
    -------
    Words; times in seconds, as the file counts them.

    Raises
    ------
    FileNotFoundError
        No such file, or a git-annex link whose content was not downloaded.
    ValueError
        Not a TextGrid, cut off, or without that tier; the message gives file and line. A `tier` or `bad_words` of
        another kind.
    TypeError
        `path` is not a path.
    """
    path = as_path(path, "read_textgrid")
    if isinstance(tier, bool) or not isinstance(tier, (str, Integral)):
        raise ValueError(f"read_textgrid: expected tier as a name or an index from 0, got {tier!r}.")
    check_marks(bad_words, "read_textgrid")
    check_downloaded(path, how=f"check the path, or try `git annex get {path.name}` in a clone")
    content = _read_content(path, partial=partial)
    cut = f"; {content.cut}" if content.cut else ""
    entries = _tier_entries(content.tiers, tier, path, cut)
    entries = [(start, end, _from_praat(text, path)) for start, end, text in entries]
    marks = [is_mark(text, bad_words) for _, _, text in entries]
    kept = [entry for entry, mark in zip(entries, marks, strict=True) if not mark]
    if not kept:
        raise ValueError(f"{path}: none of the {len(entries)} intervals of tier {tier!r} is a word{cut}.")
    if not content.ended and not content.cut:
        _progress.warn(
            f"{path}: the file goes on in line {content.line}, after the last entry that it announces; what follows is "
            f"not read. Correct the size of the last tier, or the number of tiers.",
            stacklevel=2,
        )
    if content.cut:
        _progress.warn(f"{path}: {content.cut}; everything after that is missing.", stacklevel=2)
    if bad_words is not BAD_WORDS:  # the data sets' own readers, whose marks and letters are known
        if not content.utf:
            warn_of_windows(path)
        tell_left_out(
            path, Counter(entry[2].strip() for entry, mark in zip(entries, marks, strict=True) if mark)
        )
    words = [text.strip().lower() if lower else text.strip() for _, _, text in kept]
    try:
        return Words(tuple(words), np.array([e[0] for e in kept]), np.array([e[1] for e in kept]))
    except ValueError as error:
        raise ValueError(f"{path}: tier {tier!r}: {error}") from error


def _tier_entries(tiers: list[_Tier], tier: str | int, path: Path, cut: str) -> list[Entry]:
    names = ", ".join(f"{i}: {t.name!r}" for i, t in enumerate(tiers)) or "none"
    if isinstance(tier, str):
        wanted = tier.casefold().rstrip("s")
        found = [t for t in tiers if t.name.strip().casefold().rstrip("s") == wanted]
    else:
        found = tiers[tier : tier + 1] if 0 <= tier < len(tiers) else []
    if len(found) != 1:
        problem = f"{len(found)} tiers are" if found else "no tier is"
        raise ValueError(f"{path}: {problem} called {tier!r}; the tiers are {names}{cut}. Pass an index.")
    if found[0].kind != "IntervalTier":
        raise ValueError(f"{path}: tier {tier!r} has points, not intervals; the tiers are {names}.")
    return found[0].entries


# ---------------------------------------------------------------------- the values of a file, one after another


def decode(raw: bytes) -> tuple[str, bool]:
    """The text of a file, and whether it is UTF-8 or UTF-16; else it is taken for Windows-1252.

    Latin-1 differs from Windows-1252 in control characters only, which no transcript has.
    """
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, errors = "utf-16", "replace"
    elif raw[:200].count(0) > len(raw[:200]) // 4:
        encoding, errors = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be", "replace"
    else:
        encoding, errors = "utf-8-sig", "strict"
    try:
        # a file that is cut off may end within a character, which this decoder leaves out
        return codecs.getincrementaldecoder(encoding)(errors).decode(raw), True
    except UnicodeDecodeError:
        # five bytes have no meaning in Windows-1252: Latin-1 has one for each
        return "".join(bytes([b]).decode("cp1252", "ignore") or chr(b) for b in raw), False


def warn_of_windows(path: Path, *, stacklevel: int = 3) -> None:
    """Warn that a file is not UTF-8."""
    _progress.warn(
        f"{path}: it is not UTF-8, so it is read as Windows-1252; check words with letters such as é.",
        stacklevel=stacklevel,
    )


# ---------------------------------------------------------------------- letters in Praat's spelling

# the second letter of \\e', \\o", ... as a combining character (Praat's manual, "Special symbols")
_ACCENTS = dict(zip("'`^~\",<-o", "\u0301\u0300\u0302\u0303\u0308\u0327\u030c\u0304\u030a", strict=True))
_SYMBOLS = {
    "ss": "ß", "ae": "æ", "AE": "Æ", "oe": "œ", "OE": "Œ", "o/": "ø", "O/": "Ø", "ao": "å", "Ao": "Å", "AO": "Å",
    "d-": "ð", "dh": "ð", "D-": "Ð", "th": "þ", "TH": "Þ", "l/": "ł", "L/": "Ł", "!d": "¡", "?d": "¿", "<<": "«",
    ">>": "»", "i.": "ı", "cu": "¤", "Eu": "€", "sw": "ə", "sh": "ʃ", "zh": "ʒ", "ng": "ŋ", "bu": "•", "co": "©",
    "rg": "®", "tm": "™", "de": "°", "+-": "±", "mu": "µ", "al": "α", "be": "β", "ga": "γ", "--": "–", "bs": "\\",
}  # fmt: skip
_SPELT = re.compile(r"\\(.)(.)", re.DOTALL)


def _from_praat(text: str, path: Path) -> str:
    """A label with Praat's spelling of letters as the letters; what is unknown stays, with a warning."""
    if "\\" not in text:
        return text
    unknown = []

    def letter(found: re.Match[str]) -> str:
        pair = found[1] + found[2]
        if pair in _SYMBOLS:
            return _SYMBOLS[pair]
        composed = unicodedata.normalize("NFC", found[1] + _ACCENTS.get(found[2], ""))
        if found[2] in _ACCENTS and found[1].isalpha() and len(composed) == 1:
            return composed
        unknown.append(found[0])
        return found[0]

    read = _SPELT.sub(letter, text)
    if unknown:
        _progress.warn(
            f"{path}: the label {shorten(repr(text))} has {unknown[0]!r}, an unknown letter in Praat's spelling; "
            f"it stays so.",
            stacklevel=3,
        )
    return read


# Praat reads only free-standing values: quoted text ("" is a quote), <flags> and numbers between blanks. The
# rest, such as `xmin =` and `intervals [3]:`, is for people, and ! starts a comment.
_FREE = re.compile(
    r'"(?P<text>[^"]*(?:""[^"]*)*)"(?!")|<(?P<flag>\w+)>|![^\n]*'
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)|(?P<open>\")|\S[^\s\"<!]*"
)


@dataclass
class _Tier:
    name: str
    kind: str
    end: float
    n_entries: int = 0  # as the file announces them; 0 in the chronological form, which does not
    entries: list[Entry] = field(default_factory=list)

    @property
    def reached(self) -> float:
        """Seconds at which its last entry ends."""
        return self.entries[-1][1] if self.entries else 0.0


class _CutOff(ValueError):
    """A file that ends, or whose last text does not, where a value is expected."""


class _Reader:
    """The free-standing values of a TextGrid, one after another, and its tiers; an error knows its line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.content, self.utf = decode(path.read_bytes())
        self._values: list[tuple[str, str, int]] = []
        for found in _FREE.finditer(self.content):
            if found.lastgroup:
                self._values.append((found.lastgroup, found[found.lastgroup], found.start()))
            if found.lastgroup == "open":
                break  # the rest of the file belongs to this text
        self._at = 0
        self.tiers: list[_Tier] = []
        self.n_tiers, self.cut = 1, ""  # as announced; for a file that is cut off, how far it goes
        self.last: _Tier | None = None  # the tier that was read last

    def error(self, problem: str, kind: type[ValueError] = ValueError) -> ValueError:
        """An error at the next value."""
        return kind(f"{self.path}, line {self.line}: {problem}; is this a whole Praat TextGrid (text form)?")

    @property
    def line(self) -> int:
        """The line of the next value, from 1."""
        position = len(self.content) if self.ended else self._values[self._at][2]
        return self.content.count("\n", 0, position) + 1

    @property
    def ended(self) -> bool:
        """Whether all values were read."""
        return self._at >= len(self._values)

    def next(self, kind: str, what: str) -> str:
        """The next value, of this kind (text, flag or number); `what` it should be is for an error."""
        found, value, _ = ("end", "", 0) if self.ended else self._values[self._at]
        if found in ("open", "end"):  # a quotation mark that nothing closes, or nothing at all
            raise self.error(f"expected {what} (a {kind}), but the file ends", _CutOff)
        if found != kind:
            raise self.error(f"expected {what} (a {kind}), but got the {found} {value[:40]!r}")
        self._at += 1
        return value

    def text(self, what: str) -> str:
        """The next value, a quoted text."""
        return self.next("text", what).replace('""', '"')

    def number(self, what: str) -> float:
        """The next value, a number."""
        return float(self.next("number", what))

    def count(self, what: str) -> int:
        """The next value, a whole number."""
        value = self.number(what)
        if value < 0 or not value.is_integer():
            self._at -= 1
            raise self.error(f"expected {what} as a whole number, got {value:g}")
        return int(value)


# ---------------------------------------------------------------------- tiers


def _read_content(path: Path, *, partial: bool) -> _Reader:
    reader = _Reader(path)
    file_type = reader.text("the file type")
    chronological = file_type == "Praat chronological TextGrid text file"
    try:
        if not chronological:
            kind = reader.text("the object class")
            if not file_type.startswith("ooTextFile") or kind != "TextGrid":
                got = f"{file_type[:40]!r} with {kind[:40]!r}"
                raise reader.error(f"expected an 'ooTextFile' with a 'TextGrid', got {got}")
        _read_tiers(reader, chronological)
        cut = False
    except _CutOff:
        cut = True
    if cut and not partial:
        raise reader.error(f"{_extent(reader)} (partial=True keeps what is complete)")
    # the chronological form does not announce how many entries come: only times show that some are missing
    if cut or (partial and chronological and _short(reader.tiers)):
        # a quotation mark at the very end may be half of a doubled one: that text is not complete
        if reader.ended and reader.content.endswith('"') and reader.last and reader.last.entries:
            reader.last.entries.pop()
        reader.cut = _extent(reader)
    return reader


def _short(tiers: list[_Tier]) -> list[_Tier]:
    return [t for t in tiers if t.kind == "IntervalTier" and t.reached < t.end - 1e-3]


def _extent(reader: _Reader) -> str:
    """How far a file goes that is cut off."""
    within = "" if reader.ended else " within a text"
    last = reader.tiers[-1] if reader.tiers else None
    if last and len(last.entries) < last.n_entries:
        counted = f"{len(last.entries)} of {last.n_entries} entries of tier {last.name!r}"
        return f"the file ends{within} after {counted}, at {last.reached:.1f} of {last.end:.1f} s"
    if len(reader.tiers) < reader.n_tiers:
        return f"the file ends before tier {len(reader.tiers) + 1} begins"
    first = min(_short(reader.tiers) or reader.tiers, key=lambda t: t.reached)
    return f"the file ends{within} at {first.reached:.1f} of {first.end:.1f} s"


def _read_tiers(reader: _Reader, chronological: bool) -> None:
    """The tiers, each followed by its entries; in the chronological form all entries follow the last tier."""
    _skip_span(reader, "the file")
    has_tiers = chronological or reader.next("flag", "whether there are tiers") == "exists"
    reader.n_tiers = reader.count("the number of tiers") if has_tiers else 0
    while len(reader.tiers) < reader.n_tiers:
        reader.last = (
            None  # the entries of the tier before are whole, wherever the file is cut in this one's head
        )
        kind, name = reader.text("the class of a tier"), reader.text("the name of a tier")
        if kind not in ("IntervalTier", "TextTier"):
            raise reader.error(
                f"tier {name!r}: expected class 'IntervalTier' or 'TextTier', got {kind[:40]!r}"
            )
        reader.last = tier = _Tier(name, kind, _skip_span(reader, f"tier {name!r}"))
        if not chronological:
            tier.n_entries = reader.count(f"the number of entries of tier {name!r}")
        reader.tiers.append(tier)
        while len(tier.entries) < tier.n_entries:
            _read_entry(reader, tier)
    while chronological and not reader.ended:
        index = reader.count("the tier of an entry")
        if not 1 <= index <= reader.n_tiers:
            raise reader.error(f"an entry of tier {index}, but there are {reader.n_tiers} tiers")
        reader.last = reader.tiers[index - 1]
        _read_entry(reader, reader.last)


def _skip_span(reader: _Reader, what: str) -> float:
    reader.number(f"the start of {what}")
    return reader.number(f"the end of {what}")


def _read_entry(reader: _Reader, tier: _Tier) -> None:
    """An interval (start, end, text), or a point (time, text) with the same start and end."""
    where = f"entry {len(tier.entries) + 1} of tier {tier.name!r}"
    start = reader.number(f"the start of {where}")
    end = reader.number(f"the end of {where}") if tier.kind == "IntervalTier" else start
    tier.entries.append((start, end, reader.text(f"the text of {where}")))
