"""The array operations of a fit, in numpy on the CPU and in torch on a GPU."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .._columns import Array


class NumpyArrays:
    """The few operations that differ between numpy and torch, in numpy: mostly its own functions."""

    # Rows up to which `inverse` is called. Few enough for one thread: on a busy machine LAPACK's threads wait for each
    # other for a hundred times as long as the inverse of 100 rows takes.
    leaf = 64
    # Columns whose sums are computed together: their float64 copies then stay in the cache, and take less time than
    # the pages of memory that copies of a whole tile would need.
    columns_at_once = 128
    # put(array, dtype) gives an array of this library, get(array) one of numpy.
    put = get = staticmethod(np.asarray)
    empty, empty_like, stack = staticmethod(np.empty), staticmethod(np.empty_like), staticmethod(np.stack)
    # product(one, other, out) writes into `out` where it is given.
    product, vecdot = staticmethod(np.matmul), staticmethod(np.vecdot)
    eigh = staticmethod(np.linalg.eigh)
    # take(matrix, columns): np.take is seven times as fast as indexing here.
    take = staticmethod(partial(np.take, axis=1))
    # diagonal(matrix), as a view that can be written to.
    diagonal = staticmethod(partial(np.einsum, "ii->i"))

    def spare_bytes(self) -> int:
        """Memory that operators may take beyond `OPERATOR_BYTES`: none, other programs share the machine's."""
        return 0

    def turned(self, matrix: Array) -> Array:
        """A matrix transposed, in float64, with the values of a sum next to each other in memory."""
        return matrix.T.astype(float, order="C")

    def extent(self, matrix: Array) -> tuple[Array, Array]:
        """Least and largest value of each row."""
        return matrix.min(axis=1), matrix.max(axis=1)

    def inverse(self, matrix: Array) -> Array:
        """Inverse of a small symmetric positive definite matrix."""
        # numpy's LAPACK, not scipy's: each brings a pool of threads, and in turns the two slow each other down.
        inverse = np.linalg.inv(matrix)
        return (inverse + inverse.T) / 2


class TorchArrays:
    """The same operations in torch, for a CUDA device (or torch's CPU, in tests)."""

    # One Cholesky decomposition is faster there than many small steps, each of which waits for its launch.
    leaf = 8192
    columns_at_once = 1_000_000

    def __init__(self, device: str) -> None:
        """Use torch on this device."""
        import torch

        self.torch, self.device = torch, device
        self.vecdot, self.eigh = torch.linalg.vecdot, torch.linalg.eigh
        self.stack, self.empty_like, self.diagonal = torch.stack, torch.empty_like, torch.diagonal
        self.empty = partial(torch.empty, device=device)

    def spare_bytes(self) -> int:
        """A third of the GPU's free memory: another pass over Y costs more there than its memory."""
        return self.torch.cuda.mem_get_info(self.device)[0] // 3 if self.device.startswith("cuda") else 0

    def put(self, array: Any, dtype: Any) -> Any:
        """Tensor on the device, as `dtype` (a numpy dtype)."""
        kind = getattr(self.torch, np.dtype(dtype).name)
        if not isinstance(array, self.torch.Tensor):
            array = self.torch.from_numpy(np.ascontiguousarray(array))
        return array.to(device=self.device, dtype=kind)

    def take(self, array: Any, columns: Array) -> Any:
        """Columns of a matrix."""
        return array[:, self.put(columns, np.int64)]

    def get(self, array: Any) -> Array:
        """Tensor as an array of numpy."""
        return array.cpu().numpy()

    def turned(self, matrix: Any) -> Any:
        """A matrix transposed, in float64."""
        return matrix.T.contiguous().double()

    def extent(self, matrix: Any) -> tuple[Array, Array]:
        """Least and largest value of each row, in numpy."""
        low, high = self.torch.aminmax(matrix, dim=1)
        return self.get(low), self.get(high)

    def product(self, one: Any, other: Any, out: Any = None) -> Any:
        """one @ other, written into `out` where it is given; in full float32, whatever torch is set to elsewhere."""
        chosen = self.torch.get_float32_matmul_precision()
        if chosen == "highest":
            return self.torch.matmul(one, other, out=out)
        self.torch.set_float32_matmul_precision("highest")
        try:
            return self.torch.matmul(one, other, out=out)
        finally:
            self.torch.set_float32_matmul_precision(chosen)

    def inverse(self, matrix: Any) -> Any:
        """Inverse of a small symmetric positive definite matrix."""
        return self.torch.cholesky_inverse(self.torch.linalg.cholesky(matrix))


def arrays_on(device: str) -> NumpyArrays | TorchArrays:
    """numpy for "cpu", torch for "cuda" or "cuda:<number>".

    Raises
    ------
    ValueError
        The device is neither, or CUDA is not available.
    """
    if device == "cpu":
        return NumpyArrays()
    if not isinstance(device, str) or not device.startswith("cuda"):
        raise ValueError(f'device must be "cpu" or "cuda", got {device!r}.')
    try:
        import torch
    except ImportError as error:
        raise ValueError(f'device={device!r} needs PyTorch: install torch, or use device="cpu".') from error
    if not torch.cuda.is_available():
        raise ValueError(f'device={device!r}: torch finds no CUDA device; use device="cpu".')
    return TorchArrays(device)
