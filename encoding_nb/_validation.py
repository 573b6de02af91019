"""Checks of single values, each with one sentence for what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

Array = np.ndarray
LONGEST_TR = 30.0  # seconds; what is above was given in milliseconds


def frozen_times(values: Sequence[float] | Array, name: str) -> Array:
    """(n,) seconds, read-only; `name` begins the message of a ValueError for what is none."""
    try:
        times = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name}: expected times in seconds, got {_first_of_another_kind(values)}."
        ) from None
    if times.ndim != 1:
        raise ValueError(
            f"{name}: expected one time in seconds per entry, got an array of shape {times.shape}."
        )
    if not np.isfinite(times).all():
        raise ValueError(f"{name}: {int((~np.isfinite(times)).sum())} of {times.size} times are not finite.")
    times.setflags(write=False)
    return times


def _first_of_another_kind(values: Any) -> str:
    """What is no number among values that numpy makes no numbers of."""
    if isinstance(values, str) or not np.iterable(values):
        return repr(values)[:40]
    for i, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"{repr(value)[:40]} (number {i})"
    return f"a {type(values).__name__} of something else"


def frozen_mapping(values: Any, what: str) -> Mapping[str, Any]:
    """A copy that cannot be written to; `what` begins the message of a ValueError for what is no mapping."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{what}, got {repr(values)[:40]}.")
    return MappingProxyType(dict(values))


def refuse_no_rows(values: Any, what: str, axes: str) -> None:
    """A ValueError for BOLD or repeats that are no array of these axes, hide values, or hold none."""
    shape = getattr(values, "shape", None)
    if shape is None:
        raise ValueError(
            f"{what} as an array of {axes}, got a {type(values).__name__}; make one with np.asarray."
        )
    if len(shape) != axes.count(",") + 1:
        raise ValueError(f"{what} as {axes}, got shape {tuple(shape)}.")
    if 0 in shape:
        raise ValueError(f"{what} with values, got shape {tuple(shape)}, which holds none.")
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} with a number everywhere, got a masked array that hides {np.ma.count_masked(values)} of "
            f"{values.size} values; leave out those voxels, or put numbers there with its .filled()."
        )


def read_only(values: Any) -> Any:
    """A read-only view of an array in memory or of a memory map; anything else as it is."""
    if type(values) not in (np.ndarray, np.memmap):
        return values
    view = values.view()
    view.setflags(write=False)
    return view


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """Names as a tuple; `what` begins the message of a ValueError for a single text, or for what is no list."""
    if isinstance(values, str) or not np.iterable(values):
        hint = f"; write [{values!r}]" if isinstance(values, str) else ""
        raise ValueError(f"{what} as a list of names, got {repr(values)[:40]}{hint}.")
    return tuple(values)


def mask_of(values: Any, name: str, n_voxels: int) -> Array:
    """(n_voxels,) bool: a region's mask from flags, or from 0 and 1; a ValueError for others."""
    mask = np.asarray(values)
    flags = mask.dtype == bool or np.isin(mask, (0, 1)).all()
    if mask.shape != (n_voxels,) or not flags:
        got = f"shape {mask.shape}" if flags else f"shape {mask.shape} with other values"
        raise ValueError(
            f"ROI {name}: expected a mask of {n_voxels} voxels, True or False for each, got {got}; of a list of voxels "
            f"np.isin(np.arange({n_voxels}), voxels) makes one."
        )
    return mask.astype(bool, copy=False)


def check_tr(tr: Any, who: str) -> None:
    """Refuse a TR that cannot be seconds; `who` begins the message.

    Raises
    ------
    ValueError
    """
    if isinstance(tr, bool) or not isinstance(tr, Real) or not 0 < tr < np.inf:
        raise ValueError(f"{who}: expected a TR above 0 s, got {tr!r}.")
    if tr > LONGEST_TR:
        raise ValueError(
            f"{who}: expected a TR in seconds, got {tr:g}, which is above {LONGEST_TR:g}; of milliseconds, give "
            f"{tr / 1000:g}."
        )


def require_path(value: Any, caller: str) -> Path:
    """A path from what a function `caller` was given as one; ~ is the user's own folder.

    Raises
    ------
    TypeError, ValueError
        No path; an empty one.
    """
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{caller}: expected a path as a text, got {value!r}.")
    if value == "":
        raise ValueError(f"{caller}: expected a path, got an empty text.")
    return Path(value).expanduser()


def require_file(path: Path) -> Path:
    """The path of a file that is there.

    Raises
    ------
    FileNotFoundError
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give the path of a file.")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; check the path.")
    return path


def require_result(value: Any, caller: str) -> None:
    """Refuse what holds no scores, such as an Assembly or a partition; `caller` is the function that was called.

    Raises
    ------
    TypeError
    """
    if not hasattr(value, "scores"):
        raise TypeError(
            f"{caller}: expected a Result, got {describe(value)}; run(assembly, settings) returns one, and "
            f"load_run(folder) loads a saved one."
        )


def describe(value: Any) -> str:
    """What was given, for a message: the value where it is short, else its type."""
    if isinstance(value, (str, PathLike, int, float, type(None))):
        return repr(value)
    kind = type(value).__name__
    return f"an {kind}" if kind[0] in "AEIOUaeiou" else f"a {kind}"


def shorten(text: str, most: int = 80) -> str:
    """A text cut to `most` characters, so that a message can quote it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def error_text(error: BaseException) -> str:
    """An exception's type and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {shorten(lines[0], 160)}" if lines else type(error).__name__


def refuse_unknown(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """A ValueError for the first name in `given` that is not among the known ones, which it lists."""
    known = tuple(known)
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown key {name!r}; known are {', '.join(known)}.")


def as_mapping(given: Any, where: str, example: str) -> dict[str, Any]:
    """A dict of what was given; a TypeError, with an example, for what is no mapping."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}: expected names with values, such as {example}, got {given!r}.")
    return dict(given)


def as_whole(value: Any, where: str) -> int:
    """A whole number as int; a TypeError for anything else, texts of digits among them."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    raise TypeError(f"{where}: expected a whole number, got {value!r}.")


def as_flag(value: Any, where: str) -> bool:
    """True or False; a TypeError for anything else."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TypeError(f"{where}: expected True or False, got {value!r}.")
