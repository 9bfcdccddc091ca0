"""Rows in company: a 4-bit product never computes a row alone.

Without AVX-512, ONNX Runtime 1.32 has a separate kernel for a single row of MatMulNBits in 4 bits, which adds
in another order than the kernel for several rows. The results differ by 4e-7, and by 0.01 of a logit once
later products have rounded their inputs: a row's answer would depend on what else is in the batch. A row is
single in a product of one row, and as the last one if threads share the rows in blocks of 128.
"""

from __future__ import annotations

import onnx_ir as ir

from build.dialects.writer import Writer

_BLOCK = 128


class Company:
    """Pads products whose inputs [batch, …, columns] have a row for each element of `rows` [batch, …]."""

    def __init__(self, writer: Writer, rows: ir.Value) -> None:
        self._writer = writer
        self._rows = rows
        self._counts: tuple[ir.Value, ir.Value] | None = None

    def copied(self, hidden: ir.Value, name: str) -> ir.Value:
        """The rows of `hidden`, taken twice where one of them would be alone."""
        copies, _ = self._counted()
        return self._writer.op("Tile", [hidden, copies], name)

    def first(self, product: ir.Value, name: str) -> ir.Value:
        """The product without the copies that `copied` added."""
        _, batch = self._counted()
        integers = self._writer.integers
        return self._writer.op(
            "Slice", [product, integers("no_rows", [0]), batch, integers("batch_axis", [0])], name
        )

    def _counted(self) -> tuple[ir.Value, ir.Value]:
        """How often to repeat the rows, for Tile, and the size of the batch."""
        if self._counts is None:
            one = self._writer.integers("one_row", [1])
            block = self._writer.integers("row_block", [_BLOCK])
            rest = self._written("Mod", [self._written("Size", [self._rows], "count"), block], "rest")
            is_alone = self._written("Equal", [rest, one], "is_alone")
            alone = self._written("Cast", [is_alone], "alone", {"to": int(ir.DataType.INT64)})
            copies = self._written("Add", [alone, one], "copies")
            once = self._writer.integers("as_they_are", [1, 1])
            repeats = self._written("Concat", [copies, once], "repeats", {"axis": 0})
            batch = self._written("Shape", [self._rows], "batch", {"start": 0, "end": 1})
            self._counts = repeats, batch
        return self._counts

    def _written(
        self, kind: str, inputs: list[ir.Value], name: str, attributes: dict[str, int] | None = None
    ) -> ir.Value:
        return self._writer.op(kind, inputs, f"{self._rows.name}_{name}", attributes)
