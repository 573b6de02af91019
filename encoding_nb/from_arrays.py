"""Stories from arrays in memory, for `Assembly.from_arrays`: what does not fit is said, naming the story."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from .assembly import ArrayLike, Story, Words, check_words_in_run
from .assembly_checks import check_tr

_ASSEMBLY_PARTS = ("surface", "rois", "voxel_names", "truth")
_MISSING_WORDS = frozenset(["nan", "NaN", "None", "<NA>"])  # as pandas and Python write them
_OTHER_SPACING = 0.02  # of the TR; measured TRs differ from nominal ones by less
_STORY_PARTS = ("words", "onsets", "offsets", "bold", "tr_times", "repeats", "contexts", "extras")


def refuse_parts(
    subject: str,
    stories: Any,
    *,
    tr: Any,
    first_tr: Any,
    fields: Mapping[str, Any],
) -> None:
    """A ValueError for what no story can be made with, before any is looked at; `Assembly` checks the rest."""
    if not isinstance(stories, Mapping) or not all(isinstance(parts, Mapping) for parts in stories.values()):
        raise ValueError(
            f'Assembly of {subject}: expected stories as {{name: {{"words": ..., "bold": ...}}}}, got '
            f"{_kind(stories)}."
        )
    unknown = [name for name in fields if name not in _ASSEMBLY_PARTS]
    if unknown:
        raise ValueError(
            f"Assembly of {subject}: unknown parts {', '.join(unknown)}; besides its stories there can be "
            f"{', '.join(_ASSEMBLY_PARTS)}."
        )
    check_tr(tr, f"Assembly of {subject}")
    if not _is_number(first_tr):
        raise ValueError(f"Assembly of {subject}: expected first_tr in seconds, got {first_tr!r}.")


def story_from_arrays(name: str, parts: Mapping[str, Any], tr: float, first_tr: float) -> Story:
    """One story of the parts that `Assembly.from_arrays` lists."""
    unknown = [part for part in parts if part not in _STORY_PARTS]
    missing = [part for part in ("words", "bold") if part not in parts]
    if unknown or missing:
        problem = f"no {' and no '.join(missing)}" if missing else f"unknown parts {', '.join(unknown)}"
        raise ValueError(f"{name}: {problem}; a story is made of {', '.join(_STORY_PARTS)}.")
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
    """Numbers as they are where they read like numpy's, such as a memory map; others, such as tensors, as numpy's."""
    reads_late = hasattr(values, "shape") and not hasattr(values, "__array__")
    if not isinstance(getattr(values, "dtype", None), np.dtype) and not reads_late:
        try:
            values = np.asarray(values)
        except Exception as error:  # whatever a library raises of its own arrays
            raise ValueError(
                f"{what} that numpy can read, got a {type(values).__name__} ({error}); make an array of it first, of a "
                f"tensor with .detach().cpu().numpy()."
            ) from error
    kind = np.dtype(getattr(values, "dtype", float)).kind
    if kind not in "fiu" or len(values.shape) != axes.count(",") + 1:
        got = f"shape {tuple(values.shape)}" if kind in "fiu" else f"values of type {values.dtype}"
        raise ValueError(f"{what} as numbers in {axes}, got {got}.")
    return values


def _refuse_other_spacing(story: Story, tr: float) -> None:
    spacing = float(np.median(np.diff(story.tr_times))) if story.n_trs > 1 else tr
    if abs(spacing - tr) > _OTHER_SPACING * tr:
        raise ValueError(
            f"{story.name}: expected tr_times {tr:g} s apart, as tr says, got {spacing:g} s; give both in seconds."
        )


def _refuse_not_finite_repeats(story: Story) -> None:
    """Of arrays in memory alone: others are read when they are needed."""
    repeats = story.repeats
    if type(repeats) is not np.ndarray:
        return
    for number, presentation in enumerate(repeats):
        bad = ~np.isfinite(presentation)
        if bad.any():
            raise ValueError(
                f"{story.name}: expected finite repeats, but {int(bad.sum())} values of presentation {number} are not, "
                f"in {int(bad.any(axis=0).sum())} of {bad.shape[1]} voxels; leave out that presentation or these "
                f"voxels."
            )


def _words_from_arrays(name: str, parts: Mapping[str, Any]) -> Words:
    words = parts["words"]
    if isinstance(words, Words):
        beside = [part for part in ("onsets", "offsets") if parts.get(part) is not None]
        if beside:
            raise ValueError(
                f"{name}: expected no {' and no '.join(beside)} beside words that have their times (`Words`); leave "
                f"them out, or give the words as a list of texts."
            )
        _refuse_no_words(name, words.text)
        return words
    if isinstance(words, str) or not np.iterable(words):
        raise ValueError(f"{name}: expected words as a sequence of texts, got {str(words)[:40]!r}.")
    words = tuple(words)
    _refuse_no_words(name, words)
    if "onsets" not in parts:
        raise ValueError(f"{name}: expected onsets with the words, seconds from the start of the sound.")
    onsets, offsets = parts["onsets"], parts.get("offsets")
    try:
        return Words(words, onsets, onsets if offsets is None else offsets)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {error}") from error


def _refuse_no_words(name: str, words: Sequence[str]) -> None:
    """A ValueError where all words are blank; a warning where some are what a table writes for a missing one."""
    if not all(isinstance(word, str) for word in words):
        return  # `Words` says which is none
    spoken = [word.strip() for word in words if word.strip()]
    if words and not spoken:
        raise ValueError(f"{name}: all of {len(words)} words are blank; is this the column of the words?")
    odd = [word for word in spoken if word in _MISSING_WORDS]
    if odd and len(odd) == len(spoken):
        raise ValueError(f"{name}: all words are {odd[0]!r}; is this the column of the words?")
    if odd:
        warnings.warn(
            f"{name}: {len(odd)} of {len(words)} words are {odd[0]!r}, which tables write where there is no word; if "
            f"nothing was said there, leave these rows out.",
            stacklevel=5,
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and bool(np.isfinite(value))


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}" if not isinstance(value, Mapping) else "a mapping of something else"
