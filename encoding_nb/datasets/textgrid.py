"""Praat TextGrids to words, in all three text forms and as they are found in published data.

Why no library: those that are kept up do not read what is found. `textgrid` (github.com/kylebgorman/textgrid) raises
an error where intervals overlap by rounding or have no length, `praatio` (github.com/timmahrt/praatIO) ends a tier
without a word where a file is damaged, and neither reads the chronological form. Praat itself reads any of the three
forms by one rule, which is short: see `Reader`.
"""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path

import numpy as np

from .._validation import require_file, require_path
from ..assembly import Words


def _read_text(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path}: not downloaded (a link to missing content); try `git annex get {path.name}`."
        )
    raw = require_file(path).read_bytes()
    if len(raw) < 400 and b"/annex/objects/" in raw:
        raise FileNotFoundError(
            f"{path}: not downloaded (a git-annex pointer); try `git annex get {path.name}`."
        )
    return _decode(raw)


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return _whole_characters(raw, "utf-16", errors="replace")
    if raw[:200].count(0) > len(raw[:200]) // 4:
        encoding = "utf-16-le" if raw[1:2] == b"\0" else "utf-16-be"
        return _whole_characters(raw, encoding, errors="replace")
    try:
        return _whole_characters(raw, "utf-8-sig", errors="strict")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def _whole_characters(raw: bytes, encoding: str, *, errors: str) -> str:
    """The text; a file that is cut off may end within a character, which is left out."""
    return codecs.getincrementaldecoder(encoding)(errors).decode(raw)


# Praat reads only what stands free: quoted text ("" is a quote), <flags> and numbers between blanks; the
# rest, such as `xmin =` and `intervals [3]:`, is for people, and ! starts a comment.
_FREE = re.compile(
    r'"(?P<text>[^"]*(?:""[^"]*)*)"(?!")|<(?P<flag>\w+)>|![^\n]*'
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)|(?P<open>\")|\S[^\s\"<!]*"
)


class CutOff(ValueError):
    """A file that ends, or whose last text does not, where a value is expected."""


class Reader:
    """The free-standing values of a TextGrid, one after the other; an error knows its line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = _read_text(path)
        self._values: list[tuple[str, str, int]] = []
        for found in _FREE.finditer(self._text):
            if found.lastgroup:
                self._values.append((found.lastgroup, found[found.lastgroup], found.start()))
            if found.lastgroup == "open":
                break  # all that follows stands in this text
        self._at = 0

    def error(self, problem: str, kind: type[ValueError] = ValueError) -> ValueError:
        """An error at the next value."""
        position = self._values[self._at][2] if self._at < len(self._values) else len(self._text)
        line = self._text.count("\n", 0, position) + 1
        return kind(f"{self.path}, line {line}: {problem}; is this a whole Praat TextGrid (text form)?")

    @property
    def ended(self) -> bool:
        """Whether all values were read."""
        return self._at >= len(self._values)

    @property
    def ends_with_a_mark(self) -> bool:
        """Whether the file's last character is a quotation mark."""
        return self._text.endswith('"')

    def _next(self, kind: str, what: str) -> str:
        found, value, _ = ("end", "", 0) if self.ended else self._values[self._at]
        if found == "open":
            raise self.error("a quotation mark that nothing closes", CutOff)
        if found == "end":
            raise self.error(f"expected {what} (a {kind}), but the file ends", CutOff)
        if found != kind:
            raise self.error(f"expected {what} (a {kind}), but got the {found} {value[:40]!r}")
        self._at += 1
        return value

    def text(self, what: str) -> str:
        """The next value, a quoted text; `what` it should be is for an error."""
        return self._next("text", what).replace('""', '"')

    def number(self, what: str) -> float:
        """The next value, a number."""
        return float(self._next("number", what))

    def count(self, what: str) -> int:
        """The next value, a whole number."""
        value = self.number(what)
        if value < 0 or value != int(value):
            self._at -= 1
            raise self.error(f"expected {what} as a whole number, got {value:g}")
        return int(value)

    def flag(self, what: str) -> str:
        """The next value, such as <exists>."""
        return self._next("flag", what)


# marks of silence and noise that the authors of the LeBel data drop (github.com/HuthLab/deep-fMRI-dataset)
AUTHORS_BAD_WORDS = frozenset(["sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp"])
# with those of their extended list, and empty intervals
BAD_WORDS = AUTHORS_BAD_WORDS | {"sl", "cg", "ig", ""}


def read_textgrid(
    path: str | Path,
    *,
    tier: str | int = "word",
    bad_words: Collection[str] = BAD_WORDS,
    lower: bool = True,
    partial: bool = False,
) -> Words:
    """Words with their times from a Praat TextGrid in any of its three text forms.

    Parameters
    ----------
    path : file
        Long, short or chronological text; UTF-8 or UTF-16, with or without a byte-order mark, else Latin-1.
    tier : str or int
        Name (upper and lower case alike, "word" finds "words" too) or index from 0.
    bad_words : set of str
        Marks that are not words, compared in lower case and without surrounding braces: `BAD_WORDS`, the extended
        list, or `AUTHORS_BAD_WORDS`, with which empty intervals stay as empty words.
    lower : bool
        Words come in lower case.
    partial : bool
        Keep the whole entries of a file that is cut off, with a warning that says how far it goes.

    Returns
    -------
    Words; times in seconds, as the file counts them.

    Raises
    ------
    FileNotFoundError
        No such file, or a git-annex link whose content was not downloaded.
    ValueError
        Not a TextGrid, cut off, or without that tier; the message gives file and line. A `tier` or `bad_words` that
        cannot be.
    TypeError
        A `path` that is none.
    """
    path = require_path(path, "read_textgrid")
    _refuse_arguments(tier, bad_words)
    content = _read_content(path, partial=partial)
    entries = _tier_entries(content, tier, path)
    kept = [entry for entry in entries if entry[2].lower().strip().strip("{}").strip() not in bad_words]
    if not kept:
        cut = f"; {content.cut}" if content.cut else ""
        raise ValueError(f"{path}: none of the {len(entries)} intervals of tier {tier!r} is a word{cut}.")
    if content.cut:
        warnings.warn(f"{path}: {content.cut}; what comes after that is missing.", stacklevel=2)
    words = [text.strip().lower() if lower else text.strip() for _, _, text in kept]
    try:
        return Words(tuple(words), np.array([e[0] for e in kept]), np.array([e[1] for e in kept]))
    except ValueError as error:
        raise ValueError(f"{path}: tier {tier!r}: {error}") from error


def _refuse_arguments(tier: object, bad_words: object) -> None:
    if isinstance(tier, bool) or not isinstance(tier, (str, Integral)):
        raise ValueError(f"read_textgrid: expected tier as a name or an index from 0, got {tier!r}.")
    if isinstance(bad_words, str) or not isinstance(bad_words, Collection):
        hint = f"; write {{{bad_words!r}}}" if isinstance(bad_words, str) else ""
        raise ValueError(f"read_textgrid: expected bad_words as a set of texts, got {bad_words!r}{hint}.")


@dataclass(frozen=True)
class _Tier:
    name: str
    kind: str
    end: float
    entries: list[tuple[float, float, str]]

    @property
    def reached(self) -> float:
        """Seconds at which its last entry ends."""
        return self.entries[-1][1] if self.entries else 0.0


@dataclass
class _Content:
    """The tiers of a file; of one that is cut off, how far it goes, and whether it ends before its last tier."""

    tiers: list[_Tier] = field(default_factory=list)
    cut: str = ""
    tiers_missing: bool = False


def _tier_entries(content: _Content, tier: str | int, path: Path) -> list[tuple[float, float, str]]:
    tiers = content.tiers
    names = ", ".join(f"{i}: {t.name!r}" for i, t in enumerate(tiers)) or "none"
    if isinstance(tier, str):
        wanted = tier.casefold().rstrip("s")
        found = [t for t in tiers if t.name.strip().casefold().rstrip("s") == wanted]
    else:
        found = tiers[tier : tier + 1] if 0 <= tier < len(tiers) else []
    if not found and content.tiers_missing:
        raise ValueError(
            f"{path}: tier {tier!r} was never reached, {content.cut}; the tiers in it are {names}. Copy the file again."
        )
    if len(found) != 1:
        problem = f"{len(found)} tiers are" if found else "no tier is"
        raise ValueError(
            f"{path}: {problem} called {tier!r}; the tiers are {names}. Pass tier= one of the indices."
        )
    if found[0].kind != "IntervalTier":
        raise ValueError(f"{path}: tier {tier!r} holds points, not intervals; the tiers are {names}.")
    return found[0].entries


def _read_content(path: Path, *, partial: bool) -> _Content:
    reader, content = Reader(path), _Content()
    file_type = reader.text("the file type")
    try:
        if file_type == "Praat chronological TextGrid text file":
            _read_chronological(reader, content, partial=partial)
        else:
            _read_by_tier(reader, content, file_type, partial=partial)
    except CutOff:
        if not partial:
            raise
        content.tiers_missing = True
        content.cut = f"the file ends before tier {len(content.tiers) + 1} begins"
    return content


def _read_by_tier(reader: Reader, content: _Content, file_type: str, *, partial: bool) -> None:
    kind = reader.text("the object class")
    if not file_type.startswith("ooTextFile") or kind != "TextGrid":
        raise reader.error(
            f"expected an 'ooTextFile' with a 'TextGrid', got {file_type[:40]!r} with {kind[:40]!r}"
        )
    _skip_span(reader, "the file")
    if reader.flag("whether there are tiers") != "exists":
        return
    n_tiers = reader.count("the number of tiers")
    while len(content.tiers) < n_tiers and not content.cut:
        tier = _read_tier_head(reader)
        n_entries = reader.count(f"the number of entries of tier {tier.name!r}")
        content.tiers.append(tier)
        content.cut = _read_entries(reader, tier, n_entries, partial=partial)
    content.tiers_missing = len(content.tiers) < n_tiers


def _skip_span(reader: Reader, what: str) -> float:
    reader.number(f"the start of {what}")
    return reader.number(f"the end of {what}")


def _read_tier_head(reader: Reader) -> _Tier:
    kind, name = reader.text("the class of a tier"), reader.text("the name of a tier")
    if kind not in _ENTRY:
        raise reader.error(f"tier {name!r}: expected class 'IntervalTier' or 'TextTier', got {kind[:40]!r}")
    return _Tier(name, kind, _skip_span(reader, f"tier {name!r}"), [])


def _read_entries(reader: Reader, tier: _Tier, n_entries: int, *, partial: bool) -> str:
    """Read the entries of a tier; how far the file goes, where it is cut off and that is allowed."""
    try:
        while len(tier.entries) < n_entries:
            _read_entry(reader, tier)
    except CutOff:
        if partial:
            _drop_half_a_text(reader, tier)
        problem = (
            f"the file ends{'' if reader.ended else ' within a text'} after {len(tier.entries)} of {n_entries} entries "
            f"of tier {tier.name!r}, at {tier.reached:.1f} of {tier.end:.1f} s"
        )
        if not partial:
            raise reader.error(f"{problem} (partial=True keeps what is there)", CutOff) from None
        return problem
    return ""


def _drop_half_a_text(reader: Reader, tier: _Tier) -> None:
    """Of a cut file, a quotation mark at its very end may be half of a doubled one: that text is not whole."""
    if reader.ended and reader.ends_with_a_mark and tier.entries:
        tier.entries.pop()


def _read_entry(reader: Reader, tier: _Tier) -> None:
    where = f"entry {len(tier.entries) + 1} of tier {tier.name!r}"
    tier.entries.append(_ENTRY[tier.kind](reader, where))


def _read_interval(reader: Reader, where: str) -> tuple[float, float, str]:
    start, end = reader.number(f"the start of {where}"), reader.number(f"the end of {where}")
    return start, end, reader.text(f"the text of {where}")


def _read_point(reader: Reader, where: str) -> tuple[float, float, str]:
    time = reader.number(f"the time of {where}")
    return time, time, reader.text(f"the text of {where}")


_ENTRY: dict[str, Callable[[Reader, str], tuple[float, float, str]]] = {
    "IntervalTier": _read_interval,
    "TextTier": _read_point,
}


def _read_chronological(reader: Reader, content: _Content, *, partial: bool) -> None:
    _skip_span(reader, "the file")
    n_tiers = reader.count("the number of tiers")
    while len(content.tiers) < n_tiers:
        content.tiers.append(_read_tier_head(reader))
    tier, cut = None, False
    try:
        while not reader.ended:
            index = reader.count("the tier of an entry")
            if not 1 <= index <= n_tiers:
                raise reader.error(f"an entry of tier {index}, but there are {n_tiers} tiers")
            tier = content.tiers[index - 1]
            _read_entry(reader, tier)
    except CutOff:
        if not partial:
            raise
        cut = True
    # this form has no numbers of entries: between two of them, only times tell
    short = [t for t in content.tiers if t.kind == "IntervalTier" and t.reached < t.end - 1e-3]
    if partial and content.tiers and (cut or short):
        if tier is not None:
            _drop_half_a_text(reader, tier)
        last = min(short or content.tiers, key=lambda t: t.reached)
        content.cut = f"the file ends at {last.reached:.1f} of {last.end:.1f} s"
