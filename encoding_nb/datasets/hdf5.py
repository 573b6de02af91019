"""This package's own file of an assembly: HDF5, read story by story, and nothing in it is ever run.

Numbers are plain data sets, compressed in chunks of rows, each with HDF5's own checksum; all names and texts are
one JSON text. The rest of the file is checked by its head before the HDF5 library looks at it.

The head is one line of JSON in HDF5's user block: format, version, the file's size, where the blocks of BOLD lie, and
a BLAKE2b digest of everything else after the head, that is, of all that says how to find and read them (a block has
its own checksum in HDF5). The digest is quick for files of any size, and no damaged file reaches the HDF5 library,
which is known to hang or crash on some (github.com/HDFGroup/hdf5/issues). A digest finds damage; it does not make a
file that somebody built with intent harmless to that library.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .._validation import require_path
from ..assembly import Array, ArrayLike, Assembly, LazyArray, Story, Surface, Words, require_assembly

if TYPE_CHECKING:
    import h5py


SUFFIXES = (".h5", ".hdf5")
CHUNK_BYTES = 2**21
READ_ROWS = 64  # copied at a time
_ARRAY = "array in data set"  # the key under which JSON names an array
_META_BYTES = 2**28  # more text than this is no assembly


def recognises(source: Path) -> bool:
    """Whether a path is for `load`: by its ending."""
    return source.suffix.lower() in SUFFIXES


# ---------------------------------------------------------------------- writing


def save_assembly(assembly: Assembly, path: str | Path) -> Path:
    """Write an assembly to one HDF5 file, story by story, so that any size fits in memory.

    Written under a temporary name and moved into place. BOLD and repeats are stored as float32, other arrays as
    they are.

    Returns
    -------
    Path
        `path`; `load_assembly` opens it.

    Raises
    ------
    ValueError
        A name that does not end in .h5 or .hdf5, or a value in `truth` or a story's `extras` that is neither
        array, number, text, list nor mapping.
    TypeError
        An `assembly` or a `path` that is none.
    """
    import h5py

    require_assembly(assembly, "save_assembly")
    path = require_path(path, "save_assembly")
    if not recognises(path):
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}; try {path.stem}.h5.")
    path.parent.mkdir(parents=True, exist_ok=True)
    n_chunks = sum(map(_n_chunks, assembly.stories.values()))
    head_bytes = room_for(n_chunks)
    with _draft(path) as draft:
        with h5py.File(draft, "w", libver=("v110", "v110"), userblock_size=head_bytes) as file:
            _write(file, assembly)
        write_head(draft, _blocks(draft), head_bytes)
    return path


@contextlib.contextmanager
def _draft(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=".part")
    os.close(handle)
    draft = Path(name)
    try:
        yield draft
        draft.chmod(0o644)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: h5py.File, assembly: Assembly) -> None:
    arrays = file.create_group("arrays")

    def pack(value: Any, where: str) -> Any:
        if isinstance(value, (np.ndarray, LazyArray)):
            name = str(len(arrays))
            arrays.create_dataset(name, data=np.asarray(value))
            return {_ARRAY: name}
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, (str, bool, int, float)):
            return value
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            return {key: pack(item, f"{where}, {key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [pack(item, where) for item in value]
        raise ValueError(f"{where}: expected arrays, numbers, texts, lists or mappings, got {type(value)}.")

    stories = []
    for number, story in enumerate(assembly.stories.values()):
        group = file.create_group(f"bold/{number}")
        for name, values in (("bold", story.bold), ("repeats", story.repeats)):
            if values is not None:
                _write_rows(group, name, values)
        stories.append(
            {
                "name": story.name,
                "words": list(story.words.text),
                "onsets": pack(story.words.onsets, story.name),
                "offsets": pack(story.words.offsets, story.name),
                "tr_times": pack(story.tr_times, story.name),
                "contexts": None
                if story.contexts is None
                else {k: list(v) for k, v in story.contexts.items()},
                "extras": pack(story.extras, f"{story.name}, extras"),
            }
        )
    surface = assembly.surface
    meta = {
        "subject": assembly.subject,
        "tr": float(assembly.tr),
        "test_stories": list(assembly.test_stories),
        "surface": surface and [surface.subject, surface.transform, surface.mask, surface.store],
        "rois": pack(assembly.rois, "rois"),
        "voxel_names": None if assembly.voxel_names is None else list(assembly.voxel_names),
        "truth": pack(assembly.truth, "truth"),
        "stories": stories,
    }
    text = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    file.create_dataset("meta", data=text, compression="gzip")


def _chunk(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Rows of all voxels, as many as come near to `CHUNK_BYTES`."""
    rows = max(1, min(shape[-2], CHUNK_BYTES // (4 * max(shape[-1], 1))))
    return (*(1 for _ in shape[:-2]), rows, max(shape[-1], 1))


def _n_chunks(story: Story) -> int:
    shapes = [a.shape for a in (story.bold, story.repeats) if a is not None]
    return sum(int(np.prod([-(-n // c) for n, c in zip(s, _chunk(tuple(s)), strict=True)])) for s in shapes)


def _write_rows(group: h5py.Group, name: str, values: ArrayLike) -> None:
    """BOLD (rows, voxels) or repeats (repeats, rows, voxels), without holding more than one of a repeat."""
    shape = tuple(int(n) for n in values.shape)
    stored = group.create_dataset(
        name, shape, np.float32, chunks=_chunk(shape), compression="gzip", compression_opts=1, shuffle=True,
        fletcher32=True,
    )  # fmt: skip
    for repeat in range(shape[0]) if len(shape) == 3 else [...]:
        block = np.asarray(values[repeat] if len(shape) == 3 else values[:], dtype=np.float32)
        for start in range(0, len(block), READ_ROWS * stored.chunks[-2]):
            rows = slice(start, start + READ_ROWS * stored.chunks[-2])
            stored[(repeat, rows) if len(shape) == 3 else rows] = block[rows]


def _blocks(path: Path) -> list[tuple[int, int]]:
    """(start, size) in the file of each chunk of BOLD and of repeats."""
    import h5py

    blocks: list[tuple[int, int]] = []
    with h5py.File(path, "r") as file, path.open("rb") as raw:
        for group in file["bold"].values():
            for stored in group.values():
                # versions of HDF5 count a chunk's place from the file's start or from the head's end
                first = stored.id.get_chunk_info(0)
                raw.seek(first.byte_offset)
                _, content = stored.id.read_direct_chunk(first.chunk_offset)
                shift = 0 if raw.read(first.size) == content else file.userblock_size
                infos = map(stored.id.get_chunk_info, range(stored.id.get_num_chunks()))
                blocks += [(int(info.byte_offset) + shift, int(info.size)) for info in infos]
    return blocks


# ---------------------------------------------------------------------- reading


def load(source: Path, *, stories: Iterable[str] | None = None) -> Assembly:
    """Open what `save_assembly` wrote; BOLD is read when it is indexed.

    Parameters
    ----------
    source : file
    stories : names, optional
        Keep only these, in the file's order.

    Raises
    ------
    ValueError
        Another kind of file, a newer version, damage, or a story that is not there.
    """
    check_head(source)
    try:
        return _read(source, None if stories is None else list(stories))
    except (AttributeError, KeyError, LookupError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(f"{source}: the assembly in it makes no sense ({error}); write it again.") from error


def _read(source: Path, names: list[str] | None) -> Assembly:
    import h5py

    with h5py.File(source, "r", locking="best-effort") as file:
        if file["meta"].size > _META_BYTES:
            raise ValueError(f"{source}: {file['meta'].size} bytes of text are no assembly.")
        meta = json.loads(file["meta"][:].tobytes())
        arrays = file["arrays"]

        def unpack(value: Any) -> Any:
            if isinstance(value, dict):
                if _ARRAY in value:
                    return arrays[value[_ARRAY]][()]
                return {key: unpack(item) for key, item in value.items()}
            return [unpack(item) for item in value] if isinstance(value, list) else value

        there = [story["name"] for story in meta["stories"]]
        unknown = [name for name in names or () if name not in there]
        if unknown or names == []:
            raise ValueError(f"No story {', '.join(unknown)!r} in {source}; it has {', '.join(there)}.")
        stories = {
            story["name"]: _read_story(file, source, number, story, unpack)
            for number, story in enumerate(meta["stories"])
            if names is None or story["name"] in names
        }
        voxel_names = meta["voxel_names"]
        return Assembly(
            subject=meta["subject"],
            tr=meta["tr"],
            stories=stories,
            test_stories=tuple(name for name in meta["test_stories"] if name in stories),
            surface=_read_surface(meta["surface"]),
            rois=unpack(meta["rois"]),
            voxel_names=None if voxel_names is None else tuple(voxel_names),
            truth=unpack(meta["truth"]),
        )


def _read_surface(parts: list[str | None] | None) -> Surface | None:
    if not parts:
        return None
    surface = Surface(*parts)
    if surface.store is not None and not (Path(surface.store) / surface.subject).is_dir():
        warnings.warn(
            f"The surface of {surface.subject} is not at {surface.store} any more; pycortex's own store is used.",
            stacklevel=5,
        )
        return Surface(surface.subject, surface.transform, surface.mask)
    return surface


def _read_story(file: h5py.File, source: Path, number: int, story: Mapping[str, Any], unpack: Any) -> Story:
    group = file[f"bold/{number}"]
    contexts = story["contexts"]
    return Story(
        name=story["name"],
        words=Words(tuple(story["words"]), unpack(story["onsets"]), unpack(story["offsets"])),
        tr_times=unpack(story["tr_times"]),
        bold=_lazy(source, group["bold"]),
        repeats=_lazy(source, group["repeats"]) if "repeats" in group else None,
        contexts=None if contexts is None else {kind: tuple(texts) for kind, texts in contexts.items()},
        extras=unpack(story["extras"]),
    )


def _lazy(source: Path, stored: h5py.Dataset) -> LazyArray:
    return LazyArray(stored.shape, stored.dtype, partial(_read_rows, source, stored.name))


def _read_rows(source: Path, name: str, key: tuple[int | slice, ...]) -> Array:
    import h5py

    try:
        with h5py.File(source, "r", locking="best-effort") as file:
            return np.asarray(file[name][key])
    except (OSError, KeyError) as error:
        raise ValueError(f"{source}: {name} cannot be read ({error}); the file is damaged.") from error


FORMAT = "encoding_nb assembly"
VERSION = 1
_MOST_BYTES = 2**26


def room_for(n_blocks: int) -> int:
    """Bytes of a head for this many blocks: a power of two, as HDF5 wants it."""
    return 1 << (1024 + 48 * n_blocks).bit_length()


def write_head(draft: Path, blocks: Sequence[tuple[int, int]], head_bytes: int) -> None:
    """Fill the head of a file whose HDF5 part is written and closed; `blocks` are (start, size) in the file."""
    size = draft.stat().st_size
    blocks = sorted(blocks)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "size": size,
        "head_bytes": head_bytes,
        "blocks": blocks,
    }
    head["blake2b"] = _digest(draft, head)
    text = json.dumps(head).encode()
    if len(text) >= head_bytes:
        raise ValueError(f"{draft}: the head needs {len(text)} of {head_bytes} bytes.")
    with draft.open("r+b") as file:
        file.write(text.ljust(head_bytes - 1) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _digest(path: Path, head: Mapping[str, Any]) -> str:
    """BLAKE2b of the head's own numbers and of everything behind the head that is no block of BOLD."""
    digest = blake2b(json.dumps([head["version"], head["size"], head["blocks"]]).encode(), digest_size=16)
    with path.open("rb") as file:
        at = head["head_bytes"]
        for start, n in [*head["blocks"], (head["size"], 0)]:
            file.seek(at)
            while at < start:
                piece = file.read(min(start - at, 2**20))
                if not piece:
                    return ""
                digest.update(piece)
                at += len(piece)
            at = start + n
    return digest.hexdigest()


def check_head(source: Path) -> None:
    """Refuse a file that is not what `save_assembly` wrote, byte for byte but for its blocks of BOLD.

    Raises
    ------
    ValueError
        Another kind of file, another version, a file that is cut off or damaged.
    """
    with source.open("rb") as file:
        start = file.read(512)
        if start.startswith(b"\x89HDF"):
            raise ValueError(
                f"{source}: expected a file written by save_assembly, got another HDF5 file; a ds003020 story is "
                f"opened by its data set's folder."
            )
        text = start + file.read(_head_bytes(start) - 512)
    try:
        head = json.loads(text)
        good = head["format"] == FORMAT and type(head["version"]) is int
    except (ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good:
        raise ValueError(
            f"{source}: expected a file written by save_assembly; its head is another or damaged."
        )
    if head["version"] != VERSION:
        raise ValueError(
            f"{source}: it has format version {head['version']}, this package reads {VERSION}; update encoding_nb."
        )
    if not _head_is_sound(head) or head["size"] != source.stat().st_size:
        raise ValueError(
            f"{source}: expected {head.get('size')} bytes, got {source.stat().st_size}; it is cut off or damaged, "
            f"copy it again."
        )
    if _digest(source, head) != head.get("blake2b"):
        raise ValueError(f"{source}: its checksum is wrong; it is damaged, copy it again.")


def _head_bytes(start: bytes) -> int:
    """Length of the head; what is no head is read to 512 bytes only."""
    key = b'"head_bytes": '
    if FORMAT.encode() not in start or key not in start:
        return 512
    digits = start[start.index(key) + len(key) :].split(b",")[0]
    return max(512, min(int(digits), 2**26)) if digits.isdigit() and len(digits) < 10 else 512


def _head_is_sound(head: Mapping[str, Any]) -> bool:
    blocks, size, at = head.get("blocks"), head.get("size"), head.get("head_bytes")
    if type(size) is not int or type(at) is not int or not isinstance(blocks, list):
        return False
    for block in blocks:
        if not isinstance(block, list) or len(block) != 2 or not all(type(n) is int for n in block):
            return False
        if not at <= block[0] <= block[0] + block[1] <= size:
            return False
        at = block[0] + block[1]
    return True
