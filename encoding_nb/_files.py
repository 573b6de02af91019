"""Files of the package: the cache folder, writing without half-written files, and digests of contents."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator
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
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem[:40]}-", suffix=target.suffix)
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


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
