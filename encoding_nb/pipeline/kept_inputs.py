"""What one run leaves for the next on the same data: responses, the last design, and what follows from it.

Whoever moves the layer's slider fits the same responses again and again, and looks for a second at what stands
there before pressing Fit: a second in which the next design can be made ready. What is kept is taken only where
the values it was made of are the same, looked at each time, so a run gives what it would give without it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _progress
from .._machine import free_memory
from ..assembly import Array, Assembly, Story, fingerprint
from ..settings import Settings
from . import matrices

# Responses stay in memory between runs up to this size, designs and what follows from them up to that, and each up
# to this share of what is free.
RESPONSE_BYTES = 500_000_000
DESIGN_BYTES = 1_000_000_000
KEPT_SHARE = 0.1
# Bytes a value of X: itself, in float64, and in the eigenbasis of X'X.
DESIGN_VALUE_BYTES = 20
# Designs up to this many values are made ready beforehand: a second's work, which nobody may want.
PREPARED_VALUES = 4_000_000


@dataclass(frozen=True)
class _Made:
    """A value, what it was made of, and what was noticed in making it."""

    of: Any
    value: Any
    notes: list[str]


class KeptInputs(matrices.Inputs):
    """Inputs of runs that follow each other, in one thread at a time; `prepare` may be called in another.

    Given to `pipeline.run_steps`; `preparing.prepare_steps` are the steps to prepare with.
    """

    def __init__(self) -> None:
        self._made: dict[str, _Made] = {}
        self._derived: tuple[Array, dict[str, Any]] | None = None
        self._idle = threading.Condition()
        self._preparing: tuple[int, Settings] | None = None  # by which thread, for what
        self._unwanted = False

    def stack_features(
        self, assembly: Assembly, names: Sequence[str], sampled: Mapping[str, Array], settings: Settings
    ) -> Array:
        """X; the last one where its stories' features, delays and trimming are the same."""
        self._wait_for(settings)
        stories = tuple(assembly.stories[name] for name in names)
        how = (stories, settings.fir_delays, settings.trimming)
        values = [sampled[name] for name in names]

        def make() -> Array:
            self._derived = None  # freed before the next is made
            X = matrices.stack_features(assembly, names, sampled, settings)
            if DESIGN_VALUE_BYTES * X.size <= min(DESIGN_BYTES, KEPT_SHARE * free_memory()):
                self._derived = (X, {})
            return X

        X = self._once(
            "X",
            (how, values),
            make,
            same=lambda known: known[0] == how and all(map(np.array_equal, known[1], values)),
        )
        if self._derived is None:
            self._made.pop("X", None)
        return X

    def stack_responses(self, assembly: Assembly, names: Sequence[str], settings: Settings) -> Any:
        """Y; the last one where its stories' BOLD and the kept rows are the same."""
        self._wait_for(settings)
        stories = tuple(assembly.stories[name] for name in names)
        marks = _fingerprints(stories)
        if marks is None:
            self._made.pop("Y", None)
            return matrices.stack_responses(assembly, names, settings)
        of = (stories, marks, settings.trimming.slices(test=False)[1])
        return self._once("Y", of, lambda: matrices.stack_responses(assembly, names, settings))

    def derived(self, X: Array) -> dict[str, Any] | None:
        """What follows from this X, kept as long as X is; None where neither is."""
        known = self._derived
        return known[1] if known is not None and known[0] is X else None

    def prepare(self, settings: Settings, steps: Generator[Any, None, Any]) -> bool:
        """Drain `steps`, which make parts of these inputs for a run with `settings`.

        They are closed as soon as a run wants others. Returns whether they came to their end.
        """
        with self._idle:
            self._unwanted = True
            self._idle.wait_for(lambda: self._preparing is None)
            self._preparing, self._unwanted = (threading.get_ident(), settings), False
        try:
            return all(not self._unwanted for _ in steps)
        finally:
            steps.close()
            with self._idle:
                self._preparing = None
                self._idle.notify_all()

    def leave(self, settings: Settings | None) -> None:
        """Stop what is being prepared, at its next step, unless it is for these settings; does not wait."""
        with self._idle:
            self._unwanted = self._preparing is not None and self._preparing[1] != settings

    def forget(self) -> bool:
        """Keep nothing that runs have left, and end what is being prepared; False where there was nothing."""
        had = bool(self._made)
        with self._idle:
            if self._preparing is not None and self._preparing[0] != threading.get_ident():
                had = self._unwanted = True
                self._idle.wait_for(lambda: self._preparing is None)
        self._made.clear()
        self._derived = None
        return had

    def _wait_for(self, settings: Settings) -> None:
        """Wait until nothing is being prepared: to its end where it is for these settings, else to its next step."""
        with self._idle:
            if self._preparing is None or self._preparing[0] == threading.get_ident():
                return
            self._unwanted = self._preparing[1] != settings
            self._idle.wait_for(lambda: self._preparing is None)

    def _once(
        self,
        name: str,
        of: Any,
        make: Callable[[], Any],
        same: Callable[[Any], bool] | None = None,
    ) -> Any:
        """What `make` gives, or gave when it was last made of the same; its notes are said again."""
        known = self._made.get(name)
        if known is not None and (same(known.of) if same is not None else known.of == of):
            for sentence in known.notes:
                _progress.warn(sentence)
            return known.value
        self._made.pop(name, None)  # freed before the next is made
        del known
        heard: list[str] = []
        with _progress.listening(heard):
            value = make()
        for sentence in heard:
            _progress.hear(sentence)
        self._made[name] = _Made(of, value, heard)
        return value


def _fingerprints(stories: Sequence[Story]) -> list[Any] | None:
    """What tells these stories' BOLD from any other; None where it is not kept: not in memory, or large."""
    arrays = [story.bold for story in stories]
    if any(type(array) is not np.ndarray for array in arrays):
        return None
    if sum(4 * array.size for array in arrays) > min(RESPONSE_BYTES, KEPT_SHARE * free_memory()):
        return None
    return [fingerprint(array) for array in arrays]


def worth_preparing(n_rows: int, n_columns: int) -> bool:
    """Whether a design of this shape is made ready in about a second."""
    return n_rows * n_columns <= PREPARED_VALUES
