"""The values that stand in the text of a Praat TextGrid, one after the other, whatever its encoding."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from .assembly_checks import require_file


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
