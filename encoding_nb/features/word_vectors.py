"""Files of word vectors, as word2vec, GloVe, fastText and gensim's `save_word2vec_format` write them.

Text or binary, gzipped or not. gensim's `.kv` and `.model` files are pickles and are not opened.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from .._validation import as_path, check_file, shorten

Array = np.ndarray


def read_word_vectors(path: str | Path, words: Iterable[str]) -> dict[str, Array]:
    """The vectors of `words` in a file, {word: (width,) float32}; words that are not in it are left out.

    A word that is not in the file is looked for in lower case too. If a word is there twice, the first one counts.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; not a file of word vectors, with the line that cannot be read; a file that is empty, cut off or
        damaged; a vector of a wanted word that holds NaN or infinite numbers.
    TypeError
        `path` is not a path.
    """
    path = check_file(as_path(path, "read_word_vectors"))
    wanted = {form for word in words for form in (word, word.lower())}
    found: dict[str, Array] = {}
    try:
        with _opened(path) as file:
            first = _line(file, path, 1).removeprefix(b"\xef\xbb\xbf")
            if not first:
                raise ValueError(f"{path}: expected word vectors, but the file is empty.")
            for start, problem in _OTHER_KINDS.items():
                if first.startswith(start):
                    raise ValueError(f"{path} is {problem}.")
            read = _read_binary if _is_binary(file, first, path) else _read_text
            for word, vector in read(file, first, wanted, path):
                if not np.isfinite(vector).all():
                    raise ValueError(
                        f"{path}: expected finite numbers, got {shorten(str(vector[~np.isfinite(vector)][0]))} in the "
                        f"vector of {word!r}; take the word out of the file, or get the file again."
                    )
                found.setdefault(word, vector)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the gzip file is cut off or damaged ({error}); copy it again.") from error
    return {word: found[form] for word in words if (form := word if word in found else word.lower()) in found}


# what a file of another kind begins with, and what to do with it
_OTHER_KINDS = {
    b"\x80": "a pickle, which is not opened because it could run any code; write the vectors with gensim's "
    "save_word2vec_format and give that file",
    b"\xba\x16\x4f\x2f": "a model of fastText (.bin); download its vectors as text (.vec), or write them with gensim's "
    "save_word2vec_format",
    b"\x89HDF": "an HDF5 file, such as english1000sm.hf5 of the Huth lab; write its words and vectors as text, a word "
    "and its numbers in each line",
    b"PK\x03\x04": "a zip archive; unzip it and give the file in it",
    b"/annex/objects/": "only a git-annex pointer: its content was not downloaded; run `git annex get` in a clone",
    b"version https://git-lfs": "only a Git LFS pointer: its content was not downloaded; run `git lfs pull` in the "
    "repository",
}
_MOST_IN_LINE = 2**22  # bytes; a line of 4,096 numbers has 60 thousand
_MOST_COLUMNS = 2**16
_MOST_IN_WORD = 2**16  # bytes
_NUMBERS = re.compile(rb"[ \t]*[-+]?(\d|\.\d)[-+.\deE]*[ \t]+[-+]?(\d|\.\d)")  # two, as texts


def _line(file: IO[bytes], path: Path, number: int) -> bytes:
    """The next line; empty at the end of the file."""
    line = file.readline(_MOST_IN_LINE + 1)
    if len(line) > _MOST_IN_LINE:
        raise ValueError(
            f"{path}, line {number}: expected a word and its numbers, got more than {_MOST_IN_LINE:,} bytes without an "
            f"end of the line; is this a file of word vectors?"
        )
    return line


def _is_binary(file: Any, first: bytes, path: Path) -> bool:
    """Whether vectors are stored as bytes, by the bytes after the first word; else by the name."""
    counts, (_, _, numbers) = _counts(first), file.peek(512).lstrip(b"\n").partition(b" ")
    if counts is None:
        return ".bin" in path.suffixes
    if ".bin" in path.suffixes and not _NUMBERS.match(numbers):
        return True
    numbers = numbers[: 4 * counts[1]]
    # text has no control characters; letters beyond ASCII only in the word of the next line
    return any(b < 9 or 13 < b < 32 for b in numbers) or any(b > 126 for b in numbers.partition(b"\n")[0])


def _opened(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else open(path, "rb")


def _counts(line: bytes) -> tuple[int, int] | None:
    """(n_words, width) of a first line that holds these two numbers and nothing else."""
    parts = line.split()
    if len(parts) != 2 or not all(part.isdigit() and len(part) < 12 for part in parts):
        return None
    return int(parts[0]), int(parts[1])


def _read_text(file: IO[bytes], first: bytes, wanted: set[str], path: Path) -> Iterator[tuple[str, Array]]:
    counts = _counts(first)
    width = counts[1] if counts else len(first.split()) - 1
    if width > _MOST_COLUMNS:
        raise ValueError(f"{path}, line 1: expected at most {_MOST_COLUMNS:,} columns, got {width:,}.")
    number = 1 if counts else 0
    line = b"" if counts else first
    while line := line or _line(file, path, number + 1):
        number += 1
        # a word may hold blanks, so the numbers are counted from the end
        start, *numbers = line.rsplit(None, width) or [b""]
        word = start.lstrip().decode("utf-8", errors="replace")
        # the numbers of the first word are always read: a file of another kind ends there
        if word in wanted or number == 1 + bool(counts) or len(numbers) != width or width < 2:
            try:
                with np.errstate(over="ignore"):  # becomes infinite, which is refused
                    vector = np.array(numbers, dtype=np.float32).reshape(max(width, 2))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: expected a word and {max(width, 2)} numbers, got {line[:40]!r} ({error}); "
                    f"is this a word2vec or GloVe text file?"
                ) from error
            yield word, vector
        line = b""
    if counts and number - 1 < counts[0]:
        raise ValueError(
            f"{path}: expected {counts[0]} vectors, as its first line says, but the file ends after {number - 1}; it "
            f"is cut off, copy it again."
        )


def _read_binary(file: IO[bytes], first: bytes, wanted: set[str], path: Path) -> Iterator[tuple[str, Array]]:
    counts = _counts(first)
    if counts is None:
        raise ValueError(f"{path}, line 1: expected the numbers of words and columns, got {first[:40]!r}.")
    n_words, width = counts
    if width > _MOST_COLUMNS:
        raise ValueError(f"{path}, line 1: expected at most {_MOST_COLUMNS:,} columns, got {width:,}.")
    for i in range(n_words):
        word = _until_blank(file, path, i).lstrip(b"\n").decode("utf-8", errors="replace")
        raw = file.read(4 * width)
        if len(raw) < 4 * width:
            raise ValueError(f"{path}: expected {n_words} vectors of {width} numbers, but it ends after {i}.")
        if word in wanted:
            yield word, np.frombuffer(raw, dtype="<f4").copy()


def _until_blank(file: IO[bytes], path: Path, number: int) -> bytes:
    read = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        read += byte
        if len(read) > _MOST_IN_WORD:
            raise ValueError(
                f"{path}, vector {number + 1}: expected a word and a blank, got more than {_MOST_IN_WORD:,} bytes "
                f"without a blank; is this a word2vec file?"
            )
    return bytes(read)
