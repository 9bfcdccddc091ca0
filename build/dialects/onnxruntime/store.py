"""The weights of a model as ONNX Runtime's operators take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from build.architecture.parts import Projection
from build.dialects import store as dialects
from build.dialects.encoding import Role, encode
from build.quantise import Blocks, Precision, Rows


@dataclass(frozen=True)
class StoredProjection:
    """A dense [rows, columns] weight where `scales` is None, else blocks as MatMulNBits holds them.

    `offsets` [blocks, rows] are added to all weights of a block: they multiply sums of the inputs by blocks.
    """

    name: str
    weight: ir.Value
    scales: ir.Value | None
    bias: ir.Value | None
    rows: int
    columns: int
    bits: int = 32
    block_size: int = 0
    offsets: ir.Value | None = None


@dataclass(frozen=True)
class StoredRows:
    """An int8 weight turned to [columns, rows], with a scale for each row."""

    name: str
    weight: ir.Value
    scales: ir.Value
    bias: ir.Value | None


@dataclass(frozen=True)
class Rounding:
    """Products whose inputs are rounded to 8 bits by rows, as their weights are.

    `rows` are the parts of the products by name; `spread` products read rows of root mean square 1 without
    outliers; `apart` ones are written part by part.
    """

    rows: Mapping[str, Rows]
    spread: frozenset[Projection]
    apart: frozenset[Projection]


@dataclass(frozen=True)
class Store(dialects.Store):
    """With a `rounding` every product is `rounded`, without one a projection of the precision."""

    rounding: Rounding | None = None
    projections: dict[Projection, StoredProjection] = field(default_factory=dict, init=False)
    rounded: dict[Projection, tuple[StoredRows, ...]] = field(default_factory=dict, init=False)

    @property
    def compute(self) -> ir.DataType:
        return ir.DataType.FLOAT16 if self.precision is Precision.FP16 else ir.DataType.FLOAT

    def add_projection(self, name: str, projection: Projection, role: Role) -> None:
        if projection in self.projections or projection in self.rounded:
            return
        if self.rounding is None:
            self.projections[projection] = self._stored(name, projection, role)
        elif projection in self.rounding.apart:
            parts = enumerate(projection.apart())
            self.rounded[projection] = tuple(
                self._stored_rows(f"{name}_{index}", part, self.rounding) for index, part in parts
            )
        else:
            self.rounded[projection] = (self._stored_rows(name, projection, self.rounding),)

    def _stored(self, name: str, projection: Projection, role: Role) -> StoredProjection:
        bias = self.add_bias(name, projection)
        dense = self.precision in (Precision.FP32, Precision.FP16)
        if dense and len(projection.parts) == 1 and projection.parts[0] in self.tensors:
            weight = self.tensors[projection.parts[0]]
            return StoredProjection(name, weight, None, bias, sum(projection.rows), projection.columns)
        encoded = encode(self.checkpoint, projection, self.precision, role)
        if not isinstance(encoded, Blocks):
            weight = self.file.add(f"{name}_weight", encoded.astype(self.dtype, copy=False))
            return StoredProjection(name, weight, None, bias, sum(projection.rows), projection.columns)
        turned = None if encoded.offsets is None else np.ascontiguousarray(encoded.offsets.T)
        return StoredProjection(
            name=name,
            weight=self.file.add(f"{name}_weight", encoded.packed()),
            scales=self.file.add(f"{name}_scales", encoded.scales),
            bias=bias,
            rows=encoded.rows,
            columns=encoded.columns,
            bits=encoded.bits,
            block_size=encoded.block_size,
            offsets=None if turned is None else self.file.add(f"{name}_offsets", turned),
        )

    def _stored_rows(self, name: str, projection: Projection, rounding: Rounding) -> StoredRows:
        parts = [rounding.rows[part] for part in projection.parts]
        levels = np.concatenate([part.levels for part in parts])
        return StoredRows(
            name=name,
            weight=self.file.add(f"{name}_weight", np.ascontiguousarray(levels.T)),
            scales=self.file.add(f"{name}_scales", np.concatenate([part.scales for part in parts])),
            bias=self.add_bias(name, projection),
        )
