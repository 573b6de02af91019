"""The folder of pycortex's subjects: found, and made usable in this process without writing the user's settings.

pycortex keeps its subjects in a *store* (`<store>/<subject>/surfaces`, `.../transforms`). Where it looks is
written into the user's `options.cfg` when pycortex is first imported, and an installer can write a wrong
folder there. Nothing here writes that file: the right store is set for this process only.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import logging
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from .._files import cache_folder, digest, new_file

STORE_VARIABLE = "ENCODING_NB_PYCORTEX_STORE"

_INSTALLED = ("share", "pycortex", "db")  # where pycortex's files are, below a Python's prefix

_log = logging.getLogger(__name__)
# pycortex keeps its store and its caches in module globals: one thread at a time.
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
        if "cortex" not in sys.modules:
            with _no_config_written(), quiet():
                importlib.import_module("cortex")
        cortex = sys.modules["cortex"]
        if not _configured:
            _configured.append(Path(cortex.options.config.get("basic", "filestore")))
        return cortex


@contextlib.contextmanager
def _no_config_written() -> Iterator[None]:
    """While pycortex is imported: if it can read no `options.cfg` it writes one; redirect that to another folder.

    `cortex.options` asks `cortex.appdirs` for the folder. That module needs no other one, so it can be imported
    before its package and be made to answer with a temporary folder; a read-only home would stop the import, and the
    environment, which other threads read, too, stays as it is.
    """
    package = importlib.util.find_spec("cortex")
    if package is None or package.origin is None:
        raise ImportError("Brain maps of this subject need pycortex; install it with `pip install pycortex`.")
    spec: Any = importlib.util.spec_from_file_location(
        "cortex.appdirs", Path(package.origin).with_name("appdirs.py")
    )
    appdirs: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(appdirs)
    user_folder = appdirs.user_data_dir
    if os.access(Path(user_folder("pycortex"), "options.cfg"), os.R_OK):
        yield  # pycortex only reads a file that exists
        return
    sys.modules["cortex.appdirs"] = appdirs
    with tempfile.TemporaryDirectory(prefix="encoding_nb-pycortex-") as elsewhere:
        appdirs.user_data_dir = lambda *args, **kwargs: elsewhere
        try:
            yield
        finally:
            appdirs.user_data_dir = user_folder
    options: Any = sys.modules["cortex.options"]
    options.userdir = user_folder("pycortex")
    options.usercfg = os.path.join(options.userdir, "options.cfg")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what pycortex prints to the log: hundreds of lines for some masks.

    What other threads print meanwhile goes there, too; call it only around pycortex, under `pycortex_lock`.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield
    if printed.getvalue():
        _log.debug("pycortex: %s", printed.getvalue())


def candidate_stores() -> list[Path]:
    """The folders that may be stores, in the order in which they are tried; without importing pycortex.

    Raises
    ------
    ValueError
        The environment names a store that is not a folder.
    """
    found = [Path(os.environ[STORE_VARIABLE]).expanduser()] if os.environ.get(STORE_VARIABLE) else []
    if found and not found[0].is_dir():
        raise ValueError(
            f"{STORE_VARIABLE} is set to {found[0]}, which is not a folder; set it to a pycortex store (a folder with "
            f"one folder per subject), or unset it."
        )
    if "cortex" in sys.modules:
        found += [Path(sys.modules["cortex"].db.filestore), *_configured]
    return list(dict.fromkeys([*found, *_installed_stores()]))


@cache
def _installed_stores() -> tuple[Path, ...]:
    """Where pycortex's subject S1 was installed; cached, since every redraw of a map asks for its store."""
    found = []
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("pycortex") or []:
            if file.parts[-4:-1] == ("pycortex", "db", "S1"):
                found.append(Path(str(file.locate())).resolve().parents[1])
    return (*found, Path(sys.prefix) / "share" / "pycortex" / "db")


def subjects_of(store: Path) -> list[str]:
    """The subjects of a store: its folders that contain surfaces."""
    return sorted(path.parent.name for path in store.glob("*/surfaces") if path.is_dir())


def find_store(subject: str, *, store: str | Path | None = None) -> Path:
    """The store that contains `subject`, on disk; without importing pycortex.

    Parameters
    ----------
    subject : str
    store : folder, optional
        The store to use, such as the `pycortex-db` of a data set; None takes the first candidate that contains
        the subject.

    Raises
    ------
    ValueError
        The store, or every candidate, lacks the subject (the known subjects are listed); the environment names a
        store that is not a folder; or files of the subject are links to files that do not exist.
    """
    stores = candidate_stores() if store is None else [Path(store).expanduser()]
    for candidate in stores:
        if (candidate / subject / "surfaces").is_dir():
            _refuse_broken_links(candidate / subject)
            return candidate
    known = ", ".join(sorted({name for candidate in stores for name in subjects_of(candidate)})) or "none"
    remedy = f"set {STORE_VARIABLE}" if store is None else "set the `store` of the surface"
    raise ValueError(
        f"No pycortex store has the subject {subject!r}; known subjects: {known} (searched "
        f"{', '.join(map(str, stores))}). Check the name, or {remedy} to a folder with one folder per subject."
    )


def _refuse_broken_links(subject: Path) -> None:
    """Data sets under git-annex consist of links whose files are fetched one by one."""
    lost = [path for path in (subject / "surfaces").iterdir() if not path.exists()]
    if lost:
        raise ValueError(
            f"{len(lost)} surface files of {subject} (such as {min(lost).name}) are links to files that do not exist; "
            f"fetch them first, for example with `datalad get {subject}`."
        )


def open_store(subject: str, *, store: str | Path | None = None) -> Path:
    """Make pycortex in this process use a store that contains `subject` and can be written to.

    This is `store` if it is given; else the first one that contains the subject: `$ENCODING_NB_PYCORTEX_STORE`, the
    store that pycortex uses now, the one it is configured with, the one it was installed with. pycortex
    writes its caches next to its subjects. So a given store (that of a data set), a read-only one, or one
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
    if not colormaps.is_dir():  # wrong for the same reason as the store; cortex.webgl reads it late
        folders = (candidate.parent / "colormaps" for candidate in candidate_stores())
        colormaps = next((folder for folder in folders if folder.is_dir()), colormaps)
        cortex.options.config.set("webgl", "colormaps", str(colormaps))
    cortex.db.reload_subjects()
    cortex.db.__dict__.pop("_memocache", None)  # surfaces of a subject of the same name elsewhere


def _can_grow(store: Path, subject: str) -> bool:
    """Whether pycortex may write next to this subject; not inside an installation, which others share.

    That may be another installation than the running one: pip caches a built pycortex, with the folder of its
    first environment as the store, and installs it into the next environment.
    """
    resolved = store.resolve()
    if resolved.is_relative_to(Path(sys.prefix).resolve()) or resolved.parts[-3:] == _INSTALLED:
        return False
    folders = [store / subject, *(path for path in (store / subject).rglob("*") if path.is_dir())]
    return all(os.access(folder, os.W_OK) for folder in folders)


def linked_folder(store: Path) -> Path:
    """Where `_linked_store` puts its links to a store, and pycortex what it makes of them."""
    return cache_folder() / "pycortex" / digest([str(store.resolve())])[:12]


def _linked_store(store: Path) -> Path:
    """A store in the cache folder with real folders and links to the files of `store`; brought up to date."""
    links = linked_folder(store)
    for subject in subjects_of(store):
        for path in sorted((store / subject).rglob("*")):
            target = links / path.relative_to(store)
            if path.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            # what pycortex made stays, and a link to a missing file is useless
            elif path.exists() and not target.exists():
                _link(path, target)
    return links


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # a link whose file has gone
    if source.suffix != ".svg":  # pycortex edits drawings in place
        with contextlib.suppress(OSError):  # another process was quicker, or the file system has no links
            target.symlink_to(source.resolve())
    if not target.exists():
        with new_file(target) as draft:
            shutil.copyfile(source, draft)
