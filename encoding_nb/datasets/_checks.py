"""Checks that the readers share: is a file downloaded, has it changed, which stories were asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

POINTER_BYTES = 400  # a git-annex pointer is one path, one of Git LFS three lines; no data file is so small
Stamp = tuple[int, int, int]


def is_downloaded(path: Path) -> bool:
    """Whether a path is a file with content: not missing, not a link to a missing file, not a pointer."""
    return path.is_file() and not pointer_kind(path)


def pointer_kind(path: Path) -> str:
    """What keeps the content of a file in another place, "git-annex" or "Git LFS"; empty for a file with content."""
    if path.stat().st_size > POINTER_BYTES:
        return ""
    content = path.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        return "Git LFS"
    return "git-annex" if b"annex/objects/" in content else ""


def check_downloaded(path: Path, *, how: str) -> None:
    """Raise a FileNotFoundError for a file that is missing or not downloaded; `how` says how to get it."""
    if is_downloaded(path):
        return
    if path.is_file():
        kind = pointer_kind(path)
        problem = f"is only a {kind} pointer: its content was not downloaded"
        how = f"run `git lfs pull` in the repository, or {how}" if kind == "Git LFS" else how
    elif path.is_symlink() and not path.exists():
        problem = "is a link to a missing file: its content was not downloaded"
    else:
        problem = "is a folder, not a file" if path.is_dir() else "does not exist"
    raise FileNotFoundError(f"{path} {problem}; {how}.")


def stamp_of(path: Path) -> Stamp:
    """Size, time of the last change and inode, which another file of this name does not have; for `check_unchanged`."""
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def check_unchanged(path: Path, stamp: Stamp) -> None:
    """Raise a ValueError if a file was replaced since it was opened: its values may be in other places now."""
    if stamp_of(path) != stamp:
        raise ValueError(f"{path}: the file changed after it was opened; call load_assembly again.")


def chosen(names: Iterable[str] | None, known: Iterable[str], where: object) -> list[str]:
    """The stories to load, in the data set's order; None takes all.

    Raises
    ------
    ValueError
        A name that the data set does not have, or none at all.
    """
    known = list(known)
    asked = known if names is None else list(names)
    unknown = [name for name in asked if name not in known]
    if unknown or not asked:
        problem = f"no story {', '.join(unknown)}" if unknown else "expected names of stories, got none"
        raise ValueError(f"{where}: {problem}; it has {', '.join(known) or 'none'}.")
    return [name for name in known if name in asked]
