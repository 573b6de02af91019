"""The words of a story as the token windows that a language model reads.

A window is the sequence of tokens that a model sees for one word; it ends with the word's last token. Windows that
begin at the same token share a *segment*, so that a causal model reads it once for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import _progress
from .._files import digest
from .._validation import check_choice, check_whole

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class TokenWindows:
    """The tokens a language model sees for each word of a story.

    The window of word i is ``segments[segment[i]][:stop[i]]``; its last token is the word's last token. The
    beginning-of-sequence token (BOS) is not in it; it is put in front when the model reads the window.

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

    def ids(self, word: int) -> Array:
        """Token ids of one word's window, without BOS; empty for a word without text."""
        if self.segment[word] < 0:
            return np.zeros(0, dtype=np.int32)
        return self.segments[self.segment[word]][: self.stop[word]]

    def one_by_one(self) -> TokenWindows:
        """The same windows, none sharing a segment: for models that look ahead within a window."""
        with_text = np.flatnonzero(self.segment >= 0)
        segment = np.full(len(self), -1)
        segment[with_text] = np.arange(len(with_text))
        return TokenWindows(tuple(self.ids(int(i)) for i in with_text), segment, self.stop, self.context_type)

    @cached_property
    def digest(self) -> str:
        """Hash of every word's window."""
        lengths = np.array([len(segment) for segment in self.segments])
        tokens = [segment.astype("<i4") for segment in self.segments]
        return digest([*(array.astype("<i8") for array in (lengths, self.segment, self.stop)), *tokens])


def context_windows(
    words: Sequence[str],
    tokenizer: Any,
    *,
    lookback: int,
    context_type: str,
    stride: int | None = None,
) -> TokenWindows:
    """The window of tokens that each word is read in.

    The story is its words with one blank between them, tokenised as a whole. Windows are counted in its tokens and can
    begin within a word.

    Parameters
    ----------
    words : (n_words,) str
        Empty words are counted but have no window; blanks within a word are reduced to one blank.
    tokenizer : Hugging Face tokenizer
    lookback : int, tokens
    context_type : one of `CONTEXT_TYPES`
        ``fullcontext``: the last `lookback` tokens. ``nocontext``: windows grow from a word's start until the next word
        would pass `lookback`; the next window starts with that word. ``halfcontext``: the same, but the start moves on
        by half of `lookback`. ``strided``, approximate: between `lookback` and `lookback + stride` tokens, with one
        start for all words of a stride.
    stride : int, tokens, optional
        For ``strided``; `lookback` where not given.

    Raises
    ------
    ValueError
        No words, an unknown context type, a lookback or stride below 1.
    """
    lookback, stride = check_context(lookback=lookback, context_type=context_type, stride=stride)
    tokens = tokenize_words(words, tokenizer)
    longest = lookback + stride
    # a word longer than its window keeps its last tokens
    starts = np.maximum(CONTEXT_TYPES[context_type](tokens.ends, lookback, stride), tokens.ends - longest)
    # a word without tokens in front of it, or without text, has no window
    shared = (tokens.ends > 0) & ~np.isin(np.arange(len(starts)), list(tokens.own))
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
    return TokenWindows(tuple(segments), segment, stop, context_type)


def check_context(*, lookback: int, context_type: str, stride: int | None) -> tuple[int, int]:
    """Lookback and stride as whole numbers; the stride is 0 for the context types that have none."""
    check_choice(context_type, "context_type", CONTEXT_TYPES)
    lookback = check_whole(lookback, "lookback (in tokens)", least=1)
    if context_type != "strided":
        return lookback, 0
    return lookback, check_whole(lookback if stride is None else stride, "stride (in tokens)", least=1)


@dataclass(frozen=True, eq=False)
class StoryTokens:
    """A story's tokens and where its words end among them.

    Attributes
    ----------
    ids : array, (n_tokens,) int32
    ends : array, (n_words,) int
        One past each word's last token (in `own` for the words there); the previous word's for a word without tokens,
        -1 for one without text.
    own : mapping of word to int32 array
        Words whose last token extends into the next word (some tokenizers merge across blanks): the tokens of the story
        up to that word alone.
    """

    ids: Array
    ends: Array
    own: dict[int, Array]


def tokenize_words(words: Sequence[str], tokenizer: Any) -> StoryTokens:
    """Tokens of the words joined by blanks, and each word's place among them.

    Parameters
    ----------
    words : (n_words,) strings
    tokenizer : from `features.load_tokenizer`, or any tokenizer of transformers

    Returns
    -------
    StoryTokens

    Raises
    ------
    ValueError
        No words with text, or a word that is not text: None, NaN, halves of characters.
    """
    _check_texts(words, "words")
    texts = [" ".join(str(word).split()) for word in words]
    spoken = [i for i, text in enumerate(texts) if text]
    if not spoken:
        raise ValueError(f"words: expected a story with words, got {len(texts)} words, none with text.")
    find = _ends_from_offsets if getattr(tokenizer, "is_fast", False) else _ends_from_prefixes
    ids, ends_spoken, own = find([texts[i] for i in spoken], tokenizer)
    ends = np.full(len(texts), -1)
    ends[spoken] = ends_spoken
    return StoryTokens(ids, ends, {spoken[i]: tokens for i, tokens in own.items()})


def _check_texts(texts: Sequence[str], what: str) -> None:
    """A ValueError for the first of the texts that is not a text, or that cannot be encoded."""
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"{what}: expected texts, got {text!r} (number {i}); write '' for an empty one.")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{what}: number {i}, {text!r}, contains half of a character; was it read in the wrong encoding?"
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
    # a token can be invisible and then has an empty span; starts must not decrease
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
    # word by word the tokens differ from the story's: encode every beginning of the story
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


def stored_windows(texts: Sequence[str], tokenizer: Any, *, longest: int | None = None) -> TokenWindows:
    """Windows from one text per word, as they came with an assembly; an empty text has no window.

    A text that continues the text before it shares its segment, if its tokens do too. Texts of more than `longest`
    tokens keep their last ones, with a warning.
    """
    _check_texts(texts, "contexts")
    filled = [i for i, text in enumerate(texts) if text]
    given = [texts[i] for i in filled]
    encoded = tokenizer(given, add_special_tokens=False, verbose=False)["input_ids"] if given else []
    encoded = [np.array(ids, dtype=np.int32) for ids in encoded]
    too_long = sum(len(ids) > longest for ids in encoded) if longest else 0
    if too_long:
        _progress.warn(
            f"{too_long} of {len(texts)} stored windows have more than the {longest} tokens that the model can read; "
            f"they begin later.",
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
    return TokenWindows(tuple(segments), segment, stop, "stored")
