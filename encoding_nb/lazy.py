"""Arrays that stay in their files until they are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray


class LazyArray:
    """An array that is read from its file whenever it is indexed, and not kept.

    Whole numbers and slices that run forwards are read as they stand, so that `bold[40:]` reads no other
    rows; any other index reads the whole array first.

    Attributes
    ----------
    shape : lengths of the axes
    dtype : what reading gives
    """

    def __init__(
        self, shape: Sequence[int], dtype: Any, read: Callable[[tuple[int | slice, ...]], Array]
    ) -> None:
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)
        self._read = read

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Array:
        key = key if isinstance(key, tuple) else (key,)
        if len(key) <= self.ndim and all(map(_reads_plainly, key)):
            for axis, index in enumerate(key):
                if not isinstance(index, slice) and not -self.shape[axis] <= index < self.shape[axis]:
                    raise IndexError(
                        f"index {index} is out of bounds for axis {axis} with {self.shape[axis]} entries"
                    )
            return self._read(key)
        return self._read((slice(None),) * self.ndim)[key]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype=dtype)

    def __repr__(self) -> str:
        return f"LazyArray(shape={self.shape}, dtype={self.dtype})"


def _reads_plainly(index: Any) -> bool:
    if isinstance(index, slice):
        return index.step is None or index.step > 0
    return isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_))
