"""The pycortex store: found, made usable in this process, and the user's own settings left alone.

pycortex keeps its subjects in a *store* (`<store>/<subject>/surfaces`, `.../transforms`). Where it looks is
written into the user's `options.cfg` when pycortex is first imported, and an installer can bake a wrong
folder into that. Nothing here writes that file: the right store is set for this process only.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any

from .._files import cache_folder, new_file

STORE_VARIABLE = "ENCODING_NB_PYCORTEX_STORE"

_INSTALLED = ("share", "pycortex", "db")  # where pycortex's own files go, below a Python's prefix

_log = logging.getLogger(__name__)
# pycortex keeps its store, its memo and its files in module globals: one thread at a time.
pycortex_lock = threading.RLock()
_configured: list[Path] = []  # the store pycortex was configured with, before we set another


def import_cortex() -> ModuleType:
    """pycortex, imported without writing an `options.cfg` for a user who has none.

    Raises
    ------
    ImportError
        pycortex is not installed; the message says how to install it.
    """
    with pycortex_lock:
        if "cortex" in sys.modules:
            cortex = sys.modules["cortex"]
        else:
            with _no_config_written(), quiet():
                cortex = importlib.import_module("cortex")
        if not _configured:
            _configured.append(Path(cortex.options.config.get("basic", "filestore")))
        return cortex


@contextlib.contextmanager
def _no_config_written() -> Iterator[None]:
    """While pycortex is imported: where it can read no `options.cfg` it writes one; let it do that elsewhere.

    `cortex.options` asks `cortex.appdirs` for the folder. That module stands on its own, so it can be
    loaded before its package and be made to answer with a temporary folder; the environment, which other
    threads and matplotlib read too, stays as it is.
    """
    spec = importlib.util.find_spec("cortex")
    if spec is None or spec.origin is None:
        raise ImportError("Brain maps of this subject need pycortex; install it with `pip install pycortex`.")
    appdirs = _load_alone("cortex.appdirs", Path(spec.origin).with_name("appdirs.py"))
    real = appdirs.user_data_dir
    if os.access(Path(real("pycortex"), "options.cfg"), os.R_OK):
        yield  # pycortex only reads a file that is there
        return
    sys.modules["cortex.appdirs"] = appdirs
    with tempfile.TemporaryDirectory(prefix="encoding_nb-pycortex-") as elsewhere:
        appdirs.user_data_dir = lambda *args, **kwargs: elsewhere
        try:
            yield
        finally:
            appdirs.user_data_dir = real
    options = sys.modules["cortex.options"]
    options.userdir = real("pycortex")
    options.usercfg = os.path.join(options.userdir, "options.cfg")


def _load_alone(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class _SilentHere:
    """A stream that drops what one thread writes and hands on what all others write."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        if threading.get_ident() != self._thread:
            return self._stream.write(text)
        if text.strip():
            _log.debug("pycortex: %s", text.strip())
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what pycortex prints in this thread to the log; it prints hundreds of lines for some masks."""
    before = sys.stdout
    silent = _SilentHere(before)
    sys.stdout = silent  # type: ignore[assignment]
    try:
        yield
    finally:
        if sys.stdout is silent:
            sys.stdout = before


def candidate_stores() -> list[Path]:
    """The folders that may be stores, in the order in which they are tried; without importing pycortex.

    Raises
    ------
    ValueError
        The environment names a store that is no folder.
    """
    found = [Path(os.environ[STORE_VARIABLE]).expanduser()] if os.environ.get(STORE_VARIABLE) else []
    if found and not found[0].is_dir():
        raise ValueError(
            f"{STORE_VARIABLE} names {found[0]}, which is no folder; set it to a pycortex store, a folder with one "
            f"folder per subject, or unset it."
        )
    if "cortex" in sys.modules:
        found += [Path(sys.modules["cortex"].db.filestore), *_configured]
    return list(dict.fromkeys([*found, *_installed_stores()]))


@cache
def _installed_stores() -> tuple[Path, ...]:
    """Where pycortex's own subject was installed; kept, since every redraw of a map asks for its store."""
    found = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("pycortex") or []:
            if file.parts[-4:-1] == ("pycortex", "db", "S1"):
                found.append(Path(str(file.locate())).resolve().parents[1])
    return (*found, Path(sys.prefix) / "share" / "pycortex" / "db")


def subjects_of(store: Path) -> list[str]:
    """The subjects of a store: its folders that hold surfaces."""
    try:
        return sorted(folder.name for folder in store.iterdir() if (folder / "surfaces").is_dir())
    except OSError:
        return []


def find_store(subject: str, *, store: str | Path | None = None) -> Path:
    """The store that holds `subject`, as it lies on disk; without importing pycortex.

    Parameters
    ----------
    subject : str
    store : folder, optional
        The store to take, such as a data set's own `pycortex-db`; None takes the first candidate that holds
        the subject.

    Raises
    ------
    ValueError
        The store, or every candidate, is without the subject, and the known subjects are listed; the environment
        names a store that is no folder; or files of the subject are links to files that are not there.
    """
    stores = candidate_stores() if store is None else [Path(store).expanduser()]
    for candidate in stores:
        if (candidate / subject / "surfaces").is_dir():
            _refuse_broken_links(candidate / subject)
            return candidate
    known = sorted({name for candidate in stores for name in subjects_of(candidate)})
    listed = f"known subjects: {', '.join(known) or 'none'}"
    if store is not None:
        raise ValueError(
            f"The pycortex store {stores[0]} has no subject {subject!r}; {listed}; check the surface's `store`, "
            f"a folder with one folder per subject."
        )
    raise ValueError(
        f"Subject {subject!r} is in no pycortex store; {listed} "
        f"(looked in {', '.join(map(str, stores))}); set {STORE_VARIABLE} to the folder that holds it."
    )


def _refuse_broken_links(subject: Path) -> None:
    """Data sets under git-annex come as links whose files are fetched one by one."""
    lost = [path for path in (subject / "surfaces").iterdir() if not path.exists()]
    if lost:
        raise ValueError(
            f"{len(lost)} surface files of {subject}, among them {min(lost).name}, are links to files that are not "
            f"there; fetch them first, for example with `datalad get {subject}`."
        )


def open_store(subject: str, *, store: str | Path | None = None) -> Path:
    """Make pycortex in this process use a store that holds `subject` and can be written.

    `store`, where it is given; else the first that holds the subject of: `$ENCODING_NB_PYCORTEX_STORE`, the
    store pycortex uses now, the one it is configured with, the one pycortex was installed with. pycortex
    writes its caches beside its subjects; so a store that is given (a data set's own), is read-only, or lies
    inside the Python installation is used through a folder of links in the user's cache folder. No
    configuration file is read again or written.

    Returns
    -------
    Path
        The store in use, `cortex.db.filestore`.

    Raises
    ------
    ValueError
        As `find_store`.
    """
    with pycortex_lock:
        cortex = import_cortex()
        folder = find_store(subject, store=store)
        if store is not None or not _can_grow(folder, subject):
            folder = _linked_store(folder)
        if Path(cortex.db.filestore) != folder:
            _use(cortex, folder)
        return folder


def _use(cortex: ModuleType, store: Path) -> None:
    cortex.db.filestore = cortex.database.default_filestore = str(store)
    cortex.options.config.set("basic", "filestore", str(store))
    colormaps = Path(cortex.options.config.get("webgl", "colormaps"))
    if not colormaps.is_dir():  # stale for the same reason as the store; cortex.webgl reads it late
        for candidate in candidate_stores():
            if (candidate.parent / "colormaps").is_dir():
                cortex.options.config.set("webgl", "colormaps", str(candidate.parent / "colormaps"))
                break
    cortex.db.reload_subjects()
    cortex.db.__dict__.pop("_memocache", None)  # surfaces of a subject of the same name elsewhere


def _can_grow(store: Path, subject: str) -> bool:
    """Whether pycortex may write beside this subject; not inside an installation, which others share.

    An installation need not be the one that runs: pip keeps a built pycortex and hands it, with the folder
    of its first environment baked in as the store, to the next environment.
    """
    resolved = store.resolve()
    if resolved.is_relative_to(Path(sys.prefix).resolve()) or resolved.parts[-3:] == _INSTALLED:
        return False
    folders = [store / subject, *(path for path in (store / subject).rglob("*") if path.is_dir())]
    return all(os.access(folder, os.W_OK) for folder in folders)


def _linked_store(store: Path) -> Path:
    """A store in the cache folder with real folders and links to the files of `store`; brought up to date."""
    key = blake2b(str(store.resolve()).encode(), digest_size=6).hexdigest()
    links = cache_folder() / "pycortex" / key
    for subject in subjects_of(store):
        for path in sorted((store / subject).rglob("*")):
            target = links / path.relative_to(store)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
    return links


def _link(source: Path, target: Path) -> None:
    if target.exists() or not source.exists():  # what pycortex made stays; a link to nothing helps nobody
        return
    with contextlib.suppress(FileExistsError):  # another process was quicker
        target.unlink(missing_ok=True)  # a link whose file is gone
        if source.suffix == ".svg":  # pycortex edits these in place
            _copy(source, target)
            return
        try:
            target.symlink_to(source.resolve())
        except FileExistsError:
            raise
        except OSError:  # no links on this file system
            _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copy under a temporary name and move, so that no other process sees half a file."""
    with new_file(target) as draft:
        shutil.copyfile(source, draft)
