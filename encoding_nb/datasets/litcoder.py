"""LITcoder's assemblies: the pickles that its `save_assembly` writes, read without LITcoder.

Field by field as LITcoder defines them (github.com/GT-LIT-Lab/litcoder_core, encoding/assembly/story_data.py):
`brain_data`, `stimuli` (a window of text per word), `split_indices` (the number of words before each TR, as for
`np.split`), `tr_times`, `data_times` (the middle of each word), `words`, and, where they were made,
`word_rates`, `temporal_baseline`, `mask_indices` and `audio_path`.

The arrays stay in the pickle until they are read, so that an assembly of many gigabytes opens at once; the
pickle's second copy of all BOLD (`data`) is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..assembly import Array, Assembly, LazyArray, Story, Surface, Words, check_words_in_run
from ..features import CONTEXT_TYPES
from ._pickles import Record, read_pickle

ASSEMBLY = ("encoding.assembly.assemblies", "SimpleNeuroidAssembly")
STORY = ("encoding.assembly.story_data", "StoryData")
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
    is trimmed as the preset "lebel" says, where the data are LeBel's.

    Parameters
    ----------
    source : file
    subject : str, optional
        The pickle does not say; None takes the file's name.
    stories : names, optional
        Keep only these, in the file's order.
    context_type : str, optional
        What the stored windows are, which the pickle does not say either; None goes by how they grow.
    surface : Surface, optional
        Where the voxels lie; the pickle does not say.

    Raises
    ------
    ValueError
        Not a LITcoder assembly, damaged, fields or stories missing; the message gives file, story and field.
    """
    if context_type is not None and context_type not in CONTEXT_TYPES:
        raise ValueError(f"context_type: expected one of {', '.join(CONTEXT_TYPES)}, got {context_type!r}.")
    found = read_pickle(source, classes=frozenset([ASSEMBLY, STORY]))
    if not isinstance(found, Record) or (found.name.module, found.name.name) != ASSEMBLY:
        what = f"{found.name.module}.{found.name.name}" if isinstance(found, Record) else type(found).__name__
        raise ValueError(f"{source}: expected LITcoder's SimpleNeuroidAssembly, got a pickled {what}.")
    records = _story_records(found, source)
    kept = _chosen(records, stories, source)
    raw = {name: _raw_story(record, f"{source}, story {name!r}") for name, record in kept.items()}
    windows = context_type or context_type_of([fields["stimuli"] for fields in raw.values()])
    made = {name: _story(name, fields, windows, source) for name, fields in raw.items()}
    outer = found.fields.get("validation_method", "outer") == "outer"
    last = next(reversed(records))
    first = next(iter(made.values()))
    return Assembly(
        subject=subject or source.stem,
        tr=round(float(np.median(np.diff(first.tr_times))), 6),
        stories=made,
        test_stories=(last,) if outer and last in made else (),
        surface=surface,
    )


def _story_records(found: Record, source: Path) -> dict[str, Record]:
    """{story: its record}, in the order of the assembly's `stories`."""
    names, records = found.fields.get("stories"), found.fields.get("story_data")
    good = isinstance(names, list) and isinstance(records, dict) and names
    good = good and all(isinstance(name, str) and isinstance(records.get(name), Record) for name in names)
    if not good:
        there = ", ".join(found.fields) or "none"
        raise ValueError(
            f"{source}: expected a list 'stories' and a record of each in 'story_data', got fields {there}; was it "
            f"written by LITcoder's save_assembly?"
        )
    return {name: records[name] for name in names}


def _chosen(
    records: Mapping[str, Record], stories: Iterable[str] | None, source: Path
) -> Mapping[str, Record]:
    if stories is None:
        return records
    stories = list(stories)
    unknown = [name for name in stories if name not in records]
    if unknown or not stories:
        raise ValueError(f"No story {', '.join(unknown)!r} in {source}; it has {', '.join(records)}.")
    return {name: record for name, record in records.items() if name in stories}


def _raw_story(record: Record, where: str) -> dict[str, Any]:
    """A story's fields, their kinds checked: texts as tuples, numbers as arrays, BOLD still in the file."""
    fields = record.fields
    missing = [name for name in NEEDED if fields.get(name) is None]
    if missing:
        there = ", ".join(name for name, value in fields.items() if value is not None) or "none"
        raise ValueError(
            f"{where}: expected the fields {', '.join(NEEDED)}, but {', '.join(missing)} {_are(missing)} missing; "
            f"there: {there}."
        )
    raw = {name: _texts(fields[name], f"{where}, {name}") for name in ("words", "stimuli")}
    raw |= {name: _times(fields[name], f"{where}, {name}") for name in ("tr_times", "data_times")}
    raw["brain_data"] = _bold(fields["brain_data"], where)
    n_words = {name: len(raw[name]) for name in ("words", "stimuli", "data_times")}
    if len(set(n_words.values())) > 1:
        counts = ", ".join(f"{count} {name}" for name, count in n_words.items())
        raise ValueError(f"{where}: expected as many windows and times as words, got {counts}.")
    if len(raw["tr_times"]) < 2:
        raise ValueError(f"{where}: expected two or more tr_times, got {len(raw['tr_times'])}.")
    raw["extras"] = {
        name: _extra(fields[name], f"{where}, {name}") for name in EXTRAS if fields.get(name) is not None
    }
    return raw


def _are(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if isinstance(value, LazyArray) and value.dtype.kind == "U" and value.ndim == 1:
        value = value[:].tolist()
    if not isinstance(value, (list, tuple)) or not all(isinstance(text, str) for text in value):
        raise ValueError(f"{where}: expected a list of texts, got {_kind(value)}.")
    for text in set(value):  # each once: a small file may name one long text very often
        if _SURROGATE.search(text):
            raise ValueError(
                f"{where}: expected texts of whole characters, got one with a half (a surrogate), which no tokenizer "
                f"takes: {text[:40]!a}; write the assembly again from a mended transcript."
            )
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


def _times(value: Any, where: str) -> Array:
    """(n,) seconds."""
    times = _numbers(value, where)
    if np.ndim(times) != 1:
        raise ValueError(f"{where}: expected a list of times, one axis, got {_kind(value)}.")
    return times


def _extra(value: Any, where: str) -> Any:
    return value if isinstance(value, (str, bool, int, float)) else _numbers(value, where)


def _bold(value: Any, where: str) -> LazyArray:
    if (
        not isinstance(value, LazyArray)
        or value.dtype.kind not in "fiu"
        or value.ndim != 2
        or 0 in value.shape
    ):
        raise ValueError(f"{where}, brain_data: expected numbers in (rows, voxels), got {_kind(value)}.")
    return value


def _kind(value: Any) -> str:
    if isinstance(value, LazyArray):
        return f"an array of shape {value.shape} and type {value.dtype}"
    return f"a {type(value).__name__}"


def _story(name: str, raw: Mapping[str, Any], context_type: str, source: Path) -> Story:
    where = f"{source}, story {name!r}"
    try:
        # only the middle of each word is known: words of no length, so that `Words.times` is exact
        words = Words(raw["words"], raw["data_times"], raw["data_times"])
        story = Story(
            name=name,
            words=words,
            tr_times=raw["tr_times"],
            bold=raw["brain_data"],
            contexts={context_type: raw["stimuli"]},
            extras=raw["extras"],
        )
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    check_words_in_run(story, float(np.median(np.diff(story.tr_times))), where=str(source))
    return story


def context_type_of(windows: Iterable[tuple[str, ...]]) -> str:
    """The context type that windows of text look like, by how their number of words falls.

    Windows of the last tokens lose about as many words as they gain; others start afresh, again and again,
    with the new word alone ("nocontext") or with the later half of the window ("halfcontext"). A long word may
    push out many, so that single falls do not count. Windows that never fall may be of any type, and count as
    "fullcontext".
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
