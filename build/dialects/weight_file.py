"""The external data of an ONNX file, written front to back so that no more than one tensor is held."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

# ONNX Runtime maps a tensor in place when its offset is a multiple of the page size.
_PAGE_BYTES = 4096


class WeightFile:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("wb")

    def __enter__(self) -> WeightFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """Appends the array; the value returned is an initializer that any graph over the file may hold."""
        self._file.write(bytes(-self._file.tell() % _PAGE_BYTES))
        offset = self._file.tell()
        dtype = ir.DataType.from_numpy(array.dtype)
        stored = _stored(array, dtype)
        self._file.write(stored.data)
        tensor = ir.ExternalTensor(
            self._path.name,
            offset,
            stored.nbytes,
            dtype,
            shape=ir.Shape(array.shape),
            name=name,
            base_dir=self._path.parent,
        )
        return ir.Value(
            name=name,
            shape=ir.Shape(array.shape),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )


def _stored(array: NDArray[np.generic], dtype: ir.DataType) -> NDArray[np.uint8]:
    """The array's bytes in ONNX's layout: in 4 bits, the even element is the low nibble."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if dtype.bitwidth != 4:
        return flat
    padded = np.append(flat, np.zeros(flat.size % 2, np.uint8)) & np.uint8(15)
    return padded[0::2] | (padded[1::2] << np.uint8(4))
