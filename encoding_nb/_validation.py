"""Checks of arguments, and the sentences of their errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

Array = np.ndarray
LONGEST_TR = 30.0  # seconds; a larger TR is in milliseconds


def parse_json(text: str | bytes, **options: Any) -> Any:
    """`json.loads`, with a ValueError also for what is nested too deeply, which a damaged or hostile file may be."""
    try:
        return json.loads(text, **options)
    except RecursionError:
        raise ValueError("its JSON is nested too deeply") from None


def frozen_times(values: Sequence[float] | Array, name: str, *, missing: bool = False) -> Array:
    """(n,) seconds, read-only; NaN, and masked values as NaN, where `missing` admits it.

    Raises a ValueError that starts with `name`.
    """
    try:
        if np.ma.is_masked(values):  # numpy would take what is behind the mask
            values = np.ma.asarray(values, dtype=float).filled(np.nan)
        times = np.array(values, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected times in seconds, got {_first_without_number(values)}.") from None
    if times.ndim != 1:
        raise ValueError(
            f"{name}: expected one time in seconds per entry, got an array of shape {times.shape}."
        )
    wrong = np.isinf(times) if missing else ~np.isfinite(times)
    if wrong.any():
        raise ValueError(f"{name}: {int(wrong.sum())} of {times.size} times are not finite.")
    times.setflags(write=False)
    return times


def _first_without_number(values: Any) -> str:
    """The first of the values that is not a number, for a message."""
    if isinstance(values, str) or not np.iterable(values):
        return repr(values)[:40]
    for i, value in enumerate(values):
        try:
            float(value)
        except (TypeError, ValueError):
            return f"{repr(value)[:40]} (number {i})"
    return f"a {type(values).__name__} that numpy cannot convert"


def frozen_mapping(values: Any, what: str) -> Mapping[str, Any]:
    """A read-only copy of a mapping. Raises a ValueError that starts with `what`."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{what}, got {repr(values)[:40]}.")
    return MappingProxyType(dict(values))


def check_rows(values: Any, what: str, axes: str) -> None:
    """Refuse BOLD or repeats that are not an array of these axes, are empty, or are masked (ValueError)."""
    shape = getattr(values, "shape", None)
    if shape is None:
        raise ValueError(
            f"{what} as an array of {axes}, got a {type(values).__name__}; convert it with np.asarray."
        )
    if len(shape) != axes.count(",") + 1:
        raise ValueError(f"{what} as {axes}, got shape {tuple(shape)}.")
    if 0 in shape:
        raise ValueError(f"{what} with values, got an empty array of shape {tuple(shape)}.")
    if np.ma.is_masked(values):
        raise ValueError(
            f"{what} without masked values, got a masked array with {np.ma.count_masked(values)} of {values.size} "
            f"masked; leave out those voxels, or fill in numbers with .filled()."
        )


def read_only(values: Any) -> Any:
    """A read-only view of an array in memory or of a memory map; anything else unchanged."""
    if type(values) not in (np.ndarray, np.memmap):
        return values
    view = values.view()
    view.setflags(write=False)
    return view


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """Names as a tuple. Raises a ValueError that starts with `what`, also for a single string."""
    if isinstance(values, str) or not np.iterable(values):
        hint = f"; write [{values!r}]" if isinstance(values, str) else ""
        raise ValueError(f"{what} as a list of names, got {repr(values)[:40]}{hint}.")
    return tuple(values)


def mask_of(values: Any, name: str, n_voxels: int) -> Array:
    """(n_voxels,) bool: a region's mask, from True and False or 1 and 0 (else ValueError)."""
    mask = np.asarray(values)
    flags = mask.dtype == bool or np.isin(mask, (0, 1)).all()
    if mask.shape != (n_voxels,) or not flags:
        got = f"shape {mask.shape}" if flags else f"shape {mask.shape} with other values"
        raise ValueError(
            f"ROI {name}: expected a mask of {n_voxels} voxels, True or False for each, got {got}; from voxel numbers, "
            f"make one with np.isin(np.arange({n_voxels}), voxels)."
        )
    return mask.astype(bool, copy=False)


def check_tr(tr: Any, who: str) -> None:
    """Refuse a TR that is not a number of seconds; `who` starts the message.

    Raises
    ------
    ValueError
    """
    if isinstance(tr, bool) or not isinstance(tr, Real) or not 0 < float(tr) < np.inf:
        raise ValueError(f"{who}: expected a TR above 0 s, got {tr!r}.")
    if float(tr) > LONGEST_TR:
        raise ValueError(
            f"{who}: expected a TR in seconds, got {tr:g}. If that is in milliseconds, pass tr={tr / 1000:g}."
        )


def as_path(value: Any, caller: str) -> Path:
    """An argument of the function `caller` as a path; ~ is the user's home folder.

    Raises
    ------
    TypeError, ValueError
        Not a path; an empty one.
    """
    if not isinstance(value, str | PathLike):
        raise TypeError(f"{caller}: expected a path, got {value!r}.")
    if value == "":
        raise ValueError(f"{caller}: expected a path, got an empty string.")
    return Path(value).expanduser()


def check_file(path: Path) -> Path:
    """The path, if it is a file that exists.

    Raises
    ------
    FileNotFoundError
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; pass the path of a file.")
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; check the path.")
    return path


def check_result(value: Any, caller: str) -> None:
    """Refuse anything without scores, such as an Assembly; `caller` is the function that was called.

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


def check_known(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    """Refuse the first name in `given` that is not known; the ValueError lists the known names."""
    known = tuple(known)
    for name in given:
        if name not in known:
            raise ValueError(f"{where}: unknown key {name!r}; the known keys are {', '.join(known)}.")


def as_mapping(given: Any, where: str, example: str) -> dict[str, Any]:
    """A mapping as a dict; else a TypeError with an example."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{where}: expected names with values, such as {example}, got {given!r}.")
    return dict(given)


def as_whole(value: Any, where: str) -> int:
    """A whole number as int; a TypeError for anything else, including strings of digits."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    raise TypeError(f"{where}: expected a whole number, got {value!r}.")


def check_whole(value: Any, name: str, *, least: int) -> int:
    """A whole number of `least` or more as int; a ValueError for anything else."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, (bool, np.bool_)) or value < least:
        raise ValueError(f"{name} must be a whole number of {least} or more, got {value!r}.")
    return int(value)


def check_choice(value: Any, name: str, choices: Iterable[str]) -> str:
    """A value that is one of the choices; a ValueError for anything else."""
    choices = tuple(choices)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}.")
    return value


def check_flags(
    values: Any,
    name: str = "significant",
    advice: str = "pass a run's result.significant, or fdr(pvalues)[0]",
) -> Array:
    """A mask as booleans, from True and False or from 0 and 1; a ValueError for others, such as p-values."""
    flags = np.asarray(values)
    if flags.dtype != bool and not (flags.dtype.kind in "iu" and np.isin(flags, (0, 1)).all()):
        raise ValueError(
            f"{name} must be flags, True or False for each voxel, got {flags.dtype} such as "
            f"{flags.ravel()[:3].tolist()}: {advice}."
        )
    return flags.astype(bool)
