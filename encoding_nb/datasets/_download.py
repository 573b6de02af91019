"""One file over HTTP, resumed and verified, and the pointers that git-annex leaves in place of files.

A clone without `git annex get` holds links into `.git/annex/objects`, or small files with such a path in them
(git-annex.branchable.com, "pointer file format"). The last part of the path is the key, which gives size and
checksum: `MD5E-s<size>--<md5><extension>` (git-annex.branchable.com, "key format").

pooch verifies and moves into place; it cannot resume (`pooch.HTTPDownloader` starts afresh), so the transfer itself
is done here: a break leaves `<name>.part`, and the next attempt, now or in another session, asks for the rest of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


ATTEMPTS = 5  # without a single byte of progress in between
BLOCK_BYTES = 2**16  # a break loses no more than this
TIMEOUT = (10, 60)  # seconds to connect, and between two bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file of the data set: its path in it, its size in bytes, its MD5."""

    path: str
    size: int
    md5: str


@dataclass(frozen=True)
class FetchProgress:
    """Where a download stands: bytes done and in all (of this run), bytes a second, seconds left, file."""

    done: int
    total: int
    rate: float
    seconds_left: float | None
    file: str


class OtherVersionError(ValueError):
    """A file that is longer than its key says."""


def download_file(target: Path, file: RemoteFile, url: str, meter: Meter) -> None:
    """Download one file to `target`, going on from what an earlier attempt left.

    Raises
    ------
    ValueError
        Another size or MD5 than the file should have; nothing is left of the download.
    OSError
        No answer in `ATTEMPTS` attempts; what was downloaded so far stays.
    """
    import pooch

    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_symlink() and not target.exists():
        target.unlink()  # a clone's link to content that was never there

    def download(url: str, output_file: str, _: Any) -> None:
        part = _part_path(target)
        _resume(url, part, file, meter)
        part.replace(output_file)

    try:
        pooch.retrieve(url, f"md5:{file.md5}", fname=target.name, path=target.parent, downloader=download)
    except OtherVersionError:
        raise
    except ValueError as error:
        raise ValueError(
            f"{file.path}: expected MD5 {file.md5}, got another from {url}; the download was thrown away, run it "
            f"again, and report it to OpenNeuro if it stays so."
        ) from error


def _part_path(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def part_bytes(target: Path, size: int) -> int:
    """What an earlier attempt left of a file; more than the whole is nothing of use."""
    part = _part_path(target)
    there = part.stat().st_size if part.is_file() else 0
    return there if there <= size else 0


def _resume(url: str, part: Path, file: RemoteFile, meter: Meter) -> None:
    """Bring `part` to the file's full size, from where it is; a break is tried again."""
    import requests

    failures = 0
    while (have := part_bytes(part.with_name(part.name.removesuffix(".part")), file.size)) < file.size:
        try:
            _transfer(url, part, have, file, meter)
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            _log.info("%s: broken off at %d of %d bytes (%s)", file.path, have, file.size, error)
        except requests.HTTPError as error:
            if error.response.status_code < 500:
                raise
            _log.info("%s: %s", file.path, error)
        now = part.stat().st_size if part.is_file() else 0
        failures = 0 if now > have else failures + 1
        if failures == ATTEMPTS:
            raise OSError(
                f"{file.path}: no answer from {url} in {ATTEMPTS} attempts, {now} of {file.size} bytes are there; run "
                f"it again to go on from there."
            )
        if failures:
            time.sleep(min(0.1 * 4**failures, 20))
    if not part.is_file():
        part.touch()  # a file of no bytes


def _transfer(url: str, part: Path, have: int, file: RemoteFile, meter: Meter) -> None:
    """One request for the bytes from `have` on; a server that sends all from the start is taken at that."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            part.unlink(missing_ok=True)
            meter.back(have)
            return
        response.raise_for_status()
        continues = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(
            f"bytes {have}-"
        )
        if have and not continues:
            meter.back(have)
            have = 0
        with part.open("ab" if have else "wb") as out:
            for block in response.iter_content(BLOCK_BYTES):
                have += len(block)
                if have > file.size:
                    out.close()
                    part.unlink()
                    raise OtherVersionError(
                        f"{file.path}: expected {file.size} bytes, but {url} sends more; it is another version."
                    )
                out.write(block)
                meter.add(len(block), file.path)


class Meter:
    """Bytes so far, and how fast they come."""

    def __init__(self, total: int, show: Callable[[FetchProgress], None]) -> None:
        self.total, self.done, self._show, self._started = total, 0, show, time.monotonic()
        self._received = 0

    def add(self, count: int, file: str) -> None:
        """Bytes of a file that came."""
        self.done += count
        self._received += count
        rate = self._received / max(time.monotonic() - self._started, 1e-3)
        left = (self.total - self.done) / rate if rate else None
        self._show(FetchProgress(self.done, self.total, rate, left, file))

    def back(self, count: int) -> None:
        """Bytes that were there must come again."""
        self.total += count


@contextlib.contextmanager
def shown(progress: bool | Callable[[FetchProgress], None]) -> Iterator[Callable[[FetchProgress], None]]:
    """Who is told of progress: a bar on standard error, nobody, or the given function."""
    if callable(progress):
        yield progress
        return
    from tqdm.auto import tqdm

    with tqdm(unit="B", unit_scale=True, unit_divisor=1000, disable=not progress) as bar:

        def show(step: FetchProgress) -> None:
            bar.total = step.total
            bar.set_description_str(step.file.rsplit("/", 1)[-1], refresh=False)
            bar.update(step.done - bar.n)

        yield show
