"""`load_assembly`, and the table of the kinds of data that it opens."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from .._validation import as_path
from ..assembly import Assembly
from . import alice, demo, hdf5, lebel, litcoder
from ._checks import check_downloaded
from .hdf5 import save_assembly

# Kinds of data: each module `recognises` a path and `load`s it; the first that recognises a path takes it.
LOADERS: Mapping[str, ModuleType] = {
    "a LITcoder assembly (.pkl)": litcoder,
    "a file written by save_assembly (.h5)": hdf5,
    "the folder of OpenNeuro's ds003020": lebel,
    "the folder of Brennan et al. (2016), Alice in Wonderland": alice,
}


def load_assembly(
    source: str | Path,
    *,
    subject: str | None = None,
    stories: str | Iterable[str] | None = None,
    **options: Any,
) -> Assembly:
    """Open a data set: the demo, or files.

    Parameters
    ----------
    source : "demo", or a path
        "demo" is the built-in demo: written stories, a small trained language model, and simulated BOLD on
        pycortex's subject S1. A path is one of: a LITcoder assembly (.pkl), a file that `save_assembly` wrote
        (.h5), the folder of OpenNeuro's ds003020, the folder of Brennan et al. (2016).
    subject : str, optional
        The subject to load, where there are several: "UTS03"; for Alice a listener ("s18"), "mean" or "all".
        A LITcoder assembly does not name its subject: this becomes its name.
    stories : names, optional
        Keep only these, in the data set's order; for ds003020 also "litcoder" or "authors".
    options
        Further arguments of one kind of data, see `load` in its file: ``repeats`` and ``nan`` (`datasets/lebel.py`),
        ``context_type`` and ``surface`` (`datasets/litcoder.py`), ``radius_mm`` and ``detrend`` (`datasets/alice.py`).

    Returns
    -------
    Assembly
        BOLD from files is read when it is indexed, story by story.

    Raises
    ------
    FileNotFoundError
        Files that were not downloaded.
    ValueError
        An unknown kind of data, subject, story or option, or data that do not fit together; the message says
        where, and lists what is known.
    TypeError
        `source` is not a path.
    """
    named = {"subject": subject, "stories": stories}
    given = options | {name: value for name, value in named.items() if value is not None}
    path = None if str(source) == "demo" else as_path(source, "load_assembly")
    loader = demo if path is None else _loader(path)
    if "stories" in given and not (isinstance(stories, str) and loader is lebel):  # there a text names a list
        given["stories"] = (stories,) if isinstance(stories, str) else tuple(stories)
    known = [p.name for p in signature(loader.load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    unknown = [option for option in given if option not in known]
    if unknown:
        raise ValueError(f"{source}: these data take no {', '.join(unknown)}; they take {', '.join(known)}.")
    assembly = demo.load(**given) if path is None else loader.load(path, **given)
    return replace(assembly, source=str(source), source_options=given)


def convert(source: str | Path, path: str | Path, **options: Any) -> Path:
    """Load a data set and save it to one HDF5 file.

    `options` as for `load_assembly`; errors as there and in `save_assembly`.
    """
    return save_assembly(load_assembly(source, **options), path)


def _loader(source: Path) -> ModuleType:
    """The module that reads a path; a ValueError lists what can be read."""
    kinds = f"load_assembly opens 'demo', {', '.join(LOADERS)}"
    kinds += "; fetch_lebel, or `python -m encoding_nb fetch`, downloads ds003020"
    if not source.exists() and not source.is_symlink():
        raise ValueError(f"Unknown data set {str(source)!r}: no such file or folder; {kinds}.")
    if not source.is_dir():
        check_downloaded(source, how="download it with `git annex get` in a clone")
    for loader in LOADERS.values():
        if loader.recognises(source):
            return loader
    raise ValueError(f"Unknown data set {str(source)!r}: its kind is unknown; {kinds}.")
