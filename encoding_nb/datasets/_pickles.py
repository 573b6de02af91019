"""LITcoder's pickles, read without running anything in them; their arrays stay in the file until indexed.

A pickle is a program for a stack machine whose REDUCE instruction calls any function of any module. Nothing of
that kind happens here: `read_pickle` interprets the instructions that data need, knows the names it is given
and no others, and calls nothing that a file names. What stands for an instance is an inert `Record`; numpy's
arrays are rebuilt from their bytes by our own code, and stay in the file until they are read.

The instructions and their arguments are those of Python's `pickletools` (docs.python.org, "pickletools").
"""

from __future__ import annotations

import math
import mmap
import pickletools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..assembly import LazyArray

Array = np.ndarray


@dataclass(frozen=True)
class StoredBytes:
    """Where bytes lie in the file."""

    start: int
    size: int


@dataclass(eq=False)
class StoredType:
    """The type of an array's numbers: numpy's code and the order of the bytes."""

    code: str
    order: str = "="

    @property
    def dtype(self) -> np.dtype:
        """The same as numpy has it."""
        swapped = self.order if self.order in "<>" else "="
        return np.dtype(self.code).newbyteorder(swapped)


@dataclass(eq=False)
class UnfilledArray:
    """An array that `_reconstruct` announced and whose BUILD has not come."""

    values: LazyArray | None = None


def stored_array(path: Path, start: int, dtype: np.dtype, shape: tuple[int, ...], order: str) -> LazyArray:
    """An array over the bytes of a file from `start` on, read when it is indexed."""
    return LazyArray(shape, dtype.newbyteorder("="), partial(_read_part, path, start, dtype, shape, order))


def _read_part(
    path: Path,
    start: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    order: str,
    key: tuple[int | slice, ...],
) -> Array:
    if 0 in shape or dtype.itemsize == 0:
        return np.empty(shape, dtype.newbyteorder("="))[key]
    stored = np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape or (1,), order=order)
    return np.array(stored.reshape(shape, order=order)[key], dtype=dtype.newbyteorder("="))


_NUMPY = ("numpy.core", "numpy._core")  # before and since numpy 2
# what a name stands for, by what numpy writes for arrays, their types and single numbers
NUMPY_NAMES: Mapping[tuple[str, str], str] = {
    ("numpy", "dtype"): "dtype",
    ("numpy", "ndarray"): "ndarray",
    **{(f"{core}.numeric", "_frombuffer"): "frombuffer" for core in _NUMPY},
    **{(f"{core}.multiarray", "_reconstruct"): "reconstruct" for core in _NUMPY},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in _NUMPY},
}
_TEXTS = re.compile(r"U[1-9][0-9]{0,3}", re.ASCII)  # never U0, of which any number fits in no bytes at all
_DTYPES = frozenset(["f2", "f4", "f8", "b1", *(f"{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8))])


def _shown(value: Any) -> str:
    """What a file says, short and on one line: texts alone, since to write out a nest of tuples may never end."""
    if type(value) is not str:
        return f"a {type(value).__name__}"
    text = value[:80]
    return text if text.isprintable() else ascii(text)[:80]


def _is_key(value: Any) -> bool:
    """Whether a dict may have this key: whatever takes long to hash, or many of one hash, would hang the reader."""
    return value is None or type(value) in (str, bool) or (type(value) is int and abs(value) < 2**31)


@dataclass(frozen=True)
class Name:
    """A name of the file that is known; it is never called."""

    module: str
    name: str


@dataclass(eq=False)
class Record:
    """What stands for an instance: the name of its class and the fields that the file gives it."""

    name: Name
    fields: dict[str, Any] = field(default_factory=dict)


class PickleError(ValueError):
    """A file that is no pickle of data; one sentence."""


def read_pickle(path: Path, *, classes: frozenset[tuple[str, str]]) -> Any:
    """The tree of data that a pickle describes; nothing of the file is run.

    Parameters
    ----------
    path : file
    classes : (module, name) of the classes whose instances may come; each becomes a `Record`

    Returns
    -------
    None, bool, int, float, str, list, tuple, dict, `Record`; numpy arrays as `LazyArray` of numbers or texts

    Raises
    ------
    PickleError
        A name that is not admitted, named, before anything is read on; an instruction that data do not need;
        a file that is cut off or makes no sense.
    """
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise PickleError(f"{path}: expected a pickle, but the file is empty.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _finished(_Machine(path, content, classes).run(), path)
    except PickleError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise PickleError(
            f"{path}: expected a whole pickle, but it makes no sense ({type(error).__name__}: {_shown(str(error))}); "
            f"is it cut off or damaged?"
        ) from error


def _finished(value: Any, path: Path) -> Any:
    """Arrays in place of what stood for them, at the top and within lists, dicts and records."""
    seen: set[int] = set()
    root = [value]
    todo: list[Any] = [root]
    while todo:
        holder = todo.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        inner = holder.fields if isinstance(holder, Record) else holder
        pairs = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, item in list(pairs):
            if isinstance(item, UnfilledArray):
                if item.values is None:
                    raise PickleError(
                        f"{path}: an array of which only the head is there; the file is damaged."
                    )
                item = item.values
                if not isinstance(inner, tuple):
                    inner[key] = item
            if isinstance(item, (list, dict, tuple, Record)):
                todo.append(item)
    return root[0]


class _Machine:
    """The stack, the memo, and one method per kind of instruction."""

    def __init__(self, path: Path, content: mmap.mmap, classes: frozenset[tuple[str, str]]) -> None:
        self.path, self.file, self.classes = path, content, classes
        self.stack: list[Any] = []
        self.marks: list[int] = []  # heights of the stack at which a group of values begins
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while code := self.file.read(1):
            instruction = pickletools.code2op.get(code.decode("latin-1"))
            at = self.file.tell() - 1
            name = instruction.name if instruction else f"byte {code!r}"
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(_CONSTANTS[name]())
            elif name in _VALUES:
                self.stack.append(self._argument(instruction))
            elif name in _STEPS:
                _STEPS[name](self, self._argument(instruction) if instruction.arg else None)
            else:
                raise PickleError(
                    f"{self.path}: expected a pickle of plain data, but at byte {at} it holds {name}, which no "
                    f"such data need; nothing of it was run."
                )
        raise PickleError(f"{self.path}: expected a whole pickle, but it ends in the middle; copy it again.")

    def _argument(self, instruction: pickletools.OpcodeInfo) -> Any:
        """The value behind an instruction; bytes stay where they are."""
        sizes = {"SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8}
        if instruction.name not in sizes:
            return instruction.arg.reader(self.file)
        size = int.from_bytes(self.file.read(sizes[instruction.name]), "little")
        start = self.file.tell()
        missing = start + size - len(self.file)
        if missing > 0:
            raise PickleError(
                f"{self.path}: expected {size} bytes at byte {start}, but the file ends {missing} bytes before; it is "
                f"cut off or damaged, copy it again."
            )
        self.file.seek(start + size)
        return StoredBytes(start, size)

    def _since_mark(self) -> list[Any]:
        start = self.marks.pop()
        if start > len(self.stack):
            raise PickleError(
                f"{self.path}: a group of values that begins after its end; the file is damaged."
            )
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def put(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def tuple_of(self, count: int | None) -> None:
        if count is None:
            self.stack.append(tuple(self._since_mark()))
            return
        items = self.stack[-count:]
        if len(items) < count:
            raise PickleError(f"{self.path}: expected {count} values on the stack; the file is damaged.")
        self.stack[-count:] = [tuple(items)]

    def append(self, items: list[Any]) -> None:
        self._last(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise PickleError(f"{self.path}: a key without its value; the file is damaged.")
        for key in items[::2]:
            if not _is_key(key):
                raise PickleError(
                    f"{self.path}: expected texts or small whole numbers as keys of a dict, got {_shown(key)}; no "
                    f"assembly has such keys."
                )
        self._last(dict).update(zip(items[::2], items[1::2], strict=True))

    def _last(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise PickleError(f"{self.path}: items for a {kind.__name__} that is none; the file is damaged.")
        return self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        texts = type(module) is str and type(name) is str  # anything else may take forever to look up
        if not texts or ((module, name) not in self.classes and (module, name) not in NUMPY_NAMES):
            raise PickleError(
                f"{self.path}: this pickle asks for {_shown(module)}.{_shown(name)}, which no assembly needs, so it "
                f"was not read on and nothing of it was run; a file from somebody unknown may do harm."
            )
        self.stack.append(Name(module, name))

    def new(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or (name.module, name.name) not in self.classes or arguments != ():
            raise PickleError(
                f"{self.path}: expected an empty instance of a known class; the file is damaged."
            )
        self.stack.append(Record(name))

    def reduce(self) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(name, Name) or not isinstance(arguments, tuple):
            raise PickleError(f"{self.path}: expected a known name with its values; the file is damaged.")
        known = NUMPY_NAMES.get((name.module, name.name))
        if known not in _MAKERS:
            raise PickleError(f"{self.path}: {name.module}.{name.name} is called, which no assembly does.")
        self.stack.append(_MAKERS[known](self, *arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Record) and isinstance(state, dict) and all(isinstance(k, str) for k in state):
            target.fields.update(state)
        elif isinstance(target, StoredType) and isinstance(state, tuple) and len(state) >= 2:
            if state[1] not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
                raise PickleError(f"{self.path}: arrays with named fields are not in assemblies.")
            target.order = state[1]
        elif isinstance(target, UnfilledArray) and isinstance(state, tuple) and len(state) == 5:
            _, shape, dtype, fortran, content = state
            target.values = self.array(content, dtype, shape, "F" if fortran else "C")
        else:
            raise PickleError(f"{self.path}: a state for a {type(target).__name__} that has none.")

    def dtype(self, code: Any, *_: Any) -> StoredType:
        texts = type(code) is str and _TEXTS.fullmatch(code)
        if not texts and (type(code) is not str or code not in _DTYPES):
            raise PickleError(
                f"{self.path}: expected arrays of numbers or texts, got type {_shown(code)}; Python objects are "
                f"not read."
            )
        return StoredType(code)

    def array(self, content: Any, dtype: Any, shape: Any, order: Any = "C") -> LazyArray:
        """An array over bytes of the file, whose shape and type must fit their number."""
        if (
            not isinstance(content, StoredBytes)
            or not isinstance(dtype, StoredType)
            or order not in ("C", "F")
        ):
            raise PickleError(f"{self.path}: expected an array as bytes with a type; the file is damaged.")
        if (
            not isinstance(shape, tuple)
            or not all(type(n) is int and n >= 0 for n in shape)
            or len(shape) > 8
        ):
            raise PickleError(f"{self.path}: expected the shape of an array, got {_shown(shape)}.")
        if math.prod(n or 1 for n in shape) * dtype.dtype.itemsize > len(self.file):
            raise PickleError(f"{self.path}: expected an array that fits in the file; the file is damaged.")
        needed = math.prod(shape) * dtype.dtype.itemsize
        if needed != content.size:
            raise PickleError(
                f"{self.path}: an array of shape {shape} needs {needed} bytes, but {content.size} are there; the "
                f"file is damaged."
            )
        return stored_array(self.path, content.start, dtype.dtype, shape, order)

    def scalar(self, dtype: Any, content: Any) -> Any:
        return self.array(content, dtype, ())[()].item()

    def reconstruct(self, kind: Any, *_: Any) -> UnfilledArray:
        if not isinstance(kind, Name) or NUMPY_NAMES.get((kind.module, kind.name)) != "ndarray":
            raise PickleError(f"{self.path}: expected a plain numpy array, got a kind of its own.")
        return UnfilledArray()


_CONSTANTS = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 LONG4 BINFLOAT SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES "
    "BINBYTES8 BYTEARRAY8".split()
)
_STEPS = {
    "PROTO": lambda machine, version: None,
    "FRAME": lambda machine, size: None,  # frames only help a reader to read ahead
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "MEMOIZE": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: machine.tuple_of(None),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine._since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine._since_mark()),
    "GLOBAL": lambda machine, text: machine.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.name(machine.stack.pop(-2), machine.stack.pop()),
    "NEWOBJ": lambda machine, _: machine.new(),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
}
_MAKERS = {
    "dtype": _Machine.dtype,
    "frombuffer": _Machine.array,
    "scalar": _Machine.scalar,
    "reconstruct": _Machine.reconstruct,
}
