"""Read a pickle of plain data and arrays without running anything in it; its arrays stay in the file.

A pickle is a program: it may import any function and call it. `read_pickle` runs it on Python's own
`pickle._Unpickler`, the variant that is written in Python, with three limits:

- only instructions that plain data need are carried out;
- only the names that such a file needs are known, and each stands for a class or function of this module;
- the bytes of arrays are skipped, and only their place in the file is kept (`LazyArray`).

The unpickler that is written in C cannot be used: it takes 4 GB for nine bytes that name a large memo entry, its
instructions cannot be limited, and it holds all arrays of the file in memory.
"""

from __future__ import annotations

import math
import mmap
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, partialmethod
from pathlib import Path
from typing import Any

import numpy as np

from .._validation import error_text, shorten
from ..assembly import Array, LazyArray
from ._checks import Stamp, check_unchanged, stamp_of

# all that `pickle.dumps` writes for plain data and arrays in protocols 2 to 5
_INSTRUCTIONS = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT SHORT_BINUNICODE "
    "BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 "
    "EMPTY_LIST APPEND APPENDS EMPTY_DICT SETITEM SETITEMS MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET GLOBAL "
    "STACK_GLOBAL NEWOBJ REDUCE BUILD"
).split()
_TEXTS = re.compile(r"U[1-9][0-9]{0,3}", re.ASCII)  # not U0, of which any number needs no bytes at all
_NUMBERS = frozenset(["f2", "f4", "f8", "b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))])
_LONGEST_AXIS = 2**40  # the product of much larger numbers would take minutes
_NDARRAY = object()  # what the name numpy.ndarray stands for: it cannot be called


class PickleError(ValueError):
    """A file that is not a pickle of plain data."""


class Record:
    """An instance of a class that the file names; its attributes are what the file gives it."""

    def __setstate__(self, state: Any) -> None:
        if type(state) is not dict or not all(type(name) is str for name in state):
            raise ValueError("expected named fields")
        vars(self).update(state)


def read_pickle(path: Path, *, classes: Mapping[tuple[str, str], type[Record]]) -> Any:
    """The data that a pickle describes; nothing in the file is executed.

    Parameters
    ----------
    path : file
    classes : {(module, name): class}
        The classes whose instances the file may hold, and the `Record` that takes the place of each.

    Returns
    -------
    None, bool, int, float, str, list, tuple, dict or `Record`; numpy arrays as `LazyArray` of numbers or texts

    Raises
    ------
    PickleError
        A name that is not admitted, an instruction that plain data do not need, or a file that is cut off or damaged.
    """
    if path.stat().st_size == 0:
        raise PickleError(f"{path}: expected a pickle, but the file is empty.")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return _Reader(path, content, classes).load()
        except PickleError:
            raise
        except KeyError as error:
            problem = f"byte {content.tell() - 1} is the instruction {error}, which plain data never need"
        except Exception as error:  # noqa: BLE001 - a damaged file can make the unpickler raise anything
            problem = str(error) if type(error) is ValueError else error_text(error)
    raise PickleError(
        f"{path}: expected a whole pickle of plain data, but {problem}. Nothing was executed. The file is damaged "
        f"or of another kind; copy it again."
    )


@dataclass(frozen=True)
class _StoredBytes:
    """Where bytes are in the file."""

    start: int
    size: int


class _StoredType:
    """What the name numpy.dtype stands for: the type of numbers or texts in an array."""

    def __init__(self, code: Any, *_: Any) -> None:
        if type(code) is not str or not (code in _NUMBERS or _TEXTS.fullmatch(code)):
            got = shorten(ascii(code)) if type(code) is str else f"a {type(code).__name__}"
            raise ValueError(f"expected arrays of numbers or texts, got type {got}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        _, order, *parts = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise ValueError("expected arrays of numbers or texts, got named fields")
        self.dtype = self.dtype.newbyteorder("=" if order == "|" else order)


class _AnnouncedArray(LazyArray):
    """What numpy's `_reconstruct` returns: an array whose content comes later, by BUILD."""

    def __init__(self, reader: _Reader) -> None:
        super().__init__((), object, lambda key: None)  # readers refuse arrays of objects
        self._reader = reader

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        reader = vars(self).pop("_reader")
        super().__init__(*reader.array_parts(content, dtype, shape, "F" if fortran else "C"))

    def __reduce__(self) -> tuple[Any, ...]:  # how this process sends it to another
        return LazyArray, (self.shape, self.dtype, self._read)


class _Reader(pickle._Unpickler):
    """Python's unpickler with the limits that the module's docstring lists."""

    def __init__(
        self, path: Path, content: mmap.mmap, classes: Mapping[tuple[str, str], type[Record]]
    ) -> None:
        super().__init__(content)
        self._path, self._stamp, self._content = path, stamp_of(path), content
        self._names = {**classes, ("numpy", "dtype"): _StoredType, ("numpy", "ndarray"): _NDARRAY}
        for core in ("numpy.core", "numpy._core"):  # before and since numpy 2
            self._names[f"{core}.numeric", "_frombuffer"] = self._frombuffer
            self._names[f"{core}.multiarray", "_reconstruct"] = self._reconstruct
            self._names[f"{core}.multiarray", "scalar"] = self._scalar
        self._with_state = {_StoredType, _AnnouncedArray, *classes.values()}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            full = f"{module}.{name}"
            raise PickleError(
                f"Refused to load {self._path}: it references {shorten(full if full.isprintable() else ascii(full))}, "
                f"which LITcoder assemblies never contain. Nothing was executed. Do not open pickles from sources you "
                f"do not trust."
            )
        return self._names[module, name]

    # ------------------------------------------------------------------ arrays

    def array_parts(self, content: Any, dtype: Any, shape: Any, order: Any) -> tuple[Any, ...]:
        """What `LazyArray` takes for an array over bytes of the file; their number must fit shape and type."""
        if not (isinstance(content, _StoredBytes) and isinstance(dtype, _StoredType) and order in ("C", "F")):
            raise ValueError("expected an array as bytes with a type")
        lengths = shape if type(shape) is tuple and len(shape) <= 8 else (None,)
        if not all(type(n) is int and 0 <= n <= _LONGEST_AXIS for n in lengths):
            raise ValueError("expected the shape of an array")
        itemsize = dtype.dtype.itemsize
        # numpy cannot make an array of (0, 2**62) either
        if math.prod(n or 1 for n in shape) * itemsize > len(self._content):
            raise ValueError("expected an array that fits into the file")
        needed = math.prod(shape) * itemsize
        if needed != content.size:
            raise ValueError(f"an array of shape {shape} needs {needed} bytes, but has {content.size}")
        layout = {"offset": content.start, "dtype": dtype.dtype, "shape": shape, "order": order}
        read = partial(_read_values, self._path, self._stamp, layout)
        return shape, dtype.dtype.newbyteorder("="), read

    def _frombuffer(self, content: Any, dtype: Any, shape: Any, order: Any) -> LazyArray:
        return LazyArray(*self.array_parts(content, dtype, shape, order))

    def _reconstruct(self, kind: Any, *_: Any) -> _AnnouncedArray:
        if kind is not _NDARRAY:
            raise ValueError("expected a plain numpy array")
        return _AnnouncedArray(self)

    def _scalar(self, dtype: Any, content: Any) -> Any:
        self.array_parts(content, dtype, (), "C")
        return np.frombuffer(self._content, dtype.dtype, 1, content.start)[0].item()

    # ------------------------------------------------------------------ instructions that differ from Python's

    def load_frame(self) -> None:
        self.read(8)  # frames only help to read ahead

    def _skip_bytes(self, n_digits: int) -> None:
        size = int.from_bytes(self.read(n_digits), "little")
        start = self._content.tell()
        if start + size > len(self._content):
            raise ValueError(f"{size} bytes should follow byte {start}, but {len(self._content) - start} do")
        self._content.seek(start + size)
        self.append(_StoredBytes(start, size))

    load_short_binbytes = partialmethod(_skip_bytes, 1)
    load_binbytes = partialmethod(_skip_bytes, 4)
    load_binbytes8 = partialmethod(_skip_bytes, 8)
    load_bytearray8 = partialmethod(_skip_bytes, 8)

    def load_build(self) -> None:
        if type(self.stack[-2]) not in self._with_state:
            raise ValueError(f"a state follows a {type(self.stack[-2]).__name__}, which has none")
        super().load_build()

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()


_CODES = [getattr(pickle, name)[0] for name in _INSTRUCTIONS]
# the methods of the base class by their names, so that those above take the place of Python's
_Reader.dispatch = {code: getattr(_Reader, pickle._Unpickler.dispatch[code].__name__) for code in _CODES}


def _check_keys(keys: list[Any]) -> None:
    """Refuse keys that take very long to hash (nested tuples), or of which many have one hash (large numbers)."""
    for key in keys:
        if not (key is None or type(key) in (str, bool) or (type(key) is int and abs(key) < 2**31)):
            raise ValueError(f"expected texts or small whole numbers as keys, got a {type(key).__name__}")


def _read_values(path: Path, stamp: Stamp, layout: dict[str, Any], key: tuple[int | slice, ...]) -> Array:
    """Part of an array; `layout` says where it is, as np.memmap takes it."""
    check_unchanged(path, stamp)
    shape, dtype = layout["shape"], layout["dtype"]
    stored = np.empty(shape, dtype) if 0 in shape else np.memmap(path, mode="r", **layout)
    values = np.array(stored[key], dtype=dtype.newbyteorder("="))
    check_unchanged(path, stamp)
    return values
