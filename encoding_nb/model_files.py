"""The files of a model's folder: its weights, its tokenizer, and what tells it from any other."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

_LARGE_FILES = 1 << 27
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.tiktoken",
)


class ModelError(ValueError):
    """A model that cannot be had: unknown, not on this machine, damaged, or too large for it."""


def said(error: BaseException) -> str:
    """An error in some words: its first line, or its kind where it says nothing."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {short(lines[0], 160)}" if lines else type(error).__name__


def short(text: str, most: int = 80) -> str:
    """A text, cut after some letters so that a sentence can quote it."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def is_file(path: Path) -> bool:
    """Whether there is such a file; False for what cannot be a path."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a path can be
        return False


def is_folder(path: Path) -> bool:
    """Whether there is such a folder; False for what cannot be a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def has_weights(folder: Path) -> bool:
    """Whether a folder holds weight files."""
    return bool(weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """The files with the weights; none when one of several is missing (a download that stopped)."""
    # a link whose target was removed from the hub's cache is no file
    found = sorted(filter(is_file, folder.glob("*.safetensors")))
    found = found or sorted(filter(is_file, folder.glob("pytorch_model*.bin")))
    kind = "model.safetensors" if found and found[0].suffix == ".safetensors" else "pytorch_model.bin"
    index = folder / f"{kind}.index.json"
    if index.is_file():
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(
                f"{index}: expected the list of a model's weight files, and it cannot be read ({said(error)}); copy or "
                f"download the model again."
            ) from error
        if not parts <= {file.name for file in found}:
            return []
    return found


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds any tokenizer file; without one transformers makes a tokenizer without tokens."""
    return any(is_file(path) for pattern in _TOKENIZER_FILES for path in folder.glob(pattern))


def is_on_hub(folder: Path) -> bool:
    """Whether a folder is one of the hub's cache, which the hub can complete."""
    parts = folder.absolute().parts
    return len(parts) > 3 and parts[-2] == "snapshots" and parts[-3].startswith("models--")


# ---------------------------------------------------------------------- identity


def identity(folder: Path) -> str:
    """What sets a model's values apart: a hub model's name and commit, else a digest of its files."""
    parts = folder.absolute().parts
    if is_on_hub(folder):
        return f"{parts[-3].removeprefix('models--').replace('--', '/')}@{parts[-1]}"
    return f"sha256:{_digest(stamps_of(folder))}"


# path, size, and what changes when a file does: times of writing and of any change, and its number on the disk.
# The time of writing alone can be set back by whoever writes (a copy that keeps times does); that of any change not.
Stamp = tuple[str, int, int, int, int]


def stamps_of(folder: Path) -> tuple[Stamp, ...]:
    """Stamps of a model's files: the same as long as nobody wrote to them."""
    found = []
    for file in (folder / "config.json", *weight_files(folder)):
        status = file.stat()
        found.append(
            (
                str(file.absolute()),
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_ino,
            )
        )
    return tuple(found)


@lru_cache(maxsize=64)
def _digest(stamps: tuple[Stamp, ...]) -> str:
    """Digest of the files' names and contents; of large files it is remembered from kernel to kernel."""
    large = sum(size for _, size, *_ in stamps) > _LARGE_FILES
    stamp = sha256(json.dumps(stamps).encode()).hexdigest()
    noted = user_cache() / "digests" / stamp
    if large and noted.is_file():
        return noted.read_text()
    hashed = sha256()
    for path, size, *_ in stamps:
        hashed.update(f"{Path(path).name} {size}\n".encode())
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                hashed.update(chunk)
    if large:
        _note(noted, hashed.hexdigest())
    return hashed.hexdigest()


def _note(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text)
        os.replace(temporary, path)
    except OSError:
        pass  # it is worked out again next time


def user_cache() -> Path:
    """The folder for what can be made again: $ENCODING_NB_CACHE, else one in the user's cache."""
    given = os.environ.get("ENCODING_NB_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encoding_nb"
