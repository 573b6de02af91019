"""numpy's arrays within a pickle: where their bytes lie, and reading them when they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..lazy import LazyArray

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
