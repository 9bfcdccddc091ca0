"""What the encoder's and the decoder's graph share: embedding, residuals, and biases by distance."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from build.architecture.parts import Norm, Positions
from build.architecture.seq2seq import AnyLayer, Stack
from build.dialects.contents import distance_table, position_table
from build.dialects.tensorrt.blocks import Blocks

Part = Callable[[ir.Value], ir.Value]


def embedded(blocks: Blocks, stack: Stack[AnyLayer], ids: ir.Value, positions: ir.Value) -> ir.Value:
    """The embedded ids [batch, seq] at `positions`, [batch, seq] or [seq]."""
    rows = blocks.embed(ids, stack.embedding, stack.embedding_scale)
    table = position_table(stack)
    if table is not None:
        offset = stack.positions.offset if isinstance(stack.positions, Positions) else 0
        rows = blocks.add(rows, blocks.placed(table, positions, offset), "embedded_placed")
    return blocks.maybe_norm(rows, stack.embedding_norm)


def residual(
    blocks: Blocks, norm_first: bool, hidden: ir.Value, part: Part, norm: Norm, name: str
) -> ir.Value:
    """x + part(norm(x)), or norm(x + part(x))."""
    if norm_first:
        return blocks.add(hidden, part(blocks.norm(hidden, norm, f"{name}_normed")), f"{name}_sum")
    return blocks.norm(blocks.add(hidden, part(hidden), f"{name}_sum"), norm, f"{name}_normed")


def biased_mask(
    blocks: Blocks, stack: Stack[AnyLayer], queries: ir.Value, keys: ir.Value, mask: ir.Value
) -> ir.Value:
    """The bias by distance of keys [keys] from queries [batch, seq] where the mask is true.

    [batch, heads, seq, keys], to be added to the scores; elsewhere it is the lowest number.
    """
    assert stack.relative is not None
    op, integers, far = blocks.writer.op, blocks.writer.integers, stack.relative.max_distance
    column = op("Unsqueeze", [queries, integers("last_axis", [2])], "query_positions")
    distances = op("Sub", [keys, column], "distances")
    furthest, ahead = integers("furthest", far), integers("ahead", far if stack.relative.bidirectional else 0)
    near = op("Max", [op("Min", [distances, ahead], "not_ahead"), integers("behind", -far)], "near")
    index = op("Add", [near, furthest], "distance_index")
    table = blocks.tensor(distance_table(stack))
    biases = op("Gather", [table, index], "biases_by_head", {"axis": 1})
    bias = op("Transpose", [biases], "biases", {"perm": [1, 0, 2, 3]})
    lowest = np.array(ml_dtypes.finfo(blocks.store.dtype).min, blocks.store.dtype)  # type: ignore[no-untyped-call]
    return op("Where", [mask, bias, blocks.writer.constant("lowest", lowest)], "biased_mask")
