"""Names and values that are refused when they cannot be: shared by the objects here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


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
