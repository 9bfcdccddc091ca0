"""The weights of a model as this dialect stores them, written once for every graph over them.

Products are [columns, rows]: the second operand of MatMul, which TensorRT reads without turning it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from build.architecture.parts import Projection
from build.dialects import store as dialects
from build.dialects.encoding import Role, stacked
from build.dialects.tensorrt.precision import (
    BLOCK_SIZES,
    Kind,
    Rounded,
    compute_type,
    round_blocks,
    round_rows,
    stored_kind,
)
from build.errors import BuildError
from build.quantise import Floats

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
class Store(dialects.Store):
    """`block_size` is that of products in 4 bits."""

    block_size: int = BLOCK_SIZES[0]
    projections: dict[Projection, StoredProjection] = field(default_factory=dict, init=False)

    @property
    def compute(self) -> ir.DataType:
        return compute_type(self.precision, str(self.checkpoint.config.get("model_type")))

    def narrowed(self, name: str, values: Floats) -> NDArray[np.generic]:
        """The values as `dtype`; BuildError for those beyond the range of float16."""
        largest = np.abs(values).max(initial=0)
        if self.compute is ir.DataType.FLOAT16 and not largest <= _LARGEST_FLOAT16:
            raise BuildError(f"{name}: {largest:.3g} is more than float16 holds: build with precision bf16")
        return super().narrowed(name, values)

    def add_projection(self, name: str, projection: Projection, role: Role) -> None:
        if projection in self.projections:
            return
        offsets = self.add_bias(name, projection)
        rounded = self.rounded(projection, role)
        if rounded is not None:
            weight = self.file.add(f"{name}_weight", rounded.levels.T)
            scales = self.file.add(f"{name}_scales", rounded.scales.T)
            stored = StoredProjection(name, weight, scales, offsets, rounded.block_size)
        elif projection.parts[0] in self.tensors:
            assert len(projection.parts) == 1
            stored = StoredProjection(name, self.tensors[projection.parts[0]], None, offsets, turned=True)
        else:
            dense = self.narrowed(name, stacked(self.checkpoint, projection)).T
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
