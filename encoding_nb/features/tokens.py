"""The words of a story as the token windows that a language model reads.

A window is the stretch of tokens a model sees for one word: it ends with the word's last token. Windows that
begin at the same token share a *segment*, so that a causal model reads it once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from .. import _progress

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Windows:
    """The tokens a language model sees for each word of a story.

    The window of word i is ``segments[segment[i]][:stop[i]]``; its last token is the word's last token. The
    beginning-of-sequence token is not in it: it is put in front when the model reads it.

    Attributes
    ----------
    segments : tuple of int32 arrays, token ids
        The longest window of every group of windows that begin at the same token.
    segment : array, (n_words,) int
        -1 for a word without any text: it has no window.
    stop : array, (n_words,) int
        Length of the word's window in tokens.
    context_type : str
        ``"stored"`` for windows that came with the data.
    """

    segments: tuple[Array, ...]
    segment: Array
    stop: Array
    context_type: str

    def __len__(self) -> int:
        """Number of words."""
        return len(self.segment)

    @property
    def approximate(self) -> bool:
        """Whether windows are longer than the lookback that was asked for."""
        return self.context_type == "strided"

    @property
    def longest(self) -> int:
        """Tokens of the longest window, without BOS."""
        return int(self.stop.max(initial=0))

    def ids(self, word: int) -> Array:
        """Token ids of one word's window, without BOS; empty for a word without text."""
        if self.segment[word] < 0:
            return np.zeros(0, dtype=np.int32)
        return self.segments[self.segment[word]][: self.stop[word]]

    def one_by_one(self) -> Windows:
        """The same windows, none sharing a segment: for models that look ahead within a window."""
        with_text = np.flatnonzero(self.segment >= 0)
        segment = np.full(len(self), -1)
        segment[with_text] = np.arange(len(with_text))
        return Windows(tuple(self.ids(i) for i in with_text), segment, self.stop, self.context_type)

    @cached_property
    def digest(self) -> str:
        """Hash of every word's window."""
        hashed = sha256()
        for segment in self.segments:
            hashed.update(len(segment).to_bytes(8, "little") + segment.astype("<i4").tobytes())
        hashed.update(self.segment.astype("<i8").tobytes() + self.stop.astype("<i8").tobytes())
        return hashed.hexdigest()


def context_windows(
    words: Sequence[str],
    tokenizer: Any,
    *,
    lookback: int,
    context_type: str,
    stride: int | None = None,
) -> Windows:
    """The window of tokens that each word is read in.

    The story is its words with one blank between them, tokenised as a whole; windows are counted in its
    tokens and may begin within a word.

    Parameters
    ----------
    words : (n_words,) str
        Empty words stay in the count but have no window; blanks within a word are kept as one blank.
    tokenizer : Hugging Face tokenizer
    lookback : int, tokens
    context_type : one of `CONTEXT_TYPES`
        ``fullcontext``: the last `lookback` tokens. ``nocontext``: windows grow from a word's start until
        the next word would pass `lookback`, then start afresh with that word. ``halfcontext``: there the
        start moves on by half of `lookback`. ``strided``, approximate: between `lookback` and
        `lookback + stride` tokens, all words of a stride sharing one start.
    stride : int, tokens, optional
        For ``strided``; `lookback` where not given.

    Raises
    ------
    ValueError
        No words, an unknown context type, a lookback or stride below 1.
    """
    lookback, stride = check_context(lookback=lookback, context_type=context_type, stride=stride)
    tokens = tokenize_words(words, tokenizer)
    starts = CONTEXT_TYPES[context_type](tokens.ends, lookback, stride)
    return _windows_from_starts(tokens, starts, longest=lookback + stride, context_type=context_type)


def check_context(*, lookback: int, context_type: str, stride: int | None) -> tuple[int, int]:
    """Lookback and stride as whole numbers; the stride is 0 for the context types that have none."""
    if context_type not in CONTEXT_TYPES:
        raise ValueError(f"context_type: expected one of {', '.join(CONTEXT_TYPES)}, got {context_type!r}.")
    stride = (lookback if stride is None else stride) if context_type == "strided" else 0
    for name, value, least in (("lookback", lookback, 1), ("stride", stride, int(context_type == "strided"))):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise ValueError(f"{name}: expected a whole number of tokens of 1 or more, got {value!r}.")
    return int(lookback), int(stride)


@dataclass(frozen=True, eq=False)
class StoryTokens:
    """A story's tokens and where its words end among them.

    Attributes
    ----------
    ids : array, (n_tokens,) int32
    ends : array, (n_words,) int
        One past each word's last token, among `own` where the word is in it; as before for a word without
        tokens of its own, -1 for one without text.
    own : mapping of word to int32 array
        Words whose last token goes on beyond them (some tokenizers merge across
        blanks): the tokens of the story up to that word alone.
    """

    ids: Array
    ends: Array
    own: dict[int, Array]


def tokenize_words(words: Sequence[str], tokenizer: Any) -> StoryTokens:
    """Tokens of the words joined by blanks, and each word's place among them.

    Raises
    ------
    ValueError
        No words with text, or what is no text: None, NaN, halves of characters.
    """
    _refuse_no_text(words, "words")
    texts = [" ".join(str(word).split()) for word in words]
    spoken = [i for i, text in enumerate(texts) if text]
    if not spoken:
        raise ValueError(
            f"context_windows: expected a story with words, got {len(texts)} words, none with text."
        )
    find = _ends_from_offsets if getattr(tokenizer, "is_fast", False) else _ends_from_prefixes
    ids, ends_spoken, own = find([texts[i] for i in spoken], tokenizer)
    ends = np.full(len(texts), -1)
    ends[spoken] = ends_spoken
    return StoryTokens(ids, ends, {spoken[i]: tokens for i, tokens in own.items()})


def _refuse_no_text(texts: Sequence[str], what: str) -> None:
    """A ValueError for the first of the texts that is none, or that holds what no encoding can."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"{what}: expected texts, got {text!r} (number {i}); write '' where there is none."
            )
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{what}: number {i}, {text!r}, holds half of a character; was it read in another encoding?"
            ) from None


def encode(text: str, tokenizer: Any) -> Array:
    """(n_tokens,) int32: a text's tokens without any special ones."""
    return np.array(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], dtype=np.int32)


def _ends_from_offsets(texts: list[str], tokenizer: Any) -> tuple[Array, Array, dict[int, Array]]:
    text = " ".join(texts)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.array(encoded["input_ids"], dtype=np.int32)
    spans = np.array(encoded["offset_mapping"], dtype=np.int64).reshape(-1, 2)
    word_stops = np.cumsum([len(t) + 1 for t in texts]) - 1
    # tokens may stand for nothing visible and then hold an empty span; starts never run backwards
    ends = np.searchsorted(np.maximum.accumulate(spans[:, 0]), word_stops, side="left")
    reach = np.concatenate([[0], np.maximum.accumulate(spans[:, 1])])[ends]
    merged = np.flatnonzero(reach > word_stops)
    own = {int(i): encode(text[: word_stops[i]], tokenizer) for i in merged}
    ends[list(own)] = [len(tokens) for tokens in own.values()]
    return ids, ends, own


def _ends_from_prefixes(texts: list[str], tokenizer: Any) -> tuple[Array, Array, dict[int, Array]]:
    ids = encode(" ".join(texts), tokenizer)
    pieces = [encode(text if i == 0 else " " + text, tokenizer) for i, text in enumerate(texts)]
    if np.array_equal(np.concatenate(pieces), ids):
        return ids, np.cumsum([len(piece) for piece in pieces]), {}
    # word by word these are other tokens than in the story: ask for every beginning of the story
    prefixes = [encode(" ".join(texts[: i + 1]), tokenizer) for i in range(len(texts))]
    own = {i: p for i, p in enumerate(prefixes) if not np.array_equal(p, ids[: len(p)])}
    return ids, np.array([len(p) for p in prefixes]), own


def _fullcontext(ends: Array, lookback: int, stride: int) -> Array:
    return np.maximum(ends - lookback, 0)


def _nocontext(ends: Array, lookback: int, stride: int) -> Array:
    starts, start, previous = np.zeros_like(ends), 0, 0
    for i, end in enumerate(ends):
        if end - start > lookback:
            start = previous
        starts[i] = start
        previous = max(previous, end)
    return starts


def _halfcontext(ends: Array, lookback: int, stride: int) -> Array:
    starts, start, half = np.zeros_like(ends), 0, max(1, lookback // 2)
    for i, end in enumerate(ends):
        start += half * max(0, -(-(end - start - lookback) // half))
        starts[i] = start
    return starts


def _strided(ends: Array, lookback: int, stride: int) -> Array:
    return stride * np.maximum(-(-(ends - lookback) // stride) - 1, 0)


CONTEXT_TYPES: dict[str, Callable[[Array, int, int], Array]] = {
    "fullcontext": _fullcontext,
    "nocontext": _nocontext,
    "halfcontext": _halfcontext,
    "strided": _strided,
}


def _windows_from_starts(tokens: StoryTokens, starts: Array, *, longest: int, context_type: str) -> Windows:
    """Group words by their window's first token; a word longer than its window keeps its last tokens."""
    # a word without tokens in front of it, or without text, has no window
    has_window = tokens.ends > 0
    starts = np.maximum(starts, tokens.ends - longest)
    shared = has_window & ~np.isin(np.arange(len(starts)), list(tokens.own))
    first, group = np.unique(starts[shared], return_inverse=True)
    last = np.zeros(len(first), dtype=int)
    np.maximum.at(last, group, tokens.ends[shared])
    segments = [tokens.ids[start:end] for start, end in zip(first, last, strict=True)]
    segment, stop = np.full(len(starts), -1), np.zeros(len(starts), dtype=int)
    segment[shared], stop[shared] = group, tokens.ends[shared] - starts[shared]
    for word, ids in tokens.own.items():
        window = ids[starts[word] :][-longest:]
        if len(window):
            segment[word], stop[word] = len(segments), len(window)
            segments.append(window)
    return Windows(tuple(segments), segment, stop, context_type)


def stored_windows(texts: Sequence[str], tokenizer: Any, *, longest: int | None = None) -> Windows:
    """Windows from one text per word, as they came with an assembly; an empty text is no window.

    A text that goes on where the text before it ended shares its segment, where its tokens do too. Texts of
    more than `longest` tokens keep their last ones, with a warning.
    """
    _refuse_no_text(texts, "contexts")
    filled = [i for i, text in enumerate(texts) if text]
    encoded = _encode_all([texts[i] for i in filled], tokenizer)
    too_long = sum(len(ids) > longest for ids in encoded) if longest else 0
    if too_long:
        _progress.warn(
            f"{too_long} of {len(texts)} stored windows have more than the {longest} tokens the model can "
            f"read; they begin later.",
            stacklevel=2,
        )
        encoded = [ids[-longest:] for ids in encoded]
    segments: list[Array] = []
    segment, stop = np.full(len(texts), -1), np.zeros(len(texts), dtype=int)
    for word, ids in zip(filled, encoded, strict=True):
        if len(ids) == 0:
            continue
        if segments and np.array_equal(ids[: len(segments[-1])], segments[-1]):
            segments[-1] = ids
        else:
            segments.append(ids)
        segment[word], stop[word] = len(segments) - 1, len(ids)
    return Windows(tuple(segments), segment, stop, "stored")


def _encode_all(texts: list[str], tokenizer: Any) -> list[Array]:
    if not texts:
        return []
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return [np.array(ids, dtype=np.int32) for ids in encoded]
