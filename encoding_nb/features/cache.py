"""Activations on disk, inside a joblib.Memory's folder: one file for each layer of a story.

The files live where `Memory.clear` and `Memory.reduce_size` find them, but are not pickles: a header in JSON,
the array's bytes, and a checksum of both, written under another name and then moved into place. A reader
therefore sees a whole file or none, and a damaged one is noticed, reported and treated as missing.
"""

from __future__ import annotations

import json
import os
import time
import uuid
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray

_MAGIC = b"encoding_nb activations 1\n"
_FOLDER = Path("encoding_nb") / "activations"
_SUFFIX = ".layer"
STORAGES = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}


class DamagedEntry(ValueError):
    """A file whose checksum or form is wrong."""


# ---------------------------------------------------------------------- one file


def pack(array: Array, header: Mapping[str, Any]) -> bytes:
    """A file's bytes: magic, header, array, checksum.

    Lossless. The bytes of equal weight of all numbers are put together; those that hold sign and exponent are
    alike and are compressed, the low ones are noise and are not tried.
    """
    array = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    planes = array.view(np.uint8).reshape(-1, array.itemsize).T
    packed = [np.ascontiguousarray(plane).tobytes() for plane in planes]
    sizes = []
    for i, raw in enumerate(packed):
        squeezed = _squeeze(raw) if i >= len(packed) - 2 else raw
        packed[i] = squeezed if len(squeezed) < len(raw) else raw
        sizes.append(len(packed[i]))
    described = {**header, "shape": array.shape, "stored": array.dtype.name, "planes": sizes}
    text = json.dumps(described, sort_keys=True).encode()
    body = b"".join([_MAGIC, len(text).to_bytes(4, "little"), text, *packed])
    return body + sha256(body).digest()


def _squeeze(raw: bytes) -> bytes:
    # repeats are rare in these bytes, uneven frequencies are not: Huffman codes alone are ten times faster
    compressor = zlib.compressobj(level=1, strategy=zlib.Z_HUFFMAN_ONLY)
    return compressor.compress(raw) + compressor.flush()


def unpack(raw: bytes) -> tuple[Array, dict[str, Any]]:
    """The array and header of a file's bytes.

    Raises
    ------
    DamagedEntry
    """
    if not raw.startswith(_MAGIC) or sha256(memoryview(raw)[:-32]).digest() != raw[-32:]:
        raise DamagedEntry(f"checksum of {len(raw)} bytes is wrong")
    header, start = _header(raw)
    dtype = STORAGES[header["stored"]]
    n_values = int(np.prod(header["shape"], dtype=np.int64))
    planes = np.empty((n_values, dtype.itemsize), dtype=np.uint8)
    for i, size in enumerate(header["planes"]):
        plane = raw[start : start + size]
        planes[:, i] = np.frombuffer(plane if size == n_values else zlib.decompress(plane), dtype=np.uint8)
        start += size
    return planes.view(dtype).reshape(header["shape"]), header


def _header(raw: bytes) -> tuple[dict[str, Any], int]:
    start = len(_MAGIC) + 4
    length = int.from_bytes(raw[len(_MAGIC) : start], "little")
    try:
        return json.loads(raw[start : start + length]), start + length
    except ValueError as error:
        raise DamagedEntry(f"header cannot be read ({error})") from error


# ---------------------------------------------------------------------- the store


def store_folder(memory: Any) -> Path | None:
    """The folder for activations within a joblib.Memory (or a path, its ~ written out); None where nothing is kept.

    Raises
    ------
    ValueError
        Neither a Memory nor a path.
    """
    if memory is None:
        return None
    if not isinstance(memory, (str, os.PathLike)):
        if not hasattr(memory, "store_backend"):
            raise ValueError(f"memory: expected a joblib.Memory or a folder, got {memory!r}.")
        if memory.store_backend is None:
            return None  # joblib.Memory(None)
        memory = memory.store_backend.location
    else:
        memory = os.path.expanduser(memory)
    # joblib adds "joblib" to a location given as str and not to one given as Path; here both are one cache
    root = Path(memory)
    return (root.parent if root.name == "joblib" else root) / "joblib" / _FOLDER


def entry_path(folder: Path, key: str, layer_idx: int) -> Path:
    """Where a layer of the story with this key lies.

    joblib takes folders named by 32 hexadecimal digits for its items: so they can be pruned by it too.
    """
    item = sha256(f"{key} {layer_idx}".encode()).hexdigest()[:32]
    return folder / f"story-{key[:32]}" / item / f"{layer_idx}{_SUFFIX}"


def read_layer(folder: Path, key: str, layer_idx: int) -> Array | None:
    """One layer's array, or None when it is not there or damaged (with a warning)."""
    path = entry_path(folder, key, layer_idx)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        warnings.warn(
            f"The cached activations {path} cannot be read ({error}); computing again.", stacklevel=2
        )
        return None
    try:
        array, header = unpack(raw)
        if header["key"] != key or header["layer"] != layer_idx:
            raise DamagedEntry("it belongs to other activations")
    except (DamagedEntry, KeyError, ValueError, zlib.error) as error:
        warnings.warn(f"The cached activations {path} are damaged ({error}); computing again.", stacklevel=2)
        return None
    _touch(path)
    return array


def _touch(path: Path) -> None:
    # the time of last use decides what is pruned; a folder that cannot be written to is as good as ever
    try:
        os.utime(path)
        os.utime(path.parent)
    except OSError:
        pass


def write_layer(folder: Path, key: str, layer_idx: int, array: Array, header: Mapping[str, Any]) -> bool:
    """Keep one layer; False, with a warning, when it cannot be written (full disk, no permission)."""
    path = entry_path(folder, key, layer_idx)
    temporary = path.with_name(f"{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(pack(array, {**header, "key": key, "layer": layer_idx}))
        os.replace(temporary, path)
        return True
    except OSError as error:
        with suppress(OSError):  # where a file stands in a folder's place, there is nothing to remove either
            temporary.unlink()
        warnings.warn(
            f"Activations could not be kept in {folder} ({error.strerror or error}); they are used now and "
            f"computed again next time. Free some space or give another folder.",
            stacklevel=2,
        )
        return False


# ---------------------------------------------------------------------- looking after it


@dataclass(frozen=True)
class CacheInfo:
    """What a cache holds: number of files (one per layer and story), bytes, and both by model."""

    n_entries: int = 0
    n_bytes: int = 0
    by_model: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.glob("story-*/*/*"):
        try:
            yield path, path.stat()
        except OSError:
            continue  # another process has just removed it


def _model_of(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return str(_header(file.read(4096))[0].get("model", "unknown"))
    except (OSError, DamagedEntry):
        return "damaged"


def cache_info(memory: Any) -> CacheInfo:
    """Entries and bytes of the activations kept in `memory`, in all and by model; reads headers only."""
    folder = store_folder(memory)
    by_model: dict[str, tuple[int, int]] = {}
    for path, status in _files(folder) if folder else ():
        model = _model_of(path) if path.suffix == _SUFFIX else "unfinished"
        n_entries, n_bytes = by_model.get(model, (0, 0))
        by_model[model] = (n_entries + 1, n_bytes + status.st_size)
    counts = list(by_model.values())
    return CacheInfo(sum(n for n, _ in counts), sum(b for _, b in counts), by_model)


def prune_cache(memory: Any, *, max_bytes: int) -> int:
    """Remove what was used longest ago until at most `max_bytes` are left; returns the bytes freed.

    What a killed process left half-written is removed first, once it is an hour old.
    """
    folder = store_folder(memory)
    files = sorted(_files(folder) if folder else (), key=lambda f: f[1].st_mtime)
    kept, freed = sum(status.st_size for _, status in files), 0
    stale = time.time() - 3600
    files.sort(key=lambda f: f[0].suffix == _SUFFIX)  # stable: unfinished ones first, each by age
    for path, status in files:
        unfinished = path.suffix != _SUFFIX
        if (unfinished and status.st_mtime < stale) or (not unfinished and kept - freed > max_bytes):
            freed += _remove(path, status.st_size)
    return freed


def _remove(path: Path, size: int) -> int:
    try:
        path.unlink()
    except OSError:
        return 0
    for folder in (path.parent, path.parent.parent):
        try:
            folder.rmdir()
        except OSError:
            break  # other layers are still there
    return size
