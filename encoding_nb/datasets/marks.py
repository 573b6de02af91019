"""Marks of silence and noise, which aligners and transcribers write in the place of words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .. import _progress

# marks that the authors of the LeBel data drop (github.com/HuthLab/deep-fMRI-dataset)
AUTHORS_BAD_WORDS = frozenset(["sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp"])
# with those of their extended list, and empty intervals
BAD_WORDS = AUTHORS_BAD_WORDS | {"sl", "cg", "ig", ""}
# in any case of letters; any label within <>, [], {}, () or ++ is a mark as well
MARKS = BAD_WORDS | {
    "sil", "spn", "nsn", "eps",  # Montreal Forced Aligner, Prosodylab, Kaldi: silence, spoken and other noise
    "#", "##", "_", "-", "--", "...", "…", "p:", "usb", "nib",  # Praat and WebMAUS: pause, unintelligible, noise
    "xxx", "yyy", "www",  # CHAT (TalkBank): unintelligible, not transcribed
}  # fmt: skip
_BRACKETED = re.compile(r"<[^<>]*>|\[[^][]*\]|\{[^{}]*\}|\([^()]*\)|\++[^+]*\++")
_DEEPEST = 3  # brackets within brackets, such as [[noise]]


def is_mark(label: str, marks: Collection[str] | None = None) -> bool:
    """Whether a label marks silence or noise.

    Parameters
    ----------
    label : str
    marks : set of str, optional
        Compared in any case of letters, and without braces around the label. None takes `MARKS`, and every label that
        is all within brackets of any kind, such as ``<eps>``, ``[noise]``, ``{LG}``, ``(silence)`` and ``++breath++``.
    """
    text = label.strip().lower()
    if marks is not None:
        return text.strip("{}").strip() in {mark.lower() for mark in marks}
    if text in MARKS:
        return True
    for _ in range(_DEEPEST):
        text = _BRACKETED.sub("", text).strip()
    return not text


def check_marks(marks: Any, caller: str) -> None:
    """Refuse anything but a collection of texts or None, with a ValueError."""
    if marks is None or (
        isinstance(marks, Collection)
        and not isinstance(marks, str)
        and all(isinstance(mark, str) for mark in marks)
    ):
        return
    hint = f"; write {{{marks!r}}}" if isinstance(marks, str) else ""
    raise ValueError(f"{caller}: expected bad_words as a set of texts, got {marks!r}{hint}.")


def tell_left_out(path: Path, left_out: Counter[str]) -> None:
    """Warn of the labels of a file that were taken for marks, with their counts; empty labels are not counted."""
    left_out = Counter({label: n for label, n in left_out.items() if label.strip()})
    if left_out:
        most = ", ".join(f"{label!r} {n}" for label, n in left_out.most_common(8))
        more = ", ..." if len(left_out) > 8 else ""
        _progress.warn(
            f"{path}: {left_out.total()} labels mark silence or noise and are left out: {most}{more}. "
            f"bad_words={{...}} chooses the marks yourself, bad_words=() keeps every label.",
            stacklevel=3,
        )
