"""Download parts of ds003020: only what is asked for, resumed after a break, verified.

Sizes and MD5 come from the data set's own git-annex keys, which its git repository on GitHub holds in the place of
each file; the content comes from OpenNeuro's public bucket over HTTPS.
"""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import md5
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from .._validation import require_path
from ._download import (
    TIMEOUT,
    FetchProgress,
    Meter,
    RemoteFile,
    download_file,
    is_downloaded,
    parse_pointer,
    part_bytes,
    shown,
)
from .lebel import LITCODER_STORIES, STORY_LISTS, SUBJECTS, chosen_stories

BUCKET = "https://s3.amazonaws.com/openneuro.org"  # path of a file: BUCKET/ds003020/<path>
KEYS = "https://raw.githubusercontent.com/OpenNeuroDatasets/ds003020/HEAD"  # KEYS/<path>: its annex pointer
DATASET = "ds003020"
_SPACE_LEFT = 2**28  # bytes that a download leaves free on the disk

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FetchPlan:
    """What a download is about to do.

    Attributes
    ----------
    folder : where the data set is, or is to be
    files : all that was asked for
    missing : those of them that are not there yet
    """

    folder: Path
    files: tuple[RemoteFile, ...]
    missing: tuple[RemoteFile, ...]

    @property
    def missing_bytes(self) -> int:
        """Bytes to download, less what an earlier attempt left behind."""
        return sum(f.size - part_bytes(self.folder / f.path, f.size) for f in self.missing)

    def __repr__(self) -> str:
        return f"FetchPlan({self})"

    def __str__(self) -> str:
        there = len(self.files) - len(self.missing)
        return (
            f"{self.missing_bytes / 1e9:.2f} GB in {len(self.missing)} files to download into {self.folder}; "
            f"{there} of {len(self.files)} are there already"
        )


def fetch_lebel(
    data_dir: str | Path,
    *,
    subject: str,
    stories: str | Iterable[str] | None = None,
    surfaces: bool = True,
    dry_run: bool = False,
    progress: bool | Callable[[FetchProgress], None] = True,
    base_url: str = BUCKET,
    key_url: str = KEYS,
) -> Path | FetchPlan:
    """Download one subject's stories of ds003020 (LeBel et al., 2023; licence CC0), ready for `load_assembly`.

    Parameters
    ----------
    data_dir : folder
        The data set's own; made if missing. Files that are there with their full size are kept.
    subject : "UTS01" to "UTS09"
    stories : names, or "litcoder", "authors" or "all"
        None takes LITcoder's 25. A story has some 270 MB; the test story wheretheressmoke holds its repeats,
        2.4 GB for UTS03.
    surfaces : bool
        The subject's pycortex files, for flatmaps, too.
    dry_run : bool
        Only find out what would be downloaded, and return that.
    progress : bool or function
        On standard error the size of it all, before anything comes, and a bar with rate and time left; or a
        function that is given each `FetchProgress`.
    base_url, key_url : where files and their annex keys come from

    Returns
    -------
    Path
        The data set's folder; of a dry run the `FetchPlan`, with its files and their sizes.

    Raises
    ------
    ValueError
        An unknown subject or story (the known ones are listed), or a file whose size or MD5 is not that of its key.
    OSError
        No connection, or too little space on the disk; what was downloaded so far stays and is used next time.
    """
    from tqdm import tqdm

    plan = plan_lebel(
        data_dir, subject=subject, stories=stories, surfaces=surfaces, base_url=base_url, key_url=key_url
    )
    _log.info("%s", plan)
    if progress is True:
        tqdm.write(str(plan), file=sys.stderr)
    if dry_run:
        return plan
    fetch(plan, progress=progress, base_url=base_url)
    return plan.folder


# ---------------------------------------------------------------------- what to download


def plan_lebel(
    data_dir: str | Path,
    *,
    subject: str,
    stories: str | Iterable[str] | None = None,
    surfaces: bool = True,
    base_url: str = BUCKET,
    key_url: str = KEYS,
) -> FetchPlan:
    """What `fetch_lebel` would download; asks for listings and keys, some 100 small requests."""
    if subject not in SUBJECTS:
        raise ValueError(f"subject: expected one of {', '.join(SUBJECTS)}, got {subject!r}.")
    import requests

    folder = require_path(data_dir, "fetch_lebel")
    with requests.Session() as session:
        responses = f"derivative/preprocessed_data/{subject}/"
        there = [Path(path).stem for path in _listing(session, base_url, responses) if path.endswith(".hf5")]
        names = _names(stories, there, subject)
        paths = ["derivative/respdict.json"]
        for name in names:
            paths += [f"{responses}{name}.hf5", f"derivative/TextGrids/{name}.TextGrid"]
        if surfaces:
            paths += _listing(session, base_url, f"derivative/pycortex-db/{subject}/")
        with ThreadPoolExecutor(8) as pool:
            files = tuple(pool.map(lambda path: _remote_file(session, key_url, path), paths))
    missing = tuple(f for f in files if not _is_whole(folder / f.path, f.size))
    return FetchPlan(folder, files, missing)


def _names(stories: str | Iterable[str] | None, there: list[str], subject: str) -> tuple[str, ...]:
    if stories is None:
        stories = LITCODER_STORIES
    if isinstance(stories, str) and stories == "all":
        stories = there
    if isinstance(stories, str) and stories not in STORY_LISTS:
        raise ValueError(f"stories: expected names, 'all', 'litcoder' or 'authors', got {stories!r}.")
    names = tuple(dict.fromkeys(chosen_stories(stories)))
    unknown = [name for name in names if name not in there]
    if unknown or not names:
        problem = f"{subject} has no story {', '.join(unknown)}" if unknown else "no story was named"
        raise ValueError(f"stories: {problem}; there are {', '.join(sorted(there)) or 'none'}.")
    return names


def _get(session: Any, url: str, **options: Any) -> Any:
    """A small response; no connection is an OSError, a refusal (as requests has it) too."""
    import requests

    try:
        response = session.get(url, timeout=TIMEOUT, **options)
    except (requests.ConnectionError, requests.Timeout) as error:
        raise OSError(
            f"{url} could not be reached ({type(error).__name__}); check the network and its proxy, and run it again: "
            f"what was downloaded so far is kept."
        ) from error
    response.raise_for_status()
    return response


def _listing(session: Any, base_url: str, prefix: str) -> list[str]:
    """Paths in the data set that begin with `prefix`, by the bucket's own listing (S3 ListObjectsV2)."""
    paths: list[str] = []
    query = {"list-type": "2", "prefix": f"{DATASET}/{prefix}"}
    while True:
        content = _get(session, base_url, params=query).content
        try:
            root = ElementTree.fromstring(content)
        except ElementTree.ParseError as error:
            raise OSError(
                f"{base_url}: expected a listing of {prefix}, got something else ({error})."
            ) from error
        found = {element.tag.split("}")[-1]: element.text for element in root}
        for element in root.iter():
            if element.tag.split("}")[-1] == "Key" and element.text and not element.text.endswith("/"):
                paths.append(_safe_path(element.text.removeprefix(f"{DATASET}/")))
        if found.get("IsTruncated") != "true":
            return paths
        query["continuation-token"] = found.get("NextContinuationToken") or ""


def _safe_path(path: str) -> str:
    """A path that stays within the data set's folder, whatever a server says."""
    if path.startswith("/") or "\\" in path or ":" in path or ".." in path.split("/"):
        raise ValueError(
            f"A listing holds the path {path!r}, which leads out of the data set; nothing was done."
        )
    return path


def _remote_file(session: Any, key_url: str, path: str) -> RemoteFile:
    """Size and MD5 of a file, from its annex key or, for a file that git itself holds, from its content."""
    content = _get(session, f"{key_url}/{quote(path)}").content
    key = parse_pointer(content[:1000].decode("utf-8", errors="replace"))
    if key is not None:
        return RemoteFile(path, key.size, key.md5)
    return RemoteFile(path, len(content), md5(content, usedforsecurity=False).hexdigest())


def _is_whole(path: Path, size: int) -> bool:
    """A file was verified before it got its name, so its size is enough."""
    return path.is_file() and path.stat().st_size == size and is_downloaded(path)


# ---------------------------------------------------------------------- the download


def fetch(
    plan: FetchPlan, *, progress: bool | Callable[[FetchProgress], None] = True, base_url: str = BUCKET
) -> None:
    """Download what a plan misses. Errors as `fetch_lebel`."""
    import pooch

    if not plan.missing:
        return
    plan.folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(plan.folder).free
    if plan.missing_bytes + _SPACE_LEFT > free:
        raise OSError(
            f"{plan.folder}: {plan.missing_bytes / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free; make room or "
            f"ask for fewer stories."
        )
    quiet = pooch.get_logger()
    before = quiet.level
    quiet.setLevel("WARNING")  # pooch logs each file and its hash
    try:
        with shown(progress) as show:
            meter = Meter(plan.missing_bytes, show)
            for file in plan.missing:
                download_file(
                    plan.folder / file.path, file, f"{base_url}/{DATASET}/{quote(file.path)}", meter
                )
    finally:
        quiet.setLevel(before)
