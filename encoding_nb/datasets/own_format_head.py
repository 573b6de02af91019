"""The head of this package's assembly files: what stands ahead of the HDF5 part and is checked before it.

One line of JSON in HDF5's user block: format, version, the file's size, where the blocks of BOLD lie, and a BLAKE2b
digest of everything else behind the head, that is, of all that says how to find and read them (a block has its own
checksum in HDF5). The digest is short work for files of any size, and no damaged file reaches the HDF5 library,
which is known to hang or crash on some (github.com/HDFGroup/hdf5/issues). A digest finds damage; it does not make a
file that somebody built with intent harmless to that library.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

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
