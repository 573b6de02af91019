"""What a fit needs of a data set: words with times, BOLD, and the surface it is drawn on.

Frozen dataclasses, checked once when they are made; everything after them may rely on their shapes.
Times are seconds from the start of the story's sound.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

Array = np.ndarray


class ArrayLike(Protocol):
    """An array, or something that reads like one: a memory map, an HDF5 data set, a simulation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    def __getitem__(self, key: Any) -> Array: ...


def _frozen_times(values: Sequence[float] | Array, name: str) -> Array:
    times = np.array(values, dtype=float)
    if times.ndim != 1:
        raise ValueError(
            f"{name}: expected one time in seconds per entry, got an array of shape {times.shape}."
        )
    if not np.isfinite(times).all():
        raise ValueError(f"{name}: {int((~np.isfinite(times)).sum())} of {times.size} times are not finite.")
    times.setflags(write=False)
    return times


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a story in the order they are spoken.

    Attributes
    ----------
    text : tuple of str, (n_words,)
    onsets, offsets : arrays, (n_words,), seconds from the start of the sound

    Raises
    ------
    ValueError
        Words that are no texts, lengths that differ, times that are not finite, an offset before its onset, or
        onsets that run backwards; the message names the first word it holds for.
    """

    text: tuple[str, ...]
    onsets: Array
    offsets: Array

    def __post_init__(self) -> None:
        if isinstance(self.text, str):
            raise ValueError(f"Words: expected a sequence of texts, got one text, {self.text[:40]!r}.")
        object.__setattr__(self, "text", tuple(self.text))
        for number, word in enumerate(self.text):
            if not isinstance(word, str):
                raise ValueError(
                    f"Words: expected texts, but word {number} is {word!r}, a {type(word).__name__}; leave out rows "
                    f"without a word, with their times."
                )
        for i, word in enumerate(self.text):
            if not isinstance(word, str):
                raise ValueError(
                    f"Words: expected texts, got {word!r} for word {i}; write '' where there is none."
                )
        for name in ("onsets", "offsets"):
            object.__setattr__(self, name, _frozen_times(getattr(self, name), f"Words.{name}"))
        n_words, n_on, n_off = len(self.text), len(self.onsets), len(self.offsets)
        if not n_words == n_on == n_off:
            raise ValueError(
                f"Words: expected as many onsets and offsets as words, got {n_words} words, {n_on} onsets and "
                f"{n_off} offsets; check that all three come from the same tier."
            )
        self._refuse_first(self.offsets < self.onsets, "ends before it starts")
        self._refuse_first(np.diff(self.onsets, prepend=-np.inf) < 0, "starts before the word in front of it")

    def _refuse_first(self, wrong: Array, what: str) -> None:
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"Words: word {i} ({self.text[i]!r}, {self.onsets[i]:.3f} to {self.offsets[i]:.3f} s) {what}; "
                f"sort the words by time or mend the transcript there."
            )

    @property
    def times(self) -> Array:
        """(n_words,) seconds: the middle of each word."""
        return (self.onsets + self.offsets) / 2

    def __len__(self) -> int:
        return len(self.text)


@dataclass(frozen=True, eq=False)
class Story:
    """One stimulus with the responses to it.

    Attributes
    ----------
    name : str
    words : Words
    tr_times : array, (n_trs,), seconds
        The grid on which features are sampled, before trimming.
    bold : array-like, (n_rows, n_voxels)
        Responses; `n_rows` may be less than `n_trs`, where the data come trimmed (`Trimming`).
        Any scale: they are z-scored per story. May be lazy.
    repeats : array-like, (n_repeats, n_rows, n_voxels), optional
        The single presentations whose mean is `bold`, where the story was heard more than once.
    contexts : mapping of context type to (n_words,) texts, optional
        Windows that came with the data; used only when asked for.
    extras : mapping of name to value
        What else came with the story and no stage needs, under its name in the data: a LITcoder assembly's
        word rates, TR boundaries, temporal baseline, audio path and mask indices. Arrays, numbers and texts.
    """

    name: str
    words: Words
    tr_times: Array
    bold: ArrayLike
    repeats: ArrayLike | None = None
    contexts: Mapping[str, tuple[str, ...]] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "extras", MappingProxyType(dict(self.extras)))
        object.__setattr__(self, "tr_times", _frozen_times(self.tr_times, f"{self.name}: tr_times"))
        if len(self.words) == 0:
            raise ValueError(
                f"{self.name}: the story has no words; check its transcript, or leave the story out."
            )
        if np.any(np.diff(self.tr_times) <= 0):
            i = int(np.argmax(np.diff(self.tr_times) <= 0)) + 1
            raise ValueError(f"{self.name}: tr_times must increase, but TR {i} is not after TR {i - 1}.")
        if len(self.bold.shape) != 2:
            raise ValueError(
                f"{self.name}: expected BOLD as (rows, voxels), got shape {tuple(self.bold.shape)}."
            )
        for context_type, windows in (self.contexts or {}).items():
            if len(windows) != len(self.words):
                raise ValueError(
                    f"{self.name}: expected a stored {context_type} window for each of {len(self.words)} words, got "
                    f"{len(windows)}."
                )
        if self.repeats is not None and tuple(self.repeats.shape[1:]) != tuple(self.bold.shape):
            raise ValueError(
                f"{self.name}: expected repeats as (repeats, {self.bold.shape[0]}, {self.bold.shape[1]}) to match "
                f"its BOLD, got {tuple(self.repeats.shape)}."
            )

    @property
    def n_trs(self) -> int:
        """TRs of the feature grid."""
        return len(self.tr_times)

    @property
    def n_rows(self) -> int:
        """Rows of BOLD."""
        return int(self.bold.shape[0])


@dataclass(frozen=True)
class Surface:
    """The cortical surface that voxels are drawn on, by pycortex's names.

    Attributes
    ----------
    subject, transform, mask : str
    store : str, optional
        The folder that holds the subject, such as a data set's `derivative/pycortex-db`; None means
        pycortex's own store.
    """

    subject: str
    transform: str
    mask: str
    store: str | None = None


@dataclass(frozen=True, eq=False)
class Assembly:
    """All stories of one subject.

    Attributes
    ----------
    subject : str
    tr : float, seconds
    stories : mapping of name to Story, in order
    test_stories : tuple of str
        Held out by default.
    surface : Surface, optional
    rois : mapping of name to boolean array, (n_voxels,)
    voxel_names : tuple of str, (n_voxels,), optional
        For data by region instead of by voxel: the name of each column of the BOLD.
    truth : mapping, optional
        For simulated data: what was put in. `None` for measured data.
    source : str, optional
        What `load_assembly` was given, so that code can be written that loads the same data.
    source_options : mapping
        The keyword arguments that `load_assembly` was given with it, for the same purpose.
    """

    subject: str
    tr: float
    stories: Mapping[str, Story]
    test_stories: tuple[str, ...] = ()
    surface: Surface | None = None
    rois: Mapping[str, Array] = field(default_factory=dict)
    voxel_names: tuple[str, ...] | None = None
    truth: Mapping[str, Any] | None = None
    source: str | None = None
    source_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stories", MappingProxyType(dict(self.stories)))
        object.__setattr__(self, "rois", MappingProxyType(dict(self.rois)))
        object.__setattr__(self, "source_options", MappingProxyType(dict(self.source_options)))
        object.__setattr__(self, "test_stories", tuple(self.test_stories))
        if not self.stories:
            raise ValueError(f"Assembly of {self.subject}: expected at least one story, got none.")
        if not self.tr > 0:
            raise ValueError(f"Assembly of {self.subject}: expected a TR above 0 s, got {self.tr}.")
        for name in self.test_stories:
            if name not in self.stories:
                raise ValueError(f"Test story {name!r} is not among the stories: {', '.join(self.stories)}.")
        first = next(iter(self.stories.values()))
        for story in self.stories.values():
            if story.bold.shape[1] != first.bold.shape[1]:
                raise ValueError(
                    f"{story.name} has {story.bold.shape[1]} voxels but {first.name} has {first.bold.shape[1]}; "
                    f"all stories of a subject must come from the same mask."
                )
        if self.voxel_names is not None:
            object.__setattr__(self, "voxel_names", tuple(self.voxel_names))
            if len(self.voxel_names) != self.n_voxels:
                raise ValueError(
                    f"Assembly of {self.subject}: expected a name for each of {self.n_voxels} columns of BOLD, got "
                    f"{len(self.voxel_names)}."
                )
        for name, mask in self.rois.items():
            if mask.shape != (self.n_voxels,):
                raise ValueError(
                    f"ROI {name}: expected a mask of {self.n_voxels} voxels, got shape {mask.shape}."
                )

    @classmethod
    def from_arrays(
        cls,
        stories: Mapping[str, Mapping[str, Any]],
        *,
        subject: str,
        tr: float,
        test_stories: Sequence[str] = (),
        first_tr: float = 0.0,
        **fields: Any,
    ) -> Assembly:
        """An assembly of words, times and BOLD that are in memory, checked like any other.

        Parameters
        ----------
        stories : mapping of name to mapping
            For each story: ``words``, a `Words` (from `read_textgrid`, `read_word_table`) or a sequence of
            (n_words,) texts with ``onsets`` and, where known, ``offsets``, seconds from the start of the sound;
            ``bold``, (n_rows, n_voxels); and where there are any ``tr_times``, ``repeats``, ``contexts``,
            ``extras`` (see `Story`).
        tr : float, seconds
        test_stories : names
        first_tr : float, seconds
            When the first row of BOLD was taken, for stories without ``tr_times``: row i is at
            ``first_tr + tr * i``.
        fields : ``surface``, ``rois``, ``voxel_names``, ``truth``: see `Assembly`

        Raises
        ------
        ValueError
            What does not fit, naming the story: a part that is missing or unknown, lengths that differ, times
            out of order, BOLD that is not numbers, words that are all blank or that a table wrote for a missing one.

        Warns
        -----
        UserWarning
            Words past the end of the run; words "nan" or "None", which a table may write where there is none.
        """
        from . import from_arrays  # stands on this module

        from_arrays.refuse_parts(
            subject, stories, tr=tr, test_stories=test_stories, first_tr=first_tr, fields=fields
        )
        made = {
            name: from_arrays.story_from_arrays(name, parts, tr, first_tr) for name, parts in stories.items()
        }
        return cls(subject=subject, tr=tr, stories=made, test_stories=tuple(test_stories), **fields)

    @property
    def n_voxels(self) -> int:
        """Voxels of the mask."""
        return int(next(iter(self.stories.values())).bold.shape[1])

    @property
    def simulated(self) -> bool:
        """Whether the BOLD was made by a computer; said wherever the data appear."""
        return self.truth is not None

    def __len__(self) -> int:
        return len(self.stories)

    def __repr__(self) -> str:
        kind = "simulated BOLD" if self.simulated else "BOLD"
        return (
            f"Assembly({self.subject}: {len(self)} stories, {kind} of {self.n_voxels} voxels, TR {self.tr:g} s, "
            f"test: {', '.join(self.test_stories) or 'none'})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{escape(story.name)}</td><td>{len(story.words)}</td><td>{story.n_trs}</td>"
            f"<td>{story.n_rows}</td><td>{'test' if story.name in self.test_stories else 'training'}</td>"
            f"<td>{story.repeats.shape[0] if story.repeats is not None else 1}</td></tr>"
            for story in self.stories.values()
        )
        head = "".join(f"<th>{h}</th>" for h in ("story", "words", "TRs", "BOLD rows", "used for", "heard"))
        return (
            f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


def check_words_in_run(story: Story, tr: float, *, where: str) -> None:
    """Warn once of words that start after the story's last TR has ended; refuse when most of them do.

    Parameters
    ----------
    tr : seconds
    where : file or story, for the message
    """
    end = float(story.tr_times[-1]) + tr if story.n_trs else 0.0
    late = story.words.onsets >= end
    if not late.any():
        return
    first = int(late.argmax())
    problem = (
        f"{where}: {int(late.sum())} of {len(late)} words start past the end of the run of story {story.name} at "
        f"{end:.1f} s, first {story.words.text[first]!r} at {story.words.onsets[first]:.1f} s"
    )
    if late.mean() > 0.5:
        raise ValueError(
            f"{problem}; check that times are in seconds and that the transcript is this story's."
        )
    warnings.warn(f"{problem}; no TR samples them.", stacklevel=3)


def require_assembly(value: Any, caller: str) -> None:
    """Refuse what is not an Assembly, such as the path of one, where `caller` is the function that was called.

    Raises
    ------
    TypeError
    """
    if not isinstance(value, Assembly):
        shown = repr(value) if isinstance(value, str | PathLike) else f"a {type(value).__name__}"
        hint = (
            f"write {caller}(load_assembly({value!r}), ...)"
            if isinstance(value, str | PathLike)
            else ("load_assembly(source) or Assembly.from_arrays(...) makes one")
        )
        raise TypeError(f"{caller}: expected an Assembly, got {shown}; {hint}.")
