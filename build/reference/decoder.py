"""A decoder in plain numpy, fp32, with no ONNX: what every engine is measured against.

All windows go through one layer before the next is read, so one layer's weights are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from build.architecture.parts import Architecture, Attention, Layer, Norm
from build.checkpoint import Checkpoint
from build.quantise import Floats, Ids
from build.reference.parts import Observe, Parts, attend, causal_mask, heads, ignore, rotate


def final_hidden(
    checkpoint: Checkpoint,
    architecture: Architecture,
    windows: Ids,
    advance: Callable[[], None],
    observe: Observe = ignore,
) -> Floats:
    """What the head is applied to, [windows, positions, hidden], for ids [windows, positions].

    `advance` is called after each layer, `observe` as in `Parts`.
    """
    model = Decoder(Parts(checkpoint, observe), architecture)
    hidden = model.embed(windows)
    for layer in architecture.layers:
        hidden = model.layer(layer, hidden)
        advance()
    return model.norm(hidden, architecture.final_norm)


def head_weight(checkpoint: Checkpoint, architecture: Architecture) -> Floats:
    """[vocab, hidden]; logits are hidden @ head_weight.T."""
    head = architecture.head
    return checkpoint.weight(head.parts[0], (head.rows[0], head.columns)).read()


class Decoder:
    """The steps of the model, for what does more than run them in order.

    Each takes and returns the stream [windows, positions, hidden]; `norm` also reads single heads.
    """

    def __init__(self, parts: Parts, architecture: Architecture) -> None:
        self._parts = parts
        self._arch = architecture

    def embed(self, windows: Ids) -> Floats:
        """The stream before the first layer, for ids [windows, positions]."""
        arch, positions = self._arch, self._arch.positions
        rows: Floats = self._parts.tensor(arch.embedding, (arch.vocab_size, arch.hidden_size))[windows]
        rows = rows * np.float32(arch.embedding_scale)
        if positions is None:
            return rows
        table = self._parts.tensor(positions.table, (positions.rows, arch.hidden_size))
        return rows + table[positions.offset : positions.offset + windows.shape[1]]

    def layer(self, layer: Layer, hidden: Floats) -> Floats:
        """The stream after the layer."""
        attended = self._attention(layer.attention, self.norm(hidden, layer.input_norm))
        hidden = hidden + self._normed(attended, layer.output_norm)
        ffn = self._parts.feed_forward(layer.ffn, self.norm(hidden, layer.ffn_norm))
        return hidden + self._normed(ffn, layer.ffn_output_norm)

    def norm(self, values: Floats, norm: Norm) -> Floats:
        return self._parts.norm(values, norm)

    def _normed(self, values: Floats, norm: Norm | None) -> Floats:
        return values if norm is None else self.norm(values, norm)

    def _attention(self, attention: Attention, hidden: Floats) -> Floats:
        packed = self._parts.project(attention.qkv, hidden)
        query, key, value = (heads(part, self._arch.head_dim) for part in packed)
        query, key = self._normed(query, attention.q_norm), self._normed(key, attention.k_norm)
        if attention.rotary is not None:
            query, key = rotate(query, attention.rotary), rotate(key, attention.rotary)
        mask = causal_mask(hidden.shape[1], attention.window)
        joined = attend(query, key, value, attention.scale, mask)
        self._parts.observe(attention.output.parts[0], joined)
        return self._parts.project(attention.output, joined)[0]
