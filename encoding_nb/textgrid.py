"""Praat TextGrids to words, in all three text forms and as they are found in published data.

Why no library: those that are kept up do not read what is found. `textgrid` (github.com/kylebgorman/textgrid) raises
an error where intervals overlap by rounding or have no length, `praatio` (github.com/timmahrt/praatIO) ends a tier
without a word where a file is damaged, and neither reads the chronological form. Praat itself reads any of the three
forms by one rule, which is short: see `_FREE`.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .assembly import Words

# marks of silence and noise that the authors of the LeBel data drop (github.com/HuthLab/deep-fMRI-dataset)
AUTHORS_BAD_WORDS = frozenset(["sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp"])
# with those of their extended list, and empty intervals
BAD_WORDS = AUTHORS_BAD_WORDS | {"sl", "cg", "ig", ""}


def read_textgrid(
    path: str | Path,
    *,
    tier: str | int = "word",
    bad_words: frozenset[str] = BAD_WORDS,
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
        Keep the entries of a file that is cut off, with a warning that says how far it goes.

    Returns
    -------
    Words; times in seconds, as the file counts them.

    Raises
    ------
    FileNotFoundError
        No such file, or a git-annex link whose content was not downloaded.
    ValueError
        Not a TextGrid, cut off, or without that tier; the message gives file and line.
    """
    path = Path(path)
    entries = _tier_entries(_read_tiers(path, partial=partial), tier, path)
    kept = [entry for entry in entries if entry[2].lower().strip().strip("{}").strip() not in bad_words]
    if not kept:
        raise ValueError(f"{path}: none of the {len(entries)} intervals of tier {tier!r} is a word.")
    words = [text.strip().lower() if lower else text.strip() for _, _, text in kept]
    try:
        return Words(tuple(words), np.array([e[0] for e in kept]), np.array([e[1] for e in kept]))
    except ValueError as error:
        raise ValueError(f"{path}: tier {tier!r}: {error}") from error


@dataclass(frozen=True)
class _Tier:
    name: str
    kind: str
    end: float
    entries: list[tuple[float, float, str]]


def _tier_entries(tiers: list[_Tier], tier: str | int, path: Path) -> list[tuple[float, float, str]]:
    names = ", ".join(f"{i}: {t.name!r}" for i, t in enumerate(tiers)) or "none"
    if isinstance(tier, str):
        wanted = tier.casefold().rstrip("s")
        found = [t for t in tiers if t.name.strip().casefold().rstrip("s") == wanted]
    else:
        found = tiers[tier : tier + 1] if 0 <= tier < len(tiers) else []
    if len(found) != 1:
        problem = f"{len(found)} tiers are" if found else "no tier is"
        raise ValueError(
            f"{path}: {problem} called {tier!r}; the tiers are {names}. Pass tier= one of the indices."
        )
    if found[0].kind != "IntervalTier":
        raise ValueError(f"{path}: tier {tier!r} holds points, not intervals; the tiers are {names}.")
    return found[0].entries


def _read_text(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        raise FileNotFoundError(
            f"{path}: not downloaded (a link to missing content); try `git annex get {path.name}`."
        )
    raw = path.read_bytes()
    if len(raw) < 400 and b"/annex/objects/" in raw:
        raise FileNotFoundError(
            f"{path}: not downloaded (a git-annex pointer); try `git annex get {path.name}`."
        )
    return _decode(raw)


def _decode(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16", errors="replace")
    if raw[:200].count(0) > len(raw[:200]) // 4:
        return raw.decode("utf-16-le" if raw[1:2] == b"\0" else "utf-16-be", errors="replace")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")


# Praat reads only what stands free: quoted text ("" is a quote), <flags> and numbers between blanks; the
# rest, such as `xmin =` and `intervals [3]:`, is for people, and ! starts a comment.
_FREE = re.compile(
    r'"(?P<text>[^"]*(?:""[^"]*)*)"|<(?P<flag>\w+)>|![^\n]*'
    r"|(?<!\S)(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?!\S)|(?P<open>\")|\S[^\s\"<!]*"
)


class _Reader:
    """The free-standing values of a TextGrid, one after the other; an error knows its line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = _read_text(path)
        self._values = [
            (m.lastgroup, m[m.lastgroup], m.start()) for m in _FREE.finditer(self._text) if m.lastgroup
        ]
        self._at = 0

    def error(self, problem: str) -> ValueError:
        position = self._values[self._at][2] if self._at < len(self._values) else len(self._text)
        line = self._text.count("\n", 0, position) + 1
        return ValueError(f"{self.path}, line {line}: {problem}; is this a whole Praat TextGrid (text form)?")

    @property
    def ended(self) -> bool:
        return self._at >= len(self._values)

    def _next(self, kind: str, what: str) -> str:
        found, value, _ = ("end", "", 0) if self.ended else self._values[self._at]
        if found == "open":
            raise self.error("a quotation mark that nothing closes")
        if found != kind:
            got = "the file ends" if found == "end" else f"got the {found} {value[:40]!r}"
            raise self.error(f"expected {what} (a {kind}), but {got}")
        self._at += 1
        return value

    def peek(self, kind: str) -> str | None:
        found, value, _ = ("end", "", 0) if self.ended else self._values[self._at]
        return value if found == kind else None

    def text(self, what: str) -> str:
        return self._next("text", what).replace('""', '"')

    def number(self, what: str) -> float:
        return float(self._next("number", what))

    def count(self, what: str) -> int:
        value = self.number(what)
        if value < 0 or value != int(value):
            self._at -= 1
            raise self.error(f"expected {what} as a whole number, got {value:g}")
        return int(value)

    def flag(self, what: str) -> str:
        return self._next("flag", what)


def _read_tiers(path: Path, *, partial: bool) -> list[_Tier]:
    reader = _Reader(path)
    if reader.peek("text") == "Praat chronological TextGrid text file":
        return _read_chronological(reader)
    file_type, kind = reader.text("the file type"), reader.text("the object class")
    if not file_type.startswith("ooTextFile") or kind != "TextGrid":
        raise reader.error(
            f"expected an 'ooTextFile' with a 'TextGrid', got {file_type[:40]!r} with {kind[:40]!r}"
        )
    _skip_span(reader, "the file")
    if reader.flag("whether there are tiers") != "exists":
        return []
    return [_read_tier(reader, partial=partial) for _ in range(reader.count("the number of tiers"))]


def _skip_span(reader: _Reader, what: str) -> float:
    reader.number(f"the start of {what}")
    return reader.number(f"the end of {what}")


def _read_tier_head(reader: _Reader) -> _Tier:
    kind, name = reader.text("the class of a tier"), reader.text("the name of a tier")
    if kind not in _ENTRY:
        raise reader.error(f"tier {name!r}: expected class 'IntervalTier' or 'TextTier', got {kind[:40]!r}")
    return _Tier(name, kind, _skip_span(reader, f"tier {name!r}"), [])


def _read_tier(reader: _Reader, *, partial: bool) -> _Tier:
    tier = _read_tier_head(reader)
    n_entries = reader.count(f"the number of entries of tier {tier.name!r}")
    while len(tier.entries) < n_entries:
        if reader.ended:
            _cut_off(reader, tier, n_entries, partial)
            break
        _read_entry(reader, tier)
    return tier


def _cut_off(reader: _Reader, tier: _Tier, n_entries: int, partial: bool) -> None:
    reached = tier.entries[-1][1] if tier.entries else 0.0
    problem = (
        f"the file ends after {len(tier.entries)} of {n_entries} entries of tier {tier.name!r}, at "
        f"{reached:.1f} of {tier.end:.1f} s"
    )
    if not partial:
        raise reader.error(f"{problem} (partial=True keeps what is there)")
    warnings.warn(f"{reader.path}: {problem}; the words after that are missing.", stacklevel=2)


def _read_entry(reader: _Reader, tier: _Tier) -> None:
    where = f"entry {len(tier.entries) + 1} of tier {tier.name!r}"
    tier.entries.append(_ENTRY[tier.kind](reader, where))


def _read_interval(reader: _Reader, where: str) -> tuple[float, float, str]:
    start, end = reader.number(f"the start of {where}"), reader.number(f"the end of {where}")
    return start, end, reader.text(f"the text of {where}")


def _read_point(reader: _Reader, where: str) -> tuple[float, float, str]:
    time = reader.number(f"the time of {where}")
    return time, time, reader.text(f"the text of {where}")


_ENTRY: dict[str, Callable[[_Reader, str], tuple[float, float, str]]] = {
    "IntervalTier": _read_interval,
    "TextTier": _read_point,
}


def _read_chronological(reader: _Reader) -> list[_Tier]:
    reader.text("the file type")
    _skip_span(reader, "the file")
    tiers = [_read_tier_head(reader) for _ in range(reader.count("the number of tiers"))]
    while not reader.ended:
        index = reader.count("the tier of an entry")
        if not 1 <= index <= len(tiers):
            raise reader.error(f"an entry of tier {index}, but there are {len(tiers)} tiers")
        _read_entry(reader, tiers[index - 1])
    return tiers
