"""git-annex: what stands in the place of a file whose content was not downloaded, and what its key says.

A clone without `git annex get` holds links into `.git/annex/objects`, or small files with such a path in them
(git-annex.branchable.com, "pointer file format"). The last part of the path is the key, which gives size and
checksum: `MD5E-s<size>--<md5><extension>` (git-annex.branchable.com, "key format").
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

POINTER_BYTES = 400  # a pointer is one path; no data file of these sets is so small
_KEY = re.compile(r"annex/objects/(?:.*/)?MD5E?-s(?P<size>\d+)--(?P<md5>[0-9a-f]{32})[^/\s]*\s*$")


@dataclass(frozen=True)
class AnnexKey:
    """Size in bytes and MD5 of a file's content."""

    size: int
    md5: str


def parse_pointer(text: str) -> AnnexKey | None:
    """The key in a pointer's or a link's text; None where it is neither."""
    found = _KEY.search(text[:POINTER_BYTES]) if len(text) <= POINTER_BYTES else None
    return AnnexKey(int(found["size"]), found["md5"]) if found else None


def is_downloaded(path: Path) -> bool:
    """Whether a path holds content, and is not only a link to nowhere or an annex pointer.

    A path with nothing at all in its place counts as not downloaded.
    """
    if not path.is_file():
        return False
    if path.stat().st_size > POINTER_BYTES:
        return True
    return b"annex/objects/" not in path.read_bytes()


def check_downloaded(path: Path, *, how: str) -> None:
    """Raise a FileNotFoundError for a file that is not there, or only announced; `how` says how to get it."""
    if is_downloaded(path):
        return
    if path.is_file():
        problem = "is only a git-annex pointer: its content was not downloaded"
    elif os.path.lexists(path) and not path.exists():
        problem = "is a link to nowhere: its content was not downloaded"
    elif path.is_dir():
        problem = "is a folder, not a file"
    else:
        problem = "is not there"
    raise FileNotFoundError(f"{path} {problem}; {how}.")
