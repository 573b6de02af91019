"""Files of word vectors, as word2vec, GloVe, fastText and gensim's `save_word2vec_format` write them.

Text or binary, gzipped or not. gensim's `.kv` and `.model` files are pickles and are not opened.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np

from .._validation import as_path, check_file

Array = np.ndarray


def read_word_vectors(path: str | Path, words: Iterable[str]) -> dict[str, Array]:
    """The vectors of `words` in a file, {word: (width,) float32}; words that are not in it are left out.

    A word that is not in the file is looked for in lower case too.

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; not a file of word vectors, with the line that cannot be read; a file that is cut off.
    TypeError
        `path` is not a path.
    """
    path = check_file(as_path(path, "read_word_vectors"))
    wanted = {form for word in words for form in (word, word.lower())}
    with _opened(path) as file:
        first = file.readline()
        if first.startswith(b"\x80"):
            raise ValueError(
                f"{path} is a pickle, which is not opened because it could run any code; write the vectors with "
                f"gensim's save_word2vec_format and give that file."
            )
        read = _read_binary if path.suffixes and ".bin" in path.suffixes else _read_text
        found = dict(read(file, first, wanted, path))
    return {word: found[form] for word in words if (form := word if word in found else word.lower()) in found}


def _opened(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else open(path, "rb")


def _counts(line: bytes) -> tuple[int, int] | None:
    """(n_words, width) of a first line that holds these two numbers and nothing else."""
    parts = line.split()
    return (int(parts[0]), int(parts[1])) if len(parts) == 2 and all(p.isdigit() for p in parts) else None


def _read_text(file: IO[bytes], first: bytes, wanted: set[str], path: Path) -> Iterator[tuple[str, Array]]:
    counts = _counts(first)
    width = counts[1] if counts else len(first.split()) - 1
    lines = file if counts else (line for part in ([first], file) for line in part)
    number = 1
    for number, line in enumerate(lines, start=2 if counts else 1):
        # a word may hold blanks, so the numbers are counted from the end
        word, *numbers = line.decode("utf-8", errors="replace").rstrip().rsplit(" ", width)
        if word in wanted or len(numbers) != width or width < 2:
            try:
                vector = np.array(numbers, dtype=np.float32).reshape(max(width, 2))
            except ValueError as error:
                raise ValueError(
                    f"{path}, line {number}: expected a word and {max(width, 2)} numbers, got {line[:40]!r} ({error}); "
                    f"is this a word2vec or GloVe text file?"
                ) from error
            yield word, vector
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
    for i in range(n_words):
        word = _until_blank(file).lstrip(b"\n").decode("utf-8", errors="replace")
        raw = file.read(4 * width)
        if len(raw) < 4 * width:
            raise ValueError(f"{path}: expected {n_words} vectors of {width} numbers, but it ends after {i}.")
        if word in wanted:
            yield word, np.frombuffer(raw, dtype="<f4").copy()


def _until_blank(file: IO[bytes]) -> bytes:
    read = bytearray()
    while (byte := file.read(1)) not in (b" ", b""):
        read += byte
    return bytes(read)
