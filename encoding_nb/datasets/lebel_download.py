"""Download the stories of ds003020 that you ask for: resumed after a break, verified.

Sizes and MD5 come from the data set's git repository on GitHub, which has a git-annex key in place of each file; the
files come from OpenNeuro's public bucket over HTTPS.
"""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from .._validation import as_path, check_choice
from ._checks import chosen, is_downloaded
from ._download import (
    TIMEOUT,
    FetchProgress,
    Meter,
    RemoteFile,
    download_file,
    part_bytes,
    remote_file,
)
from .lebel import LITCODER_STORIES, STORY_LISTS, SUBJECTS, story_list

BUCKET = "https://s3.amazonaws.com/openneuro.org"  # path of a file: BUCKET/ds003020/<path>
KEYS = "https://raw.githubusercontent.com/OpenNeuroDatasets/ds003020/HEAD"  # KEYS/<path>: its annex pointer
DATASET = "ds003020"
MOST_ANSWERED, LONGEST_ANSWER = 2**24, 120.0  # bytes and seconds of an answer; real ones have 0.5 MB
MOST_FILES, LONGEST_LISTING = (
    100_000,
    600.0,
)  # files and seconds of a whole listing; real ones have some hundred
_BLOCK_BYTES = (
    16  # requests waits for a whole block, so that a slow server could hold a large one back for days
)
_SPACE_LEFT = 2**28  # bytes that a download leaves free on the disk

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchPlan:
    """What a download is about to do.

    Attributes
    ----------
    folder : the data set's folder
    files : all that was asked for
    missing : those of them that are still to be downloaded
    base_url : where they come from
    """

    folder: Path
    files: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]
    base_url: str

    @property
    def missing_bytes(self) -> int:
        """Bytes to download, less those that an earlier attempt left."""
        return sum(f.size - part_bytes(self.folder / f.path, f.size) for f in self.missing)

    def __repr__(self) -> str:
        return (
            f"{self.missing_bytes / 1e9:.2f} GB in {len(self.missing)} files to download into {self.folder}; "
            f"{len(self.files) - len(self.missing)} of {len(self.files)} are downloaded already"
        )


def fetch_lebel(
    data_dir: str | Path,
    *,
    subject: str,
    stories: str | Iterable[str] | None = None,
    surfaces: bool = True,
    dry_run: bool = False,
    progress: bool | Callable[[FetchProgress], None] = True,
    base_url: str | None = None,
    key_url: str | None = None,
) -> Path | FetchPlan:
    """Download one subject's stories of ds003020 (LeBel et al., 2023; licence CC0), ready for `load_assembly`.

    Parameters
    ----------
    data_dir : folder
        The data set's folder; made if missing. Files in it that have their full size are kept.
    subject : "UTS01" to "UTS09"
    stories : names, or "litcoder", "authors" or "all"
        None takes LITcoder's 25. A story has about 270 MB; the test story wheretheressmoke includes its repeats,
        2.4 GB for UTS03.
    surfaces : bool
        Whether to download the subject's pycortex files too, for flatmaps.
    dry_run : bool
        Only find out what would be downloaded, and return that.
    progress : bool or function
        True shows the total size on standard error before the download starts, then a bar with rate and time left.
        A function is called with each `FetchProgress`.
    base_url, key_url : str, optional
        Where files and their annex keys come from; None takes OpenNeuro's public bucket and its GitHub repository.

    Returns
    -------
    Path
        The data set's folder; for a dry run the `FetchPlan`, with its files and their sizes.

    Raises
    ------
    ValueError
        An unknown subject or story (the known ones are listed), or a file whose size or MD5 differs from its key.
    OSError
        No connection, or too little space on the disk; what was downloaded so far is kept and used next time.
    """
    import requests
    from tqdm import tqdm

    folder = as_path(data_dir, "fetch_lebel")
    check_choice(subject, "subject", SUBJECTS)
    base, keys = base_url or BUCKET, key_url or KEYS
    with requests.Session() as session:  # about 100 small requests
        responses = f"derivative/preprocessed_data/{subject}/"
        known = tuple(Path(path).stem for path in _listing(session, base, responses) if path.endswith(".hf5"))
        names = story_list(LITCODER_STORIES if stories is None else stories, {**STORY_LISTS, "all": known})
        paths = ["derivative/respdict.json"]
        for name in chosen(names, known, f"stories: {subject}"):
            paths += [f"{responses}{name}.hf5", f"derivative/TextGrids/{name}.TextGrid"]
        if surfaces:
            paths += _listing(session, base, f"derivative/pycortex-db/{subject}/")
        with ThreadPoolExecutor(8) as pool:
            answers = pool.map(lambda path: _get(session, f"{keys}/{quote(path)}"), paths)
            files = tuple(map(remote_file, paths, answers))
    # a file was verified before it got its name, so its size is enough
    whole = {
        f for f in files if is_downloaded(folder / f.path) and (folder / f.path).stat().st_size == f.size
    }
    plan = FetchPlan(folder, files, tuple(f for f in files if f not in whole), base)
    _log.info("%s", plan)
    if progress is True:
        tqdm.write(str(plan), file=sys.stderr)
    if dry_run:
        return plan
    fetch(plan, progress=progress)
    return plan.folder


# ---------------------------------------------------------------------- what to download


def _get(session: Any, url: str, **options: Any) -> bytes:
    """A small answer; an OSError without a connection, where the server refuses, or where it does not stop."""
    import requests

    started, content = time.monotonic(), bytearray()
    try:
        with session.get(url, timeout=TIMEOUT, stream=True, **options) as response:
            response.raise_for_status()
            for block in response.iter_content(_BLOCK_BYTES):
                content += block
                if len(content) > MOST_ANSWERED or time.monotonic() - started > LONGEST_ANSWER:
                    raise OSError(
                        f"{url}: expected a small answer, got {len(content):,} bytes in "
                        f"{time.monotonic() - started:.0f} s and no end; is this the right server?"
                    )
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise OSError(
            f"{url} could not be reached ({type(error).__name__}); check the network, then run it again to continue."
        ) from error
    return bytes(content)


def _listing(session: Any, base_url: str, prefix: str) -> list[str]:
    """Paths in the data set that begin with `prefix`, by the bucket's own listing (S3 ListObjectsV2)."""
    paths: list[str] = []
    query = {"list-type": "2", "prefix": f"{DATASET}/{prefix}"}
    started = time.monotonic()
    while len(paths) <= MOST_FILES and time.monotonic() - started < LONGEST_LISTING:
        content = _get(session, base_url, params=query)
        if b"<!" in content:  # a document type, which can name texts that grow without bound
            raise OSError(f"{base_url}: expected a listing of {prefix}, got another kind of page.")
        try:
            root = ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise OSError(f"{base_url}: expected a listing of {prefix} ({error}).") from error
        keys = [element.text or "" for element in root.iterfind(".//{*}Key")]
        new = [key.removeprefix(f"{DATASET}/") for key in keys if key and not key.endswith("/")]
        for path in new:
            if not path.startswith(prefix) or "\\" in path or ":" in path or ".." in path.split("/"):
                raise ValueError(
                    f"The server lists {path!r}, which is outside of {prefix}; nothing was downloaded."
                )
        paths += new
        if root.findtext("{*}IsTruncated") != "true":
            return paths
        token = root.findtext("{*}NextContinuationToken") or ""
        if not new or token == query.get("continuation-token"):
            break
        query["continuation-token"] = token
    raise OSError(f"{base_url}: the listing of {prefix} does not end.")


# ---------------------------------------------------------------------- the download


def fetch(plan: FetchPlan, *, progress: bool | Callable[[FetchProgress], None] = True) -> None:
    """Download the missing files of a plan. Errors as `fetch_lebel`."""
    if not plan.missing:
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(plan.folder).free
    if plan.missing_bytes + _SPACE_LEFT > free:
        raise OSError(
            f"{plan.folder}: {plan.missing_bytes / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; make room or take "
            f"fewer stories."
        )
    meter = Meter(plan.missing_bytes, progress)
    with meter.bar:
        for file in plan.missing:
            url = f"{plan.base_url}/{DATASET}/{quote(file.path)}"
            download_file(plan.folder / file.path, file, url, meter)
