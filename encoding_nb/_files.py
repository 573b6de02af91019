"""Files of the package: the cache folder, writing without half-written files, and digests of contents."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

CACHE_VARIABLE = "ENCODING_NB_CACHE"

_log = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The user's cache folder for this package (`$ENCODING_NB_CACHE`, else the platform's), made if missing.

    Where it cannot be written, a folder under the temporary directory.
    """
    import platformdirs

    chosen = os.environ.get(CACHE_VARIABLE)
    folder = Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("encoding_nb", False))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
        reason = "it is read-only"
    except OSError as error:
        reason = str(error)
    user = getattr(os, "getuid", lambda: "user")()
    spare = Path(tempfile.gettempdir()) / f"encoding_nb-{user}"
    _log.warning("The cache folder %s cannot be used (%s); using %s instead.", folder, reason, spare)
    spare.mkdir(parents=True, exist_ok=True)
    return spare


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A path next to `target` to write to; moved to `target` when the block ends without an error, else removed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(target.parent)
    handle, name = tempfile.mkstemp(
        dir=target.parent, prefix=_draft_prefix(target.stem), suffix=target.suffix
    )
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for temporary files, removed when the block ends; by the next one where the process was killed."""
    place = Path(tempfile.gettempdir())
    remove_abandoned(place)
    with tempfile.TemporaryDirectory(dir=place, prefix=_draft_prefix("encoding_nb")) as folder:
        yield Path(folder)


# ---------------------------------------------------------------------- what a killed process leaves

# .<name>-<digest of the machine>-<process>-<random>.<suffix>
_DRAFT = re.compile(r"\..{1,40}-enb([0-9a-f]{8})-(\d{1,10})-[a-z0-9_]{8}(\.\w+)?", re.DOTALL)
_ABANDONED_SECONDS = 7 * 24 * 3600.0  # drafts of other machines, whose processes cannot be seen


def _draft_prefix(stem: str) -> str:
    return f".{stem[:40] or '_'}-enb{_machine_digest()}-{os.getpid()}-"


def _machine_digest() -> str:
    """Digest of what one number of a process belongs to: host name, start of the system, PID namespace."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # Linux's
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/pid"))
    return digest(["|".join(parts)])[:8]


@lru_cache
def remove_abandoned(folder: Path) -> None:
    """Remove drafts in a folder that processes left that have ended, once per folder and process.

    A draft's name has the machine and the process that writes it. Drafts of another machine (or of a container, or
    from before a restart) are removed when nothing was written to them for a week.
    """
    here = _machine_digest()
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = _DRAFT.fullmatch(entry.name)
            if name is None:
                continue
            with contextlib.suppress(OSError):  # somebody else's, or just gone
                written = entry.stat(follow_symlinks=False).st_mtime
                old = time.time() - written > _ABANDONED_SECONDS
                abandoned = not _runs(int(name[2])) if name[1] == here else old
                if abandoned and entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif abandoned:
                    os.unlink(entry.path)


def _runs(number: int) -> bool:
    """Whether a process of this machine runs; True too where another one has got its number."""
    import psutil

    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
    except psutil.Error:  # another user's
        return True


def digest(parts: Iterable[Any]) -> str:
    """SHA-256 of texts (as UTF-8) and of anything that holds bytes, one after another: 64 hexadecimal digits.

    Lengths are not hashed: put them in where ("ab", "c") and ("a", "bc") must differ.
    """
    hashed = sha256()
    for part in parts:
        hashed.update(part.encode("utf-8", errors="surrogatepass") if isinstance(part, str) else part)
    return hashed.hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content, as `sha256sum` prints it."""
    with open(path, "rb") as content:
        return file_digest(content, "sha256").hexdigest()
