"""Read LITcoder's assemblies: the pickles that its `save_assembly` writes, without LITcoder.

Field by field as LITcoder defines them (github.com/GT-LIT-Lab/litcoder_core, encoding/assembly/story_data.py):
`brain_data`, `stimuli` (a window of text per word), `split_indices` (the number of words before each TR, as for
`np.split`), `tr_times`, `data_times` (the middle of each word), `words`, and, where they were made,
`word_rates`, `temporal_baseline`, `mask_indices` and `audio_path`.

The arrays stay in the pickle until they are read, so that an assembly of many gigabytes opens in seconds; the
pickle's second copy of all BOLD (`data`) is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .._validation import check_choice, shorten
from ..assembly import (
    Array,
    Assembly,
    LazyArray,
    Story,
    Surface,
    Words,
    check_words_in_run,
    refuse_no_words,
)
from ..features import CONTEXT_TYPES
from ._checks import chosen
from ._pickles import Record, read_pickle


class PickledAssembly(Record):
    """In place of LITcoder's SimpleNeuroidAssembly."""


class PickledStory(Record):
    """In place of LITcoder's StoryData."""


CLASSES = {
    ("encoding.assembly.assemblies", "SimpleNeuroidAssembly"): PickledAssembly,
    ("encoding.assembly.story_data", "StoryData"): PickledStory,
}
NEEDED = ("brain_data", "stimuli", "split_indices", "tr_times", "data_times", "words")
EXTRAS = ("split_indices", "word_rates", "temporal_baseline", "audio_path", "mask_indices")
SUFFIXES = (".pkl", ".pickle")
_SURROGATE = re.compile("[\ud800-\udfff]")


def recognises(source: Path) -> bool:
    """Whether a path is for `load`: by its ending."""
    return source.suffix.lower() in SUFFIXES


def load(
    source: Path,
    *,
    subject: str | None = None,
    stories: Iterable[str] | None = None,
    context_type: str | None = None,
    surface: Surface | None = None,
) -> Assembly:
    """A LITcoder pickle as an `Assembly`.

    The last story is the test story where LITcoder holds out a story (`validation_method` "outer"); its BOLD
    is trimmed by the preset "lebel" where the data are LeBel's.

    Parameters
    ----------
    source : file
    subject : str, optional
        The pickle does not name it; None takes the file's name.
    stories : names, optional
        Keep only these, in the file's order.
    context_type : str, optional
        How the stored windows were made, which the pickle does not say; None infers it from how they grow.
    surface : Surface, optional
        Where the voxels are; the pickle does not say.

    Raises
    ------
    ValueError
        Not a LITcoder assembly, damaged, or without needed fields or stories; the message gives file, story and
        field.
    """
    if context_type is not None:
        check_choice(context_type, "context_type", CONTEXT_TYPES)
    found = read_pickle(source, classes=CLASSES)
    if not isinstance(found, PickledAssembly):
        raise ValueError(f"{source}: expected a SimpleNeuroidAssembly, got a {type(found).__name__}.")
    records = _story_records(found, source)
    names = chosen(stories, records, source)
    read = {name: _story(name, vars(records[name]), source) for name in names}
    kind = context_type or context_type_of([windows for _, windows in read.values()])
    made = {name: replace(story, contexts={kind: windows}) for name, (story, windows) in read.items()}
    outer = vars(found).get("validation_method", "outer") == "outer"
    last = next(reversed(records))
    first = next(iter(made.values()))
    return Assembly(
        subject=subject or source.stem,
        tr=round(float(np.median(np.diff(first.tr_times))), 6),
        stories=made,
        test_stories=(last,) if outer and last in made else (),
        surface=surface,
    )


def _story_records(found: PickledAssembly, source: Path) -> dict[str, PickledStory]:
    """{story: its record}, in the order of the assembly's `stories`."""
    names, records = vars(found).get("stories"), vars(found).get("story_data")
    good = isinstance(names, list) and isinstance(records, dict) and names
    good = good and all(type(name) is str and isinstance(records.get(name), PickledStory) for name in names)
    if not good:
        fields = ", ".join(vars(found)) or "none"
        raise ValueError(
            f"{source}: expected a list 'stories' and a record of each in 'story_data', got the fields {fields}."
        )
    return {name: records[name] for name in names}


def _story(name: str, fields: Mapping[str, Any], source: Path) -> tuple[Story, tuple[str, ...]]:
    """A story, its BOLD still in the file, and the window of text of each word."""
    where = f"{source}, story {name!r}"
    missing = [field for field in NEEDED if fields.get(field) is None]
    if missing:
        found = ", ".join(field for field, value in fields.items() if value is not None) or "none"
        raise ValueError(f"{where}: fields missing: {', '.join(missing)}; it has {found}.")
    texts, windows = (_texts(fields[field], f"{where}, {field}") for field in ("words", "stimuli"))
    tr_times, times = (_numbers(fields[field], f"{where}, {field}") for field in ("tr_times", "data_times"))
    if np.ndim(tr_times) != 1 or np.ndim(times) != 1:
        got = f"tr_times of shape {np.shape(tr_times)} and data_times of shape {np.shape(times)}"
        raise ValueError(f"{where}: expected lists of times, got {got}.")
    bold = fields["brain_data"]
    if not isinstance(bold, LazyArray) or bold.dtype.kind not in "fiu" or bold.ndim != 2 or 0 in bold.shape:
        raise ValueError(f"{where}, brain_data: expected numbers in (rows, voxels), got {_kind(bold)}.")
    if not len(texts) == len(windows) == len(times):
        got = f"{len(texts)} words, {len(windows)} stimuli, {len(times)} data_times"
        raise ValueError(f"{where}: expected as many windows and times as words, got {got}.")
    if len(tr_times) < 2:
        raise ValueError(f"{where}: expected two or more tr_times, got {len(tr_times)}.")
    extras = {field: fields[field] for field in EXTRAS if fields.get(field) is not None}
    for field, value in extras.items():
        if not isinstance(value, (str, bool, int, float)):
            extras[field] = _numbers(value, f"{where}, {field}")
    try:
        # only the middle of each word is known: words of no length, so that `Words.times` is exact
        words = Words(texts, times, times)
        story = Story(name=name, words=words, tr_times=tr_times, bold=bold, extras=extras)
        refuse_no_words(name, texts)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    check_words_in_run(story, float(np.median(np.diff(story.tr_times))), where=str(source))
    return story, windows


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, LazyArray) and value.dtype.kind == "U" and value.ndim == 1:
        value = value[:].tolist()
    if not isinstance(value, (list, tuple)):
        raise ValueError(f"{where}: expected a list of texts, got {_kind(value)}.")
    for number, text in enumerate(value):
        if not isinstance(text, str):
            raise ValueError(
                f"{where}: expected texts, but entry {number} is {shorten(repr(text))}, a {type(text).__name__}; leave "
                f"out words that are missing, together with their times."
            )
    for text in set(value):  # each once: a small file can name one long text very often
        if _SURROGATE.search(text):
            raise ValueError(f"{where}: {text[:40]!a} has half a character (surrogate); fix the transcript.")
    return tuple(value)


def _numbers(value: Any, where: str) -> Array:
    """An array of numbers from an array or a list of them."""
    if isinstance(value, LazyArray) and value.dtype.kind in "fiub":
        return value[()] if value.ndim == 0 else value[:]
    if isinstance(value, (list, tuple)) and all(type(number) in (int, float) for number in value):
        numbers = np.array(value)
        if numbers.dtype.kind in "fi":
            return numbers
    raise ValueError(f"{where}: expected an array of numbers, got {_kind(value)}.")


def _kind(value: Any) -> str:
    if isinstance(value, LazyArray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return f"a {type(value).__name__}"


def context_type_of(windows: Iterable[tuple[str, ...]]) -> str:
    """The context type that windows of text look like, by how their number of words falls.

    Windows of the last tokens lose about as many words as they gain; others start again and again, with the new
    word alone ("nocontext") or with the later half of the window ("halfcontext"). A long word can push out many, so
    single falls do not count. Windows that never fall can be of any type, and count as "fullcontext".
    """
    counts = [_word_counts(texts) for texts in windows]
    after = np.concatenate([c[1:][(c[:-1] >= 8) & (c[1:] < 0.75 * c[:-1])] for c in counts])
    starts_expected = sum(map(len, counts)) / max(c.max(initial=1) for c in counts)
    if len(after) < max(1, starts_expected / 2):
        return "fullcontext"
    return "nocontext" if np.median(after) <= 2 else "halfcontext"


def _word_counts(texts: tuple[str, ...]) -> Array:
    """Words in each text that has any; a text that comes often is counted once."""
    known = {text: len(text.split()) for text in set(texts)}
    return np.array([n for text in texts if (n := known[text])], dtype=int)
