"""The kernel's list of what panels work on, by which a cell that is run again finds its run."""

from __future__ import annotations

from typing import Any

from ..assembly import Assembly
from .runs import Runs

_KNOWN: dict[str, Runs] = {}
_CALLS: dict[str, int] = {}


def runs_named(name: str | None, assembly: Assembly, memory: Any) -> Runs:
    """The runs of the panel of that name, with their run in progress; new ones for a new name or other data.

    A run in progress on other data is cancelled, since its panel is about to be replaced.
    """
    key = name or _place_of_call()
    known = _KNOWN.get(key) if key else None
    if known is not None and known.given is not None and same_data(known.given, assembly):
        known.memory = memory if memory is not None else known.memory
        return known
    if known is not None:
        known.cancel()
    runs = Runs(assembly, memory, given=assembly)
    if key:
        _KNOWN[key] = runs
    return runs


def same_data(one: Assembly, other: Assembly) -> bool:
    """Whether two assemblies are the same data, as when a cell that loads them is run again."""
    if one is other:
        return True
    if one.source is None or one.source != other.source:
        return False
    return dict(one.source_options) == dict(other.source_options) and tuple(one.stories) == tuple(
        other.stories
    )


def _place_of_call() -> str | None:
    """The notebook cell that runs, and how many panels it has made so far; None outside such a cell."""
    try:
        from IPython import get_ipython

        parent = get_ipython().kernel.get_parent("shell")
        cell, message = parent["metadata"]["cellId"], parent["header"]["msg_id"]
    except (ImportError, AttributeError, KeyError, TypeError):
        return None
    number = _CALLS[message] = _CALLS.get(message, 0) + 1
    return f"cell {cell}, panel {number}"
