"""Save an assembly to one HDF5 file, and read it story by story; nothing in the file is executed.

Numbers are data sets: `bold/<number>/bold` and `bold/<number>/repeats` for each story, and `arrays/<number>` for all
others. The data set `meta` is a JSON text with everything else: names, words, and which array belongs where.

HDF5 itself finds damage. From version 1.10 of its format on, all that says where values are has a checksum, and here
every data set is stored in chunks with checksums of their own (Fletcher-32 in HDF5, Adler-32 in gzip). Texts of
variable length, as h5py writes for a str, would spoil that: they are stored without a checksum, and one changed byte
there makes the library hang.

Files of version 1, which began with a checksum in HDF5's user block, are still read.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _progress
from .._files import new_file
from .._validation import as_path, shorten
from ..assembly import (
    Array,
    ArrayLike,
    Assembly,
    LazyArray,
    Story,
    Surface,
    Words,
    check_assembly,
    check_words_in_run,
)
from ._checks import Stamp, check_unchanged, chosen, stamp_of

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5")
FORMAT, VERSION = b"encoding_nb assembly", 2
CHUNK_BYTES = 2**21
CHECKED = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
_ARRAY = "array in data set"  # the key under which JSON names an array
_MOST_FOR_A_BYTE = 2000  # bytes that one compressed byte can become; gzip's limit is 1032
_MOST_IN_CHUNK = 2**26  # bytes; HDF5 unpacks a whole chunk, however few of its values there are
_MOST_JSON, _MOST_PARTS = (
    2**30,
    2**24,
)  # bytes and values of `meta`; 80 stories with their windows have 0.2 GB


def recognises(source: Path) -> bool:
    """Whether a path is for `load`: by its ending."""
    return source.suffix.lower() in SUFFIXES


# ---------------------------------------------------------------------- writing


def save_assembly(assembly: Assembly, path: str | Path) -> Path:
    """Write an assembly to one HDF5 file, story by story, so that any size fits in memory.

    The file is complete or not written at all. BOLD and repeats are stored as float32, other arrays as they are.

    Returns
    -------
    Path
        `path`; `load_assembly` opens it.

    Raises
    ------
    ValueError
        A name that does not end in .h5 or .hdf5, or a value in `truth` or a story's `extras` that is not an array,
        number, text, list or mapping.
    TypeError
        `assembly` is not an Assembly, or `path` is not a path.
    """
    import h5py

    check_assembly(assembly, "save_assembly")
    path = as_path(path, "save_assembly")
    if not recognises(path):
        raise ValueError(f"{path}: expected a name that ends in {' or '.join(SUFFIXES)}; try {path.stem}.h5.")
    with new_file(path) as draft, h5py.File(draft, "w", libver=("v110", "v110")) as file:
        file.attrs["format"], file.attrs["version"] = np.bytes_(FORMAT), VERSION
        _write(file, assembly)
    return path


def _write(file: h5py.File, assembly: Assembly) -> None:
    arrays = file.create_group("arrays")

    def pack(value: Any, where: str) -> Any:
        if isinstance(value, (np.ndarray, LazyArray)):
            value = np.asarray(value)
            if value.ndim > 0:
                name = str(len(arrays))
                arrays.create_dataset(name, data=value, **(CHECKED if value.size else {}))
                return {_ARRAY: name}
        if isinstance(value, (np.ndarray, np.generic)):
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
        parts: dict[str, Any] = {"onsets": story.words.onsets, "offsets": story.words.offsets}
        parts |= {"tr_times": story.tr_times, "contexts": story.contexts, "extras": story.extras}
        packed = {name: pack(value, f"{story.name}, {name}") for name, value in parts.items()}
        stories.append({"name": story.name, "words": story.words.text, **packed})
    surface = assembly.surface
    meta = {
        "subject": assembly.subject,
        "tr": float(assembly.tr),
        "test_stories": assembly.test_stories,
        "surface": surface and (surface.subject, surface.transform, surface.mask, surface.store),
        "rois": pack(assembly.rois, "rois"),
        "voxel_names": assembly.voxel_names,
        "truth": pack(assembly.truth, "truth"),
        "stories": stories,
    }
    file.create_dataset("meta", data=np.frombuffer(json.dumps(meta).encode(), np.uint8), **CHECKED)


def _write_rows(group: h5py.Group, name: str, values: ArrayLike) -> None:
    """BOLD (rows, voxels), or repeats (repeats, rows, voxels) one after another."""
    *first, n_rows, n_voxels = shape = tuple(int(n) for n in values.shape)
    rows_of_a_chunk = max(1, min(n_rows, CHUNK_BYTES // (4 * n_voxels)))
    chunk = (*(1 for _ in first), rows_of_a_chunk, n_voxels)
    stored = group.create_dataset(name, shape, np.float32, chunks=chunk, **CHECKED)
    for part in range(shape[0]) if first else [slice(None)]:
        stored[part] = np.asarray(values[part], dtype=np.float32)


# ---------------------------------------------------------------------- reading


@contextlib.contextmanager
def opened(path: Path, advice: str) -> Iterator[h5py.File]:
    """An HDF5 file to read; a ValueError with the path and `advice` where h5py, or this block, finds it damaged."""
    import h5py

    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({shorten(str(error), 300)}); {advice}.") from error


def load(source: Path, *, stories: Iterable[str] | None = None) -> Assembly:
    """Open a file that `save_assembly` wrote; BOLD is read when it is indexed.

    Parameters
    ----------
    source : file
    stories : names, optional
        Keep only these, in the file's order.

    Raises
    ------
    ValueError
        Another kind of file, a newer version, damage, or a story that the file does not have.
    """
    advice = "it is damaged or not a file of save_assembly: copy it again or save the assembly again"
    assembly = None
    with opened(source, advice) as file:
        version = _version(file, source)
        if version in (1, VERSION):
            assembly = _read(file, source)
    if assembly is None:
        other = "another HDF5 file; to open a story of ds003020, pass the data set's folder"
        got = other if version is None else f"version {version}; update encoding_nb"
        raise ValueError(f"{source}: expected a file of save_assembly, version {VERSION}, got {got}.")
    kept = {name: assembly.stories[name] for name in chosen(stories, assembly.stories, source)}
    for story in kept.values():
        check_words_in_run(story, assembly.tr, where=str(source))
    return replace(assembly, stories=kept, test_stories=tuple(n for n in assembly.test_stories if n in kept))


def _version(file: h5py.File, source: Path) -> int | None:
    """The version of the format; None for another HDF5 file."""
    if file.attrs.get("format") == FORMAT:
        return int(file.attrs["version"])
    with source.open("rb") as raw:
        return 1 if file.userblock_size and FORMAT in raw.read(512) else None


def _read(file: h5py.File, source: Path) -> Assembly:
    meta = _read_meta(file)
    arrays: dict[str, Array] = {}  # each is read once, however often it is named

    def unpack(value: Any) -> Any:
        if isinstance(value, dict):
            if _ARRAY in value:
                name = f"arrays/{value[_ARRAY]}"
                if name not in arrays:
                    arrays[name] = stored_here(file, name)[()]
                return arrays[name]
            return {key: unpack(item) for key, item in value.items()}
        return [unpack(item) for item in value] if isinstance(value, list) else value

    stamp = stamp_of(source)

    def lazy(name: str) -> LazyArray:
        stored = stored_here(file, name, kinds="fiu")
        return LazyArray(stored.shape, stored.dtype, partial(_read_rows, source, stamp, name))

    stories = {}
    for number, story in enumerate(meta["stories"]):
        group = f"bold/{number}"
        stories[story["name"]] = Story(
            name=story["name"],
            words=Words(tuple(story["words"]), unpack(story["onsets"]), unpack(story["offsets"])),
            tr_times=unpack(story["tr_times"]),
            bold=lazy(f"{group}/bold"),
            repeats=lazy(f"{group}/repeats") if file[group].get("repeats", getlink=True) else None,
            contexts=story["contexts"] and {kind: tuple(texts) for kind, texts in story["contexts"].items()},
            extras=unpack(story["extras"]),
        )
    return Assembly(
        subject=meta["subject"],
        tr=meta["tr"],
        stories=stories,
        test_stories=tuple(meta["test_stories"]),
        surface=_read_surface(meta["surface"]),
        rois=unpack(meta["rois"]),
        voxel_names=meta["voxel_names"] and tuple(meta["voxel_names"]),
        truth=unpack(meta["truth"]),
    )


def _read_meta(file: h5py.File) -> Any:
    stored = stored_here(file, "meta", kinds="u")
    text = stored[:].tobytes() if stored.nbytes <= _MOST_JSON else b""
    parts = text.count(b",") + text.count(b"[") + text.count(b"{")
    if not 0 < parts <= _MOST_PARTS:  # each takes up to a hundred bytes of memory, but few of the file
        raise ValueError(f"meta has {stored.nbytes:,} bytes and {parts:,} values, more than an assembly has")
    return json.loads(text)


def stored_here(file: h5py.File, name: str, *, kinds: str = "biufcS", sparse: bool = False) -> h5py.Dataset:
    """A data set of the numpy `kinds` whose values are in this file and can be unpacked.

    But for `sparse` ones, it has no more values than its bytes can hold.
    """
    import h5py

    place: Any = file
    for part in name.split("/"):
        # any other link may lead into another file, and to open that (a named pipe) may never end
        link = place.get(part, getlink=True)
        if link is not None and not isinstance(link, h5py.HardLink):
            raise ValueError(f"the values of {shorten(name)} are not in the file: it is a link")
        place = place[part]
    stored = place
    if not isinstance(stored, h5py.Dataset) or stored.dtype.kind not in kinds:
        raise ValueError(f"expected numbers as {shorten(name)}, got {getattr(stored, 'dtype', 'a group')}")
    pack = stored.id.get_create_plist()
    for code, _, _, label in map(pack.get_filter, range(pack.get_nfilters())):
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{name} is packed by the HDF5 filter {code} ({shorten(label.decode(errors='replace'))}), which h5py "
                f"lacks; import hdf5plugin first, or write the file again with gzip"
            )
    elsewhere = stored.external or stored.is_virtual
    if elsewhere or not (sparse or stored.nbytes <= _MOST_FOR_A_BYTE * stored.id.get_storage_size()):
        raise ValueError(f"the values of {name} are not in the file")
    chunk_bytes = math.prod(stored.chunks or ()) * stored.dtype.itemsize
    if chunk_bytes > max(stored.nbytes, _MOST_IN_CHUNK):
        raise ValueError(f"{name} has {stored.nbytes:,} bytes in chunks of {chunk_bytes:,}")
    return stored


def _read_rows(source: Path, stamp: Stamp, name: str, key: tuple[int | slice, ...]) -> Array:
    check_unchanged(source, stamp)
    with opened(source, f"{name} is damaged: copy the file again") as file:
        values = np.asarray(file[name][key])
    check_unchanged(source, stamp)
    return values


def _read_surface(parts: list[str | None] | None) -> Surface | None:
    surface = Surface(*parts) if parts else None
    if surface and surface.store and not (Path(surface.store) / surface.subject).is_dir():
        moved = f"The surface of {surface.subject} is no longer at {surface.store}"
        _progress.warn(f"{moved}; pycortex's own store is used.", stacklevel=5)
        return replace(surface, store=None)
    return surface
