"""The weights of a model as this dialect stores them, written once for every graph over them.

Products are [columns, rows]: the second operand of MatMul, which TensorRT reads without turning it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from build.architecture.parts import Norm, Projection
from build.checkpoint import Checkpoint
from build.dialects.encoding import Role, bias, stacked
from build.dialects.tensorrt.precision import (
    BLOCK_SIZES,
    Kind,
    Rounded,
    compute_type,
    round_blocks,
    round_rows,
    stored_kind,
)
from build.dialects.weight_file import WeightFile
from build.errors import BuildError
from build.quantise import Floats, Precision

_LARGEST_FLOAT16 = 65504.0


@dataclass(frozen=True)
class StoredProjection:
    """Dense where `scales` is None; `turned` where the weight is a table [rows, columns] that is shared."""

    name: str
    weight: ir.Value
    scales: ir.Value | None
    bias: ir.Value | None
    block_size: int = 0
    turned: bool = False


@dataclass(frozen=True)
class Store:
    """The weights that have been written: each tensor and projection once, under the checkpoint's names."""

    checkpoint: Checkpoint
    precision: Precision
    compute: ir.DataType
    file: WeightFile
    block_size: int = BLOCK_SIZES[0]
    tensors: dict[str, ir.Value] = field(default_factory=dict)
    projections: dict[Projection, StoredProjection] = field(default_factory=dict)

    @property
    def dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.compute.numpy())

    def has(self, name: str) -> bool:
        return name in self.tensors

    def add_tensor(self, name: str, shape: tuple[int, ...]) -> None:
        if name not in self.tensors:
            self.add_values(name, self.checkpoint.weight(name, shape).read())

    def add_values(self, name: str, values: Floats) -> None:
        """Stored in the type that is computed in."""
        self.tensors[name] = self.file.add(name, self._narrowed(name, values))

    def add_norm(self, norm: Norm | None) -> None:
        for name, shape in norm.tensors().items() if norm else ():
            self.add_tensor(name, shape)

    def add_projection(self, name: str, projection: Projection, role: Role) -> None:
        """Stored as the precision says; one that was added as a tensor and needs no rounding is shared."""
        if projection in self.projections:
            return
        offsets = self._bias(name, projection)
        rounded = self.rounded(projection, role)
        if rounded is not None:
            weight = self.file.add(f"{name}_weight", rounded.levels.T)
            scales = self.file.add(f"{name}_scales", rounded.scales.T)
            stored = StoredProjection(name, weight, scales, offsets, rounded.block_size)
        elif projection.parts[0] in self.tensors:
            assert len(projection.parts) == 1
            stored = StoredProjection(name, self.tensors[projection.parts[0]], None, offsets, turned=True)
        else:
            dense = self._narrowed(name, stacked(self.checkpoint, projection)).T
            stored = StoredProjection(name, self.file.add(f"{name}_weight", dense), None, offsets)
        self.projections[projection] = stored

    def rounded(self, projection: Projection, role: Role) -> Rounded | None:
        """The rounded product, None where the precision keeps it dense."""
        kind = stored_kind(self.precision, role, projection.columns % self.block_size == 0)
        if kind is None:
            return None
        matrix = stacked(self.checkpoint, projection)
        if kind is Kind.INT4:
            return round_blocks(matrix, self.block_size, self.dtype)
        return round_rows(matrix, kind, self.dtype)

    def _bias(self, name: str, projection: Projection) -> ir.Value | None:
        offsets = bias(self.checkpoint, projection)
        return None if offsets is None else self.file.add(f"{name}_bias", self._narrowed(name, offsets))

    def _narrowed(self, name: str, values: Floats) -> NDArray[np.generic]:
        largest = np.abs(values).max(initial=0)
        if self.compute is ir.DataType.FLOAT16 and not largest <= _LARGEST_FLOAT16:
            raise BuildError(f"{name}: {largest:.3g} is more than float16 holds: build with precision bf16")
        return values.astype(self.dtype)


def open_store(
    checkpoint: Checkpoint, precision: Precision, file: WeightFile, block_size: int = BLOCK_SIZES[0]
) -> Store:
    """An empty store; `block_size` is that of products in 4 bits."""
    family = str(checkpoint.config.get("model_type"))
    return Store(checkpoint, precision, compute_type(precision, family), file, block_size)
