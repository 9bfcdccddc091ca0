"""What the encoder's and the decoder's graph share: embedding, and the stream of residuals and norms."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from build.architecture.parts import Norm, Positions
from build.architecture.seq2seq import AnyLayer, DecoderLayer, Stack
from build.dialects.onnxruntime.blocks import Blocks
from build.dialects.writer import Writer


class Residual:
    """The residual stream of a stack: a part of a layer reads `hidden`, and `add` takes what it makes of it.

    Where `norm_first`, `hidden` is a norm of the sum of all that was added; else that sum is normed itself.
    The norms are those of all parts of all layers, in order, and the last one where there is one.
    """

    def __init__(self, blocks: Blocks, stack: Stack[AnyLayer], norm_first: bool, start: ir.Value) -> None:
        norms: list[Norm] = []
        for layer in stack.layers:
            cross = [layer.cross_norm] if isinstance(layer, DecoderLayer) else []
            norms += [layer.attention_norm, *cross, layer.ffn_norm]
        norms += [stack.final_norm] if stack.final_norm else []
        self._norms: Iterator[Norm] = iter(norms)
        self._blocks = blocks
        self._norm_first = norm_first
        self._residual = start
        self.hidden = blocks.norm(start, next(self._norms), "first_normed") if norm_first else start

    def add(self, change: ir.Value, name: str) -> None:
        normed, total = self._blocks.add_norm(self._residual, change, next(self._norms), name)
        self.hidden = normed
        self._residual = total if self._norm_first else normed


def embedded(
    writer: Writer, blocks: Blocks, stack: Stack[AnyLayer], ids: ir.Value, positions: ir.Value | None
) -> ir.Value:
    """The rows of the ids; `positions` are added where the stack has any."""
    rows = writer.op("Gather", [blocks.tensor(stack.embedding), ids], "embedded")
    rows = blocks.scaled(rows, stack.embedding_scale, "embedded_scaled")
    if positions is not None:
        rows = writer.op("Add", [rows, positions], "placed")
    return blocks.norm(rows, stack.embedding_norm, "embedded_normed") if stack.embedding_norm else rows


def first_row(stack: Stack[AnyLayer]) -> int:
    """The row of position 0 in the table of positions."""
    return stack.positions.offset if isinstance(stack.positions, Positions) else 0
