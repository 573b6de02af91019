"""Feature arrays on disk, inside a joblib.Memory's folder: one zip file for each array.

Such a file has a `header.json` (what the array is, its shape and its dtype) and the array's bytes, with zip's checksum
of each; there are no pickles in it. It is written under another name and then moved into place, so a reader sees a
whole file or none. A damaged file is reported and treated as missing.

The finished part of a story whose work was interrupted is kept too, in such files with a "piece" in their header.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile

import numpy as np

from .. import _progress
from .._files import digest, new_file
from .._validation import describe, error_text

Array = np.ndarray

_FOLDER = Path("encoding_nb") / "activations"
_FILE = "array.zip"
_OLDER = ".layer"  # files of the earlier format are counted and removed, but not read
STORAGES: dict[str, np.dtype] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


def store_folder(memory: Any) -> Path | None:
    """The folder for feature arrays within a joblib.Memory or a path (~ is expanded); None where nothing is kept.

    Raises
    ------
    ValueError
        Neither a Memory nor a path.
    """
    if memory is None:
        return None
    if not isinstance(memory, (str, os.PathLike)):
        if not hasattr(memory, "store_backend"):
            raise ValueError(f"memory: expected a joblib.Memory or a folder, got {describe(memory)}.")
        if memory.store_backend is None:
            return None  # joblib.Memory(None)
        memory = memory.store_backend.location
    # joblib adds "joblib" to a location given as str and not to one given as Path; here both are one cache
    root = Path(memory).expanduser()
    return (root.parent if root.name == "joblib" else root) / "joblib" / _FOLDER


def entry_path(folder: Path, key: str) -> Path:
    """The file of the array with this key.

    joblib treats folders with a name of 32 hexadecimal digits as its items, so `Memory.reduce_size` removes these too.
    """
    return folder / digest([key])[:32] / _FILE


def write_array(folder: Path, key: str, array: Array, header: Mapping[str, Any]) -> bool:
    """Keep an array; False, with a warning, where it cannot be written (full disk, no permission).

    Parameters
    ----------
    folder : Path
        See `store_folder`.
    key : str
        All that decides the array's values.
    array : array of any shape, float32 or float16
        Kept without loss. The first bytes of all numbers lie together, the second ones, and so on. Only the bytes with
        sign and exponent repeat and are compressed; the others are noise.
    header : mapping
        What the array is, in values that JSON can write; "model" is what `cache_info` counts by.
    """
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    described = {**header, "key": key, "shape": array.shape, "dtype": array.dtype.str}
    try:
        with new_file(entry_path(folder, key)) as draft, ZipFile(draft, "w") as file:
            file.writestr("header.json", json.dumps(described))
            for i, plane in enumerate(array.reshape(-1, 1).view(np.uint8).T):
                how = ZIP_DEFLATED if i == array.itemsize - 1 else ZIP_STORED
                file.writestr(f"byte{i}", plane.tobytes(), how, compresslevel=1)
        return True
    except OSError as error:
        _progress.warn(
            f"Features could not be kept in {folder} ({error.strerror or error}). They are used now and computed "
            f"again next time; free some space or give another folder.",
            stacklevel=2,
        )
        return False


def read_array(folder: Path, key: str) -> tuple[Array, dict[str, Any]] | None:
    """An array and its header; None where it is missing, or damaged (with a warning)."""
    path = entry_path(folder, key)
    try:
        with ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
            dtype = np.dtype(header["dtype"])
            planes = [np.frombuffer(file.read(f"byte{i}"), np.uint8) for i in range(dtype.itemsize)]
        if header["key"] != key:
            raise ValueError("it holds other features")
        array = np.stack(planes, axis=-1).view(dtype).reshape(header["shape"])
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # noqa: BLE001 - zipfile and zlib raise many kinds for a damaged file
        _progress.warn(
            f"{path} cannot be read ({error_text(error)}); computing its features again.", stacklevel=2
        )
        return None
    with suppress(OSError):  # the time of last use decides what is pruned; a read-only folder is fine too
        os.utime(path)
        os.utime(path.parent)
    return array, header


def remove_array(folder: Path, key: str) -> bool:
    """Remove an array; False where there is none."""
    return _remove(entry_path(folder, key))


# ---------------------------------------------------------------------- size and pruning


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds: number of files (one for each layer of a story), bytes, and (files, bytes) by model.

    Under "unfinished" are pieces of stories whose work was interrupted, and files of processes that were killed.
    """

    n_entries: int = 0
    n_bytes: int = 0
    by_model: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def cache_info(memory: Any) -> CacheInfo:
    """Entries and bytes of the feature arrays kept in `memory`, in all and by model; reads only headers."""
    by_model: dict[str, tuple[int, int]] = {}
    for path, status in _files(store_folder(memory)):
        model = _model_of(path)
        n_entries, n_bytes = by_model.get(model, (0, 0))
        by_model[model] = (n_entries + 1, n_bytes + status.st_size)
    counts = by_model.values()
    return CacheInfo(sum(n for n, _ in counts), sum(b for _, b in counts), by_model)


def prune_cache(memory: Any, *, max_bytes: int) -> int:
    """Remove the least recently used files until at most `max_bytes` are left; returns the bytes freed."""
    files = sorted(_files(store_folder(memory)), key=lambda file: file[1].st_mtime)
    n_bytes, freed = sum(status.st_size for _, status in files), 0
    for path, status in files:
        if n_bytes - freed <= max_bytes:
            break
        freed += status.st_size * _remove(path)
    return freed


def _remove(path: Path) -> bool:
    """Remove a file, and its folder if it is empty then; False where another process has just removed it."""
    removed = False
    with suppress(OSError):
        path.unlink()
        removed = True
        path.parent.rmdir()
        path.parent.parent.rmdir()  # an older version's folder of a story
    return removed


def _files(folder: Path | None) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.rglob("*") if folder else ():
        with suppress(OSError):  # another process has just removed it
            if path.is_file():
                yield path, path.stat()


def _model_of(path: Path) -> str:
    if path.name != _FILE:
        return "older version" if path.suffix == _OLDER else "unfinished"
    try:
        with ZipFile(path) as file:
            header = json.loads(file.read("header.json"))
        return "unfinished" if "piece" in header else str(header.get("model", "unknown"))
    except Exception:  # noqa: BLE001 - zipfile and zlib raise many kinds for a damaged file
        return "damaged"
