"""Download one file over HTTP: resumed after a break, and verified by size and MD5.

Size and MD5 come from git-annex. In place of a file its git repository holds a link or a small text whose last part is
the key, `MD5E-s<size>--<md5><extension>` (git-annex.branchable.com, "key format", "pointer file format").

A break leaves `<name>.part`; the next attempt, now or in another session, asks for the rest of it.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import file_digest, md5
from pathlib import Path

from ._checks import POINTER_BYTES

ATTEMPTS = 5  # without a single byte of progress in between
BLOCK_BYTES = 2**16  # a break loses no more than this
TIMEOUT = (10, 60)  # seconds to connect, and between two bytes
_KEY = re.compile(rb"annex/objects/(?:.*/)?MD5E?-s(\d+)--([0-9a-f]{32})[^/\s]*\s*$")
_MD5 = partial(md5, usedforsecurity=False)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file of the data set: its path in it, its size in bytes, its MD5."""

    path: str
    size: int
    md5: str


@dataclass(frozen=True)
class FetchProgress:
    """Progress of a download: bytes done and in total (of this run), bytes per second, seconds left, file."""

    done: int
    total: int
    rate: float
    seconds_left: float | None
    file: str


def remote_file(path: str, content: bytes) -> RemoteFile:
    """Size and MD5 from what the git repository holds for a path: an annex pointer, or the file itself."""
    key = _KEY.search(content) if len(content) <= POINTER_BYTES else None
    if key:
        return RemoteFile(path, int(key[1]), key[2].decode())
    return RemoteFile(path, len(content), _MD5(content).hexdigest())


def part_of(target: Path) -> Path:
    """Where a download that is not complete is kept."""
    return target.with_name(target.name + ".part")


def part_bytes(target: Path, size: int) -> int:
    """Bytes that an earlier attempt left of a file; more than the whole file are of no use."""
    part = part_of(target)
    found = part.stat().st_size if part.is_file() else 0
    return found if found <= size else 0


def download_file(target: Path, file: RemoteFile, url: str, meter: Meter) -> None:
    """Download one file to `target`, and continue what an earlier attempt left.

    Raises
    ------
    ValueError
        Another size or MD5 than the file should have; the download is deleted.
    OSError
        No answer in `ATTEMPTS` attempts; what was downloaded so far is kept.
    """
    from requests import ConnectionError, HTTPError, Timeout
    from requests.exceptions import ChunkedEncodingError

    part, failures = part_of(target), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    if part.is_symlink():  # of somebody's clone: the bytes would go to where it points
        part.unlink()
    while (have := part_bytes(target, file.size)) < file.size:
        try:
            _transfer(url, part, have, file, meter)
        except (ConnectionError, Timeout, ChunkedEncodingError, HTTPError) as error:
            if isinstance(error, HTTPError) and error.response.status_code < 500:
                raise
            _log.info("%s: broken off after %d of %d bytes (%s)", file.path, have, file.size, error)
        now = part.stat().st_size if part.is_file() else 0
        failures = 0 if now > have else failures + 1
        if failures == ATTEMPTS:
            raise OSError(
                f"{file.path}: {now} of {file.size} bytes, then no answer from {url}; run it again to continue."
            )
        if failures:
            time.sleep(min(0.1 * 4**failures, 20))
    part.touch()  # a file of no bytes has no part yet
    with part.open("rb") as content:
        found = file_digest(content, _MD5).hexdigest()
    if found != file.md5:
        part.unlink()
        raise ValueError(
            f"{file.path}: expected MD5 {file.md5}, got {found} from {url}; it was deleted, download it again."
        )
    part.replace(target)


def _transfer(url: str, part: Path, have: int, file: RemoteFile, meter: Meter) -> None:
    """One request for the bytes from `have` on; some servers ignore that and send all from the start."""
    import requests

    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416:
            part.unlink(missing_ok=True)
            meter.total += have
            return
        response.raise_for_status()
        starts_there = response.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if have and not (response.status_code == 206 and starts_there):
            meter.total += have
            have = 0
        with part.open("ab" if have else "wb") as out:
            for block in response.iter_content(BLOCK_BYTES):
                have += len(block)
                if have > file.size:
                    out.close()
                    part.unlink()
                    raise ValueError(
                        f"{file.path}: expected {file.size} bytes, but {url} sends more; it is another version."
                    )
                out.write(block)
                meter.add(len(block), file.path)


class Meter:
    """Counts the bytes of a download and reports them: to a bar (True), to a function, or to nothing (False)."""

    def __init__(self, total: int, progress: bool | Callable[[FetchProgress], None]) -> None:
        from tqdm.auto import tqdm

        self.total, self.done, self._started, self._progress = total, 0, time.monotonic(), progress
        self.bar = tqdm(unit="B", unit_scale=True, disable=progress is not True)

    def add(self, count: int, file: str) -> None:
        """Count bytes of a file that arrived."""
        self.done += count
        rate = self.done / max(time.monotonic() - self._started, 1e-3)
        if callable(self._progress):
            left = (self.total - self.done) / rate if rate else None
            self._progress(FetchProgress(self.done, self.total, rate, left, file))
        self.bar.total = self.total
        self.bar.set_description_str(file.rsplit("/", 1)[-1], refresh=False)
        self.bar.update(count)
