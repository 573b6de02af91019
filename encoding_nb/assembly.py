"""A subject's data: words with their times, BOLD story by story, and the surface it lies on.

`Assembly` holds stories by name. A story's BOLD is an array, or anything that is read when it is indexed
(`LazyArray`, an HDF5 data set). `assembly_digest` tells whether two runs used the same data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from numbers import Real
from os import PathLike
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np

from . import _progress
from ._files import digest
from ._validation import (
    check_rows,
    check_tr,
    describe,
    frozen_mapping,
    frozen_times,
    mask_of,
    names_of,
    read_only,
)


class LazyArray:
    """An array that is read from its file whenever it is indexed, and not kept.

    Whole numbers and slices that run forwards are passed on to the file, so that `bold[40:]` reads no other
    rows; any other index reads the whole array first.

    Attributes
    ----------
    shape : lengths of the axes
    dtype : what reading gives
    """

    def __init__(
        self, shape: Sequence[int], dtype: Any, read: Callable[[tuple[int | slice, ...]], Array]
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._read = read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        key = key if isinstance(key, tuple) else (key,)
        if len(key) <= self.ndim and all(map(_reads_plainly, key)):
            for axis, index in enumerate(key):
                if not isinstance(index, slice) and not -self.shape[axis] <= index < self.shape[axis]:
                    raise IndexError(
                        f"index {index} is out of bounds for axis {axis} with {self.shape[axis]} entries"
                    )
            return self._read(key)
        return self._read((slice(None),) * self.ndim)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype})"


def _reads_plainly(index: Any) -> bool:
    if isinstance(index, slice):
        return index.step is None or index.step > 0
    return isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_))


Array = np.ndarray
RESTART_SECONDS = 10.0  # onsets that fall back at least from here to near the first are those of another run
CUT_SECONDS = 20.0  # words this long before the first TR are expected: the first rows of a run are often cut


class ArrayLike(Protocol):
    """An array, or something that reads like one: a memory map, an HDF5 data set, a simulation."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        ...

    def __getitem__(self, key: Any) -> Array: ...


@dataclass(frozen=True, eq=False)
class Words:
    """The words of a story in the order they are spoken.

    Attributes
    ----------
    text : tuple of str, (n_words,)
    onsets, offsets : arrays, (n_words,), seconds on the clock of the story's TR times
        Both NaN for a word without a time, such as one that an aligner did not find: a language model reads it, but no
        TR samples it.

    Raises
    ------
    ValueError
        Words that are not strings, lengths that differ, times that are infinite, an onset without an offset, an offset
        before its onset, or onsets that run backwards; the message names the first such word. No word with a time.
    """

    text: tuple[str, ...]
    onsets: Array
    offsets: Array

    def __post_init__(self) -> None:
        if isinstance(self.text, str):
            raise ValueError(f"Words: expected a sequence of strings, got one string, {self.text[:40]!r}.")
        object.__setattr__(self, "text", tuple(self.text))
        for number, word in enumerate(self.text):
            if not isinstance(word, str):
                raise ValueError(
                    f"Words: expected strings, but word {number} is {word!r}, a {type(word).__name__}; leave out rows "
                    f"without a word, together with their times."
                )
        for name in ("onsets", "offsets"):
            times = frozen_times(getattr(self, name), f"Words.{name}", missing=True)
            object.__setattr__(self, name, times)
        n_words, n_on, n_off = len(self.text), len(self.onsets), len(self.offsets)
        if not n_words == n_on == n_off:
            raise ValueError(
                f"Words: expected as many onsets and offsets as words, got {n_words} words, {n_on} onsets and "
                f"{n_off} offsets; check that all three come from the same tier."
            )
        self._refuse_first(np.isnan(self.onsets) != np.isnan(self.offsets), "has only one of its two times")
        if n_words and not self.timed.any():
            raise ValueError(f"Words: none of {n_words} words has a time; check where the times are.")
        backwards = self.offsets < self.onsets
        if 2 * backwards.sum() > self.timed.sum():
            advice = "most words do: are the offsets durations, or in another unit? Give ends, in seconds"
            self._refuse_first(backwards, "ends before it starts", advice)
        self._refuse_first(backwards, "ends before it starts")
        self._refuse_backwards()

    def _refuse_first(self, wrong: Array, what: str, advice: str = "correct the transcript there") -> None:
        if wrong.any():
            i = int(wrong.argmax())
            raise ValueError(
                f"Words: word {i} ({self.text[i]!r}, {self.onsets[i]:.3f} to {self.offsets[i]:.3f} s) {what}; {advice}."
            )

    def _refuse_backwards(self) -> None:
        """Refuse onsets that run backwards; far back is another run, where sorting would mix the runs."""
        before = np.fmax.accumulate(np.concatenate([[-np.inf], self.onsets[:-1]]))  # the latest onset so far
        wrong = self.onsets < before
        first = np.nanmin(self.onsets, initial=np.inf)
        with np.errstate(invalid="ignore"):
            again = wrong & (before - first > RESTART_SECONDS) & (self.onsets - first < (before - first) / 2)
        if again.any():
            i = int(again.argmax())
            raise ValueError(
                f"Words: the onsets start again at word {i} ({self.text[i]!r}), at {self.onsets[i]:.3f} s after "
                f"{before[i]:.3f} s: are these the words of several runs? Make one story of each run, from its own "
                f"rows."
            )
        self._refuse_first(
            wrong, "starts before the previous word", "sort the words by time or correct the transcript there"
        )

    @property
    def times(self) -> Array:
        """(n_words,) seconds: the middle of each word; NaN for a word without a time."""
        return (self.onsets + self.offsets) / 2

    @property
    def timed(self) -> Array:
        """(n_words,) bool: which words have a time."""
        return np.isfinite(self.onsets)

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
        Responses, in any scale: they are z-scored per story. `n_rows` is less than `n_trs` where the data are
        already trimmed (`Trimming`). Lazy, or a read-only view of an array in memory.
    repeats : array-like, (n_repeats, n_rows, n_voxels), optional
        The single presentations whose mean is `bold`, for a story that was presented more than once. A single
        presentation is dropped: it has no noise ceiling.
    contexts : mapping of context type to (n_words,) strings, optional
        Context windows that came with the data; used only with `Settings.use_stored_contexts`.
    extras : mapping of name to value
        Other data of the story that no stage needs, under the data set's names: a LITcoder assembly's word rates, TR
        boundaries, temporal baseline, audio path and mask indices. Arrays, numbers and strings.

    Raises
    ------
    ValueError
        Names the story: it has no words, TR times that do not increase, BOLD or repeats that are not an array of
        these axes, are empty or masked, or contexts for another number of words.
    """

    name: str
    words: Words
    tr_times: Array
    bold: ArrayLike
    repeats: ArrayLike | None = None
    contexts: Mapping[str, tuple[str, ...]] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"Story: expected a name as a string, got {self.name!r}.")
        extras = frozen_mapping(self.extras, f"{self.name}: expected extras as {{name: value}}")
        object.__setattr__(self, "extras", extras)
        object.__setattr__(self, "tr_times", frozen_times(self.tr_times, f"{self.name}: tr_times"))
        if len(self.words) == 0:
            raise ValueError(
                f"{self.name}: the story has no words; check its transcript, or leave the story out."
            )
        if np.any(np.diff(self.tr_times) <= 0):
            i = int(np.argmax(np.diff(self.tr_times) <= 0)) + 1
            raise ValueError(f"{self.name}: tr_times must increase, but TR {i} is not after TR {i - 1}.")
        check_rows(self.bold, f"{self.name}: expected BOLD", "(rows, voxels)")
        object.__setattr__(self, "bold", read_only(self.bold))
        self._check_contexts()
        self._check_repeats()

    def _check_contexts(self) -> None:
        if self.contexts is None:
            return
        what = f"{self.name}: expected contexts as {{context type: one string per word}}"
        for context_type, windows in frozen_mapping(self.contexts, what).items():
            if len(windows) != len(self.words):
                raise ValueError(
                    f"{self.name}: expected one stored {context_type} window for each of {len(self.words)} words, got "
                    f"{len(windows)}."
                )

    def _check_repeats(self) -> None:
        if self.repeats is None:
            return
        axes = f"(repeats, {self.bold.shape[0]}, {self.bold.shape[1]})"
        check_rows(self.repeats, f"{self.name}: expected repeats", axes)
        if tuple(self.repeats.shape[1:]) != tuple(self.bold.shape):
            raise ValueError(
                f"{self.name}: expected repeats as {axes} to match its BOLD, got {tuple(self.repeats.shape)}."
            )
        heard_once = self.repeats.shape[0] == 1
        object.__setattr__(self, "repeats", None if heard_once else read_only(self.repeats))

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

    Voxels are listed in pycortex's order, numpy's C order of (z, y, x) of the mask; see `voxel_order` for nilearn's.

    Attributes
    ----------
    subject, transform, mask : str
    store : str, optional
        The folder that holds the subject, such as a data set's `derivative/pycortex-db`; None means
        pycortex's default store.
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
        For data by region instead of by voxel: the name of each column of BOLD.
    truth : mapping, optional
        The ground truth of simulated data; None for measured data.
    source : str, optional
        The argument of `load_assembly` that loads these data, for generated code.
    source_options : mapping
        Its keyword arguments.

    Raises
    ------
    ValueError
        No stories, names that are not strings, a TR that is not a number of seconds or not the spacing of a story's TR
        times, test stories that do not exist or are named twice, numbers of voxels that differ between stories, masks
        or names for another number of voxels, a surface that is not a `Surface`.
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
        who = f"Assembly of {self.subject}"
        if not isinstance(self.subject, str):
            raise ValueError(f"Assembly: expected the subject's name as a string, got {self.subject!r}.")
        stories = frozen_mapping(self.stories, f"{who}: expected stories as {{name: Story}}")
        object.__setattr__(self, "stories", stories)
        object.__setattr__(self, "source_options", MappingProxyType(dict(self.source_options)))
        if not self.stories:
            raise ValueError(f"{who}: expected at least one story, got none.")
        for name in self.stories:
            if not isinstance(name, str):
                raise ValueError(f"{who}: expected names of stories as strings, got {name!r}.")
        check_tr(self.tr, who)
        for story in self.stories.values():
            _refuse_other_spacing(story, self.tr)
        self._check_test_stories(who)
        self._check_voxels()
        self._check_voxel_names(who)
        self._check_rois(who)
        if self.surface is not None and not isinstance(self.surface, Surface):
            raise ValueError(
                f"{who}: expected surface as Surface(subject, transform, mask), got {self.surface!r}."
            )

    def _check_test_stories(self, who: str) -> None:
        names = names_of(self.test_stories, f"{who}: expected test_stories")
        object.__setattr__(self, "test_stories", names)
        for name in names:
            if name not in self.stories:
                raise ValueError(f"Test story {name!r} is not one of the stories: {', '.join(self.stories)}.")
            if names.count(name) > 1:
                raise ValueError(
                    f"{who}: expected each test story once, got {name!r} {names.count(name)} times."
                )

    def _check_voxels(self) -> None:
        first = next(iter(self.stories.values()))
        for story in self.stories.values():
            if story.bold.shape[1] != first.bold.shape[1]:
                raise ValueError(
                    f"{story.name} has {story.bold.shape[1]} voxels but {first.name} has {first.bold.shape[1]}; "
                    f"all stories of a subject must come from the same mask."
                )

    def _check_voxel_names(self, who: str) -> None:
        if self.voxel_names is None:
            return
        object.__setattr__(self, "voxel_names", names_of(self.voxel_names, f"{who}: expected voxel_names"))
        if len(self.voxel_names) != self.n_voxels:
            raise ValueError(
                f"{who}: expected one name for each of {self.n_voxels} columns of BOLD, got {len(self.voxel_names)}."
            )

    def _check_rois(self, who: str) -> None:
        rois = frozen_mapping(self.rois, f"{who}: expected rois as {{name: mask}}")
        masks = {name: mask_of(values, name, self.n_voxels) for name, values in rois.items()}
        object.__setattr__(self, "rois", MappingProxyType(masks))

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
        """An assembly from words, times and BOLD in memory, with the same checks as a file.

        Parameters
        ----------
        stories : mapping of name to mapping
            For each story: ``words``, a `Words` (from `read_textgrid`, `read_word_table`) or a sequence of
            (n_words,) strings with ``onsets`` and, where known, ``offsets``, seconds from the start of the sound;
            ``bold``, (n_rows, n_voxels); and optionally ``tr_times``, ``repeats``, ``contexts``, ``extras`` (see
            `Story`).
        tr : float, seconds
            Must be the spacing of the ``tr_times``, where these are given.
        test_stories : names
        first_tr : float, seconds
            When the first row of BOLD was taken, for stories without ``tr_times``: row i is at
            ``first_tr + tr * i``.
        fields : ``surface``, ``rois``, ``voxel_names``, ``truth``: see `Assembly`. With a surface, the columns of BOLD
            and of masks are in pycortex's order of voxels, numpy's C order of (z, y, x); `voxel_order` converts from
            nilearn's.

        Raises
        ------
        ValueError
            Names the story: a part that is missing or unknown, lengths that differ, times out of order, a TR in
            milliseconds or other than that of the ``tr_times``, words most of which are outside the run, BOLD that is
            not numbers, repeats that are not finite, words that are all blank or all "nan".

        Warns
        -----
        UserWarning
            Words outside the run; words "nan" or "None", which tables write for a missing word.
        """
        check_parts(subject, stories, tr=tr, first_tr=first_tr, fields=fields)
        made = {name: story_from_arrays(name, parts, tr, first_tr) for name, parts in stories.items()}
        return cls(
            subject=subject, tr=tr, stories=made, test_stories=cast("tuple[str, ...]", test_stories), **fields
        )

    @property
    def n_voxels(self) -> int:
        """Voxels of the mask."""
        return int(next(iter(self.stories.values())).bold.shape[1])

    @property
    def simulated(self) -> bool:
        """Whether the BOLD is simulated; shown wherever the data appear."""
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
        head = "".join(
            f"<th>{h}</th>" for h in ("story", "words", "TRs", "BOLD rows", "used for", "presentations")
        )
        return (
            f"<p>{escape(repr(self))}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        )


# ---------------------------------------------------------------------- are the times plausible?

LEAST_WORDS = 20  # fewer words say too little about speech
# of a run: times in TRs of 2 s, or a TR that is twice too long, leave half of it without words
LEAST_COVERED = 0.55
SPEECH_RATES = (0.5, 8.0)  # words a second; fluent speech has 2 to 5
MOST_TWICE = 0.25  # of the words; those of a table whose rows are there twice are half
LONGEST_WORD = 2.0  # seconds, as a median: longer words that overlap the next but one are no words
SURELY_WRONG = 10.0  # seconds, as a median, of words that overlap; also for one word
# seconds of a unit that occurs in public files
UNITS = {
    "milliseconds": 1e-3,
    "microseconds": 1e-6,
    "units of 100 nanoseconds (HTK)": 1e-7,
    "hundredths of a second": 1e-2,
    "minutes": 60.0,
} | {f"samples at {rate} Hz": 1 / rate for rate in (48_000, 44_100, 24_000, 22_050, 16_000, 11_025, 8_000)}


def check_words_in_run(story: Story, tr: float, *, where: str) -> None:
    """Refuse or warn of words whose times cannot be seconds on the clock of the story's TRs.

    Words that end before the story's first TR or start after its last (up to `CUT_SECONDS` before it need no warning);
    words that last until long after the next ones; words in a small part of the run only; a speech rate that is not
    possible; words that are there twice. The message names the likely cause: another unit, ends as durations, another
    TR, voxels by TRs. Words without a time are counted in a warning, as are gaps between TRs.

    Parameters
    ----------
    tr : seconds
    where : file or story, for the message

    Raises
    ------
    ValueError
        Most words are outside the run, or last longer than any word.
    """
    words = story.words
    steps = np.diff(story.tr_times)
    gaps = np.abs(steps - tr) > tr / 2
    if gaps.any():
        i = int(gaps.argmax())
        _progress.warn(
            f"{where}: TR {i + 1} of story {story.name} comes {steps[i]:g} s after TR {i}, but the TR is {tr:g} s; "
            f"there are {int(gaps.sum())} such gaps. Delays count rows of BOLD, so make one story of each part.",
            stacklevel=3,
        )
    untimed = len(words) - int(words.timed.sum())
    if untimed:
        _progress.warn(
            f"{where}: {untimed:,} of {len(words):,} words of story {story.name} have no time: a language model reads "
            f"them as context, but no TR samples them.",
            stacklevel=3,
        )
    _check_lengths(story, tr, where)
    if _check_outside(story, tr, where):
        _check_coverage(story, tr, where)


def _check_outside(story: Story, tr: float, where: str) -> bool:
    """Refuse or warn of words outside the run; whether all are inside, or but for some before the first TR."""
    start, end = (story.tr_times[0], story.tr_times[-1] + tr) if story.n_trs else (0.0, 0.0)
    words = story.words
    early, late = words.offsets < start, words.onsets >= end
    most = (early | late).sum() > 0.5 * words.timed.sum()
    if not most and np.nanmin(words.offsets) >= start - CUT_SECONDS:
        early = np.zeros_like(early)
    problems = []
    for outside, what in (
        (early, f"end before the run of story {story.name} starts at {start:.1f} s"),
        (late, f"start past the end of the run of story {story.name} at {end:.1f} s"),
    ):
        if outside.any():
            first = int(outside.argmax())
            problems.append(
                f"{int(outside.sum())} of {len(words)} words {what}, first {words.text[first]!r} at "
                f"{words.onsets[first]:.1f} s"
            )
    if not problems:
        return True
    problem = f"{where}: {', and '.join(problems)}{_likely(story, tr)}"
    if most:
        raise ValueError(
            f"{problem}; check that the times of words and TRs are in seconds from the start of the same sound, and "
            f"that the transcript belongs to this story."
        )
    _progress.warn(f"{problem}; no TR samples them.", stacklevel=4)
    return False


def _check_lengths(story: Story, tr: float, where: str) -> None:
    """Refuse or warn of words that end long after the next ones begin, and are longer than words are."""
    words = story.words
    onsets, offsets = words.onsets[words.timed], words.offsets[words.timed]
    lengths = offsets - onsets
    typical = float(np.median(lengths))
    most = len(onsets) >= 5 and typical > LONGEST_WORD and bool(np.median(onsets[2:] < offsets[:-2]))
    until = np.append(onsets[1:], max(onsets[-1], story.tr_times[-1] + tr if story.n_trs else 0.0))
    long = (lengths > SURELY_WRONG) & (offsets > until + 1.0)
    if most:
        problem = f"{where}: most words end after the next ones begin; the median word lasts {typical:.4g} s"
        problem += f"; {_cause_of_lengths(onsets, offsets)}."
        if typical > SURELY_WRONG:
            raise ValueError(problem)
        _progress.warn(problem, stacklevel=4)
    elif long.any():
        i = int(np.flatnonzero(words.timed)[long][0])
        _progress.warn(
            f"{where}: {int(long.sum())} of {len(words)} words last longer than {SURELY_WRONG:g} s, until after the "
            f"next ones begin, first {words.text[i]!r} from {words.onsets[i]:.1f} to {words.offsets[i]:.1f} s; correct "
            f"their ends, since the time of a word is its middle.",
            stacklevel=4,
        )


def _cause_of_lengths(onsets: Array, offsets: Array) -> str:
    """The likely cause of words that are too long."""

    def most(lengths: Array, least: float = 0.0) -> bool:
        return bool(np.median((lengths >= least) & (lengths <= LONGEST_WORD)))

    lengths = offsets - onsets
    if most(lengths - onsets):
        return "the lengths look like ends: give them as offsets (the column of ends), not as durations"
    for unit, size in UNITS.items():
        if len(onsets) >= LEAST_WORDS and most(offsets * size - onsets):
            return f"the ends look like {unit}: give seconds"
    for unit, size in UNITS.items():
        if most(lengths * size, 0.05):
            return f"the lengths look like {unit}: give seconds"
    return "give lengths in seconds"


def _check_coverage(story: Story, tr: float, where: str) -> None:
    """Warn of words in a part of the run only, of a speech rate that is not possible, and of words that occur twice."""
    words, run = story.words, story.n_trs * tr
    n_timed, span = int(words.timed.sum()), _span(words)
    if n_timed < LEAST_WORDS or span <= 0:
        return
    rate, problems = n_timed / span, []
    if span < LEAST_COVERED * run:
        problems.append(
            f"words cover only {span / run:.0%} of the run of story {story.name}, {span:.1f} of {run:.1f} s"
        )
    if not SPEECH_RATES[0] <= rate <= SPEECH_RATES[1]:
        problems.append(f"there are {rate:.2g} words a second in story {story.name}, where speech has 2 to 5")
    if problems:
        _progress.warn(
            f"{where}: {', and '.join(problems)}{_likely(story, tr) or '; check the times of words and the TR'}.",
            stacklevel=4,
        )
    text = np.array(words.text, dtype=object)
    n_twice = int(np.sum((text[1:] == text[:-1]) & (words.onsets[1:] == words.onsets[:-1])))
    if n_twice > MOST_TWICE * n_timed:
        _progress.warn(
            f"{where}: {n_twice} of {n_timed} words of story {story.name} repeat the word before them at the same "
            f"time; give each word once.",
            stacklevel=4,
        )


def _span(words: Words) -> float:
    """Seconds from the first onset to the last offset."""
    return float(np.nanmax(words.offsets) - np.nanmin(words.onsets))


def _likely(story: Story, tr: float) -> str:
    """The likely cause of times that do not fit the run, as the end of a sentence; empty where none is likely."""
    words, run = story.words, story.n_trs * tr
    n_timed, span = int(words.timed.sum()), _span(words)
    if n_timed < LEAST_WORDS or span <= 0:
        return ""

    def fits(seconds: float, of: float = run) -> bool:
        """Whether words over this stretch would cover a run, at a rate at which people speak."""
        return 0.6 * of <= seconds <= 1.15 * of and SPEECH_RATES[0] <= n_timed / seconds <= SPEECH_RATES[1]

    causes = [f"the times of words look like {unit}" for unit, size in UNITS.items() if fits(span * size)]
    if fits(span * tr) and not np.isclose(tr, 1):
        causes.append("the times of words look like TRs")
    if fits(span):  # of the right length, so at another time
        late = np.nanmin(words.onsets) - story.tr_times[0]
        if late < -CUT_SECONDS or late > max(CUT_SECONDS, run - span):
            causes.append(f"they would fit about {abs(late):.0f} s {'earlier' if late > 0 else 'later'}")
    n_columns = story.bold.shape[1]
    if n_columns != story.n_rows and fits(span, n_columns * tr):
        causes.append(f"BOLD looks like (voxels, rows), got ({story.n_rows}, {n_columns}): transpose it")
    for factor in (2.0, 0.5, 1e3, 1e-3):
        if fits(span, run * factor):
            causes.append(f"a TR of {tr * factor:g} s would fit, got {tr:g} s")
    return f"; {', or '.join(causes)}" if causes else ""


def check_assembly(value: Any, caller: str) -> None:
    """Refuse anything but an Assembly, such as its path; `caller` is the function that was called.

    Raises
    ------
    TypeError
    """
    if not isinstance(value, Assembly):
        hint = (
            f"write {caller}(load_assembly({value!r}), ...)"
            if isinstance(value, str | PathLike)
            else "load_assembly(source) and Assembly.from_arrays(...) return one"
        )
        raise TypeError(f"{caller}: expected an Assembly, got {describe(value)}; {hint}.")


_ASSEMBLY_PARTS = ("surface", "rois", "voxel_names", "truth")
_MISSING_WORDS = frozenset(["nan", "NaN", "None", "<NA>"])  # as pandas and Python write them
_OTHER_SPACING = 0.02  # of the TR; measured TRs differ from nominal ones by less
_STORY_PARTS = ("words", "onsets", "offsets", "bold", "tr_times", "repeats", "contexts", "extras")


def check_parts(
    subject: str,
    stories: Any,
    *,
    tr: Any,
    first_tr: Any,
    fields: Mapping[str, Any],
) -> None:
    """Refuse arguments with which no story can be made, before reading any; `Assembly` checks the rest."""
    if not isinstance(stories, Mapping) or not all(isinstance(parts, Mapping) for parts in stories.values()):
        raise ValueError(
            f'Assembly of {subject}: expected stories as {{name: {{"words": ..., "bold": ...}}}}, got '
            f"{_kind(stories)}."
        )
    unknown = [name for name in fields if name not in _ASSEMBLY_PARTS]
    if unknown:
        raise ValueError(
            f"Assembly of {subject}: unknown arguments {', '.join(unknown)}; besides stories it takes "
            f"{', '.join(_ASSEMBLY_PARTS)}."
        )
    check_tr(tr, f"Assembly of {subject}")
    if not _is_number(first_tr):
        raise ValueError(f"Assembly of {subject}: expected first_tr in seconds, got {first_tr!r}.")


def story_from_arrays(name: str, parts: Mapping[str, Any], tr: float, first_tr: float) -> Story:
    """One story, from the parts that `Assembly.from_arrays` lists."""
    unknown = [part for part in parts if part not in _STORY_PARTS]
    missing = [part for part in ("words", "bold") if part not in parts]
    if unknown or missing:
        problem = f"no {' and no '.join(missing)}" if missing else f"unknown parts {', '.join(unknown)}"
        raise ValueError(f"{name}: {problem}; the parts of a story are {', '.join(_STORY_PARTS)}.")
    bold, repeats = parts["bold"], parts.get("repeats")
    bold = _array(bold, f"{name}: expected BOLD", "(rows, voxels)")
    if repeats is not None:
        repeats = _array(repeats, f"{name}: expected repeats", "(repeats, rows, voxels)")
    tr_times = parts.get("tr_times")
    tr_times = first_tr + tr * np.arange(bold.shape[0]) if tr_times is None else tr_times
    story = Story(
        name=name,
        words=_words_from_arrays(name, parts),
        tr_times=tr_times,
        bold=bold,
        repeats=repeats,
        contexts=parts.get("contexts"),
        extras={} if parts.get("extras") is None else parts["extras"],
    )
    _refuse_other_spacing(story, tr)
    _refuse_not_finite_repeats(story)
    check_words_in_run(story, tr, where=name)
    return story


def _array(values: Any, what: str, axes: str) -> ArrayLike:
    """Arrays that read like numpy's as they are, such as a memory map; others, such as tensors, as numpy arrays."""
    reads_late = hasattr(values, "shape") and not hasattr(values, "__array__")
    if not isinstance(getattr(values, "dtype", None), np.dtype) and not reads_late:
        try:
            values = np.asarray(values)
        except Exception as error:  # whatever a library raises about its arrays
            raise ValueError(
                f"{what} that numpy can read, got a {type(values).__name__} ({error}); convert it to an array first, a "
                f"tensor with .detach().cpu().numpy()."
            ) from error
    kind = np.dtype(getattr(values, "dtype", float)).kind
    if kind not in "fiu" or len(values.shape) != axes.count(",") + 1:
        got = f"shape {tuple(values.shape)}" if kind in "fiu" else f"values of type {values.dtype}"
        raise ValueError(f"{what} as numbers in {axes}, got {got}.")
    return values


def _refuse_other_spacing(story: Story, tr: float) -> None:
    """Refuse TR times that are not a TR apart, as their median."""
    spacing = float(np.median(np.diff(story.tr_times))) if story.n_trs > 1 else tr
    if abs(spacing - tr) > _OTHER_SPACING * tr:
        raise ValueError(
            f"{story.name}: expected tr_times {tr:g} s apart (tr={tr:g}), got {spacing:g} s; give both in seconds."
        )


def _refuse_not_finite_repeats(story: Story) -> None:
    """Refuse NaN in repeats that are in memory; others are read when they are needed."""
    repeats = story.repeats
    if type(repeats) is not np.ndarray:
        return
    for number, presentation in enumerate(repeats):
        bad = ~np.isfinite(presentation)
        if bad.any():
            raise ValueError(
                f"{story.name}: expected finite repeats, but {int(bad.sum())} values of presentation {number} are not "
                f"finite, in {int(bad.any(axis=0).sum())} of {bad.shape[1]} voxels; leave out that presentation or "
                f"these voxels."
            )


def _words_from_arrays(name: str, parts: Mapping[str, Any]) -> Words:
    words = parts["words"]
    if isinstance(words, Words):
        beside = [part for part in ("onsets", "offsets") if parts.get(part) is not None]
        if beside:
            raise ValueError(
                f"{name}: {' and '.join(beside)} given twice, since `Words` have their own times; leave them out, or "
                f"give the words as a list of strings."
            )
        refuse_no_words(name, words.text)
        return words
    if isinstance(words, str) or not np.iterable(words):
        raise ValueError(f"{name}: expected words as a sequence of strings, got {str(words)[:40]!r}.")
    words = tuple(words)
    refuse_no_words(name, words)
    if "onsets" not in parts:
        raise ValueError(f"{name}: expected onsets with the words, seconds from the start of the sound.")
    onsets, offsets = parts["onsets"], parts.get("offsets")
    try:
        return Words(words, onsets, onsets if offsets is None else offsets)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def refuse_no_words(name: str, words: Sequence[str]) -> None:
    """Refuse words that are all blank or all "nan"; warn where some are what a table writes for a missing word."""
    if not all(isinstance(word, str) for word in words):
        return  # `Words` names the first
    counts = Counter(words)  # each word is looked at once: a small file can name one long word very often
    spoken = {word: word.strip() for word in counts if word.strip()}
    if words and not spoken:
        raise ValueError(f"{name}: all of {len(words)} words are blank; check which column holds the words.")
    odd = {word: counts[word] for word, text in spoken.items() if text in _MISSING_WORDS}
    if odd and len(odd) == len(spoken):
        raise ValueError(f"{name}: all words are {next(iter(odd))!r}; check which column holds the words.")
    if odd:
        _progress.warn(
            f"{name}: {sum(odd.values())} of {len(words)} words are {next(iter(odd))!r}, which tables write for a "
            f"missing word; if so, leave these rows out.",
            stacklevel=5,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(float(value)))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, Mapping) else "a mapping of something else"


DIGEST_COVERS = (
    "subject, TR, and of every story: words and their times, TR times, stored windows, shapes of BOLD and "
    "repeats, and the first, middle and last row of BOLD as float32"
)


def assembly_digest(assembly: Assembly) -> str:
    """SHA-256 of a data set, 64 hexadecimal digits: two runs with the same digest used the same data.

    It covers what `DIGEST_COVERS` says. BOLD is sampled at three rows a story, so that tens of gigabytes need
    not be read: it changes with a whole story, with voxels, their order or the preprocessing, not with
    single other rows. Simulated BOLD may differ in its last digits between machines.
    """
    return digest(_digest_parts(assembly))


def _digest_parts(assembly: Assembly) -> Iterator[Any]:
    yield from _measured(assembly.subject, repr(float(assembly.tr)))
    for name, story in assembly.stories.items():
        yield from _measured(name, *story.words.text)
        for times in (story.words.onsets, story.words.offsets, story.tr_times):
            yield np.ascontiguousarray(times, dtype="<f8")
        for context_type, windows in sorted((story.contexts or {}).items()):
            yield from _measured(context_type, *windows)
        yield from _measured(repr(tuple(map(int, story.bold.shape))))
        yield from _measured(repr(None if story.repeats is None else tuple(map(int, story.repeats.shape))))
        for row in sorted({0, story.n_rows // 2, story.n_rows - 1} if story.n_rows else ()):
            yield np.ascontiguousarray(story.bold[row : row + 1], dtype="<f4")


def _measured(*texts: str) -> Iterator[bytes]:
    """Texts with their lengths, so that ("ab", "c") and ("a", "bc") differ."""
    for text in texts:
        encoded = text.encode("utf-8", errors="surrogatepass")
        yield f"{len(encoded)}:".encode() + encoded
