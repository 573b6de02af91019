"""Which reader opens which data: `load_assembly` and the table of kinds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from .._validation import require_path
from ..assembly import Assembly
from . import alice, demo, hdf5, lebel, litcoder
from ._download import is_downloaded
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
    """The data set that `source` names.

    Parameters
    ----------
    source : "demo", or a path
        "demo" is the built-in demo: written stories, a small trained language model, and simulated BOLD on
        pycortex's subject S1. A path is one of: a LITcoder assembly (.pkl), a file that `save_assembly` wrote
        (.h5), the folder of OpenNeuro's ds003020, the folder of Brennan et al. (2016).
    subject : str, optional
        Whom to load, where there are several: "UTS03"; for Alice a listener ("s18"), "mean" or "all".
        For a LITcoder assembly, whose it is.
    stories : names, optional
        Keep only these, in the data set's order; for ds003020 also "litcoder" or "authors".
    options
        What the kind of data takes besides, see `load` in its file: ``repeats`` and ``nan`` (`datasets/lebel.py`),
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
        where and what there is.
    TypeError
        A `source` that is no path.
    """
    given = options | {
        name: value for name, value in (("subject", subject), ("stories", stories)) if value is not None
    }
    name = str(source)
    loader, where = (None, None) if name == "demo" else _loader(require_path(source, "load_assembly"))
    if "stories" in given:
        single = isinstance(given["stories"], str)
        if not (single and loader is lebel):  # there a text names a list of stories
            given["stories"] = (given["stories"],) if single else tuple(given["stories"])
    if loader is None:
        return replace(_load_demo(given), source=name, source_options=given)
    known = [p.name for p in signature(loader.load).parameters.values() if p.kind is p.KEYWORD_ONLY]
    _check_options(known, given, name)
    return replace(loader.load(where, **given), source=name, source_options=given)


def convert(source: str | Path, path: str | Path, **options: Any) -> Path:
    """Write the data set that `source` names to one file of this package's own format, in one call.

    `options` as for `load_assembly`; errors as there and in `save_assembly`.
    """
    return save_assembly(load_assembly(source, **options), path)


def _loader(source: Path) -> tuple[ModuleType, Path]:
    """Who reads a path; a ValueError lists what can be read."""
    kinds = (
        f"this version opens 'demo', {', '.join(LOADERS)}; fetch_lebel, or `python -m encoding_nb fetch`, downloads "
        f"ds003020"
    )
    if not source.exists():
        if source.is_symlink():
            raise FileNotFoundError(f"{source}: a link to nowhere; its content was not downloaded.")
        raise ValueError(f"Unknown data set {str(source)!r}: there is no such file or folder; {kinds}.")
    if source.is_file() and not is_downloaded(source):
        raise FileNotFoundError(f"{source}: a git-annex pointer; its content was not downloaded.")
    for loader in LOADERS.values():
        if loader.recognises(source):
            return loader, source
    raise ValueError(f"Unknown data set {str(source)!r}: its kind is not known; {kinds}.")


def _check_options(known: Iterable[str], given: Mapping[str, Any], name: str) -> None:
    unknown = [option for option in given if option not in known]
    if unknown:
        raise ValueError(f"{name}: these data take no {', '.join(unknown)}; they take {', '.join(known)}.")


def _load_demo(given: Mapping[str, Any]) -> Assembly:
    _check_options(("stories",), given, "demo")
    assembly = demo.load()
    return _only(assembly, given["stories"]) if "stories" in given else assembly


def _only(assembly: Assembly, names: Iterable[str]) -> Assembly:
    unknown = [name for name in names if name not in assembly.stories]
    if unknown:
        raise ValueError(f"No story {', '.join(unknown)} in 'demo'; it has {', '.join(assembly.stories)}.")
    kept = {name: story for name, story in assembly.stories.items() if name in names}
    return replace(assembly, stories=kept, test_stories=tuple(s for s in assembly.test_stories if s in kept))
