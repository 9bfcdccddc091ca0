"""Building blocks of the families' `view` functions: a checkpoint's tensors under the names and in the shapes
that its description gives.

Files may store a tensor twice, tables that follow from the config, and matrices that are transposed or
joined. No copy or table is dropped only for its name: transformers keeps two tensors that differ, and so do
we. A view reads only the tensors that it must compare.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from build.checkpoint import Checkpoint, Weight
from build.errors import Unsupported
from build.quantise import Floats

HEAD = "lm_head.weight"
# How far a stored table may be from the computed one: files in bfloat16 round it.
_ROUNDING = 0.005


def joined(checkpoint: Checkpoint, name: str, copies: Sequence[str]) -> Checkpoint:
    """The checkpoint with a tensor under `name` alone; Unsupported where copies of it differ."""
    present = [other for other in (name, *copies) if other in checkpoint.weights]
    for other in present[1:]:
        if not _equal(checkpoint.weights[present[0]], checkpoint.weights[other]):
            raise Unsupported(
                f"checkpoint: {other} differs from {present[0]}: models that have the two apart are not"
                " supported"
            )
    weights = without(checkpoint, present).weights
    kept = {name: checkpoint.weights[present[0]]} if present else {}
    return replace(checkpoint, weights={**weights, **kept})


def has_own_head(checkpoint: Checkpoint, embedding: str) -> bool:
    """Whether the head is another tensor than the embedding, whatever the config says of it."""
    head, table = checkpoint.weights.get(HEAD), checkpoint.weights.get(embedding)
    return head is not None and table is not None and not _equal(head, table)


def headed(checkpoint: Checkpoint, embedding: str) -> Checkpoint:
    """The checkpoint of a config that ties the head: without a head, or untied where the head differs.

    As in transformers the tensors decide: where they differ, the config then says that they are not tied.
    """
    if has_own_head(checkpoint, embedding):
        return replace(checkpoint, config={**checkpoint.config, "tie_word_embeddings": False})
    return joined(checkpoint, embedding, [HEAD])


def prefixed(checkpoint: Checkpoint, prefix: str, bare: Sequence[str]) -> Checkpoint:
    """The checkpoint with the prefix, which a model saved without its head lacks, before names in `bare`."""
    weights = {
        f"{prefix}{name}" if name.startswith(tuple(bare)) else name: weight
        for name, weight in checkpoint.weights.items()
    }
    return replace(checkpoint, weights=weights)


def without(checkpoint: Checkpoint, names: Sequence[str]) -> Checkpoint:
    """The checkpoint without the weights of these names."""
    weights = {key: weight for key, weight in checkpoint.weights.items() if key not in names}
    return replace(checkpoint, weights=weights)


def without_buffers(checkpoint: Checkpoint, pattern: str, shape: tuple[int, ...]) -> Checkpoint:
    """The checkpoint without buffers that transformers does not read, known by whole name and shape."""
    weights = checkpoint.weights.items()
    found = [name for name, weight in weights if re.fullmatch(pattern, name) and weight.shape == shape]
    return without(checkpoint, found)


def is_table(weight: Weight, table: Floats) -> bool:
    """Whether the tensor holds these values, but for the rounding of a file in half precision."""
    if weight.shape != table.shape:
        return False
    return bool(np.abs(weight.read() - table).max(initial=0.0) <= _ROUNDING)


def _equal(first: Weight, second: Weight) -> bool:
    return first.shape == second.shape and np.array_equal(first.read(), second.read())


def transposed(weight: Weight) -> Weight:
    """A stored [columns, rows] as [rows, columns]."""
    return Weight(weight.shape[::-1], partial(_read, weight.read, np.transpose))


def part(weight: Weight, index: int, count: int) -> Weight:
    """One of `count` equal parts, side by side on the last axis."""
    size = weight.shape[-1] // count
    at = slice(index * size, (index + 1) * size)
    return Weight((*weight.shape[:-1], size), partial(_read, weight.read, lambda values: values[..., at]))


def shifted(weight: Weight, by: float) -> Weight:
    """The tensor plus a number."""
    return Weight(weight.shape, partial(_read, weight.read, lambda values: values + np.float32(by)))


def _read(read: Callable[[], Floats], change: Callable[[Floats], Floats]) -> Floats:
    return np.ascontiguousarray(change(read()))
