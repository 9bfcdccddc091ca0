"""An encoder-decoder in plain numpy, fp32, with no ONNX: what every engine is measured against.

All windows go through one layer before the next is read, so one layer's weights are held at a time. The
decoder is taught: it reads given tokens, not its own.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from build.architecture.parts import Attention, Norm, Positions
from build.architecture.positions import distance_buckets, sinusoids
from build.architecture.seq2seq import (
    AnyLayer,
    CrossAttention,
    DecoderLayer,
    EncoderDecoder,
    EncoderLayer,
    Stack,
)
from build.checkpoint import Checkpoint
from build.quantise import Floats, Ids
from build.reference.parts import Observe, Parts, attend, causal_mask, heads, ignore


def final_hidden(
    checkpoint: Checkpoint,
    model: EncoderDecoder,
    sources: Ids,
    targets: Ids,
    advance: Callable[[], None],
    observe: Observe = ignore,
) -> Floats:
    """What the head is applied to, [windows, positions of the target, hidden].

    `sources` and `targets` are ids [windows, positions]; position p scores the token after targets[:, p].
    `advance` is called after each layer of both stacks, `observe` with the weight's name and the output of
    each norm.
    """
    parts = Parts(checkpoint, observe)
    memory = _Encoder(parts, model).run(sources, advance)
    return _Decoder(parts, model).run(targets, memory, advance) * np.float32(model.head_scale)


def head_weight(checkpoint: Checkpoint, model: EncoderDecoder) -> tuple[Floats, Floats]:
    """([vocab, hidden], [vocab]): logits are hidden @ weight.T + bias."""
    head = model.head
    weight = checkpoint.weight(head.parts[0], (head.rows[0], head.columns)).read()
    biases = [checkpoint.weight(name, (head.rows[0],)).read() for name in head.biases]
    return weight, biases[0] if biases else np.zeros(head.rows[0], np.float32)


class _Side:
    """The steps that both stacks share."""

    def __init__(self, parts: Parts, stack: Stack[AnyLayer], norm_first: bool) -> None:
        self._parts = parts
        self._stack = stack
        self._norm_first = norm_first

    def _embed(self, windows: Ids) -> Floats:
        stack, positions, size = self._stack, self._stack.positions, self._stack.hidden_size
        rows: Floats = self._parts.tensor(stack.embedding, (stack.vocab_size, stack.hidden_size))[windows]
        rows = rows * np.float32(stack.embedding_scale)
        if isinstance(positions, Positions):
            table = self._parts.tensor(positions.table, (positions.rows, size))
            rows = rows + table[positions.offset : positions.offset + windows.shape[1]]
        elif positions is not None:
            rows = rows + sinusoids(positions.rows, size)[: windows.shape[1]]
        return self._normed(rows, stack.embedding_norm)

    def _part(self, hidden: Floats, norm: Norm, compute: Callable[[Floats], Floats]) -> Floats:
        if self._norm_first:
            return hidden + compute(self._parts.norm(hidden, norm))
        return self._parts.norm(hidden + compute(hidden), norm)

    def _normed(self, hidden: Floats, norm: Norm | None) -> Floats:
        return hidden if norm is None else self._parts.norm(hidden, norm)

    def _attention(self, attention: Attention, hidden: Floats, mask: Floats) -> Floats:
        packed = self._parts.project(attention.qkv, hidden)
        query, key, value = (heads(part, self._stack.head_dim) for part in packed)
        joined = attend(query, key, value, attention.scale, mask)
        return self._parts.project(attention.output, joined)[0]

    def _distance_bias(self, count: int) -> Floats:
        """[heads or 1, count, count]: what the scores gain by the distance of key and query."""
        relative = self._stack.relative
        if relative is None:
            return np.zeros((1, count, count), np.float32)
        biases = self._parts.tensor(relative.table, (relative.buckets, self._stack.heads))
        distances = np.subtract.outer(np.arange(count), np.arange(count)).T
        buckets = distance_buckets(relative)
        index = np.clip(distances + relative.max_distance, 0, len(buckets) - 1)
        return np.moveaxis(biases[buckets[index]], -1, 0)


class _Encoder(_Side):
    def __init__(self, parts: Parts, model: EncoderDecoder) -> None:
        super().__init__(parts, model.encoder, model.norm_first)
        self._layers = model.encoder.layers

    def run(self, sources: Ids, advance: Callable[[], None]) -> Floats:
        hidden, mask = self._embed(sources), self._distance_bias(sources.shape[1])
        for layer in self._layers:
            hidden = self._layer(layer, hidden, mask)
            advance()
        return self._normed(hidden, self._stack.final_norm)

    def _layer(self, layer: EncoderLayer, hidden: Floats, mask: Floats) -> Floats:
        hidden = self._part(hidden, layer.attention_norm, lambda x: self._attention(layer.attention, x, mask))
        return self._part(hidden, layer.ffn_norm, lambda x: self._parts.feed_forward(layer.ffn, x))


class _Decoder(_Side):
    def __init__(self, parts: Parts, model: EncoderDecoder) -> None:
        super().__init__(parts, model.decoder, model.norm_first)
        self._layers = model.decoder.layers

    def run(self, targets: Ids, memory: Floats, advance: Callable[[], None]) -> Floats:
        count = targets.shape[1]
        hidden, mask = self._embed(targets), self._distance_bias(count) + causal_mask(count)
        for layer in self._layers:
            hidden = self._layer(layer, hidden, memory, mask)
            advance()
        return self._normed(hidden, self._stack.final_norm)

    def _layer(self, layer: DecoderLayer, hidden: Floats, memory: Floats, mask: Floats) -> Floats:
        hidden = self._part(hidden, layer.attention_norm, lambda x: self._attention(layer.attention, x, mask))
        hidden = self._part(hidden, layer.cross_norm, lambda x: self._cross(layer.cross, x, memory))
        return self._part(hidden, layer.ffn_norm, lambda x: self._parts.feed_forward(layer.ffn, x))

    def _cross(self, cross: CrossAttention, hidden: Floats, memory: Floats) -> Floats:
        query = heads(self._parts.project(cross.query, hidden)[0], self._stack.head_dim)
        key, value = (
            heads(part, self._stack.head_dim) for part in self._parts.project(cross.key_value, memory)
        )
        everything = np.zeros((query.shape[2], key.shape[2]), np.float32)
        joined = attend(query, key, value, cross.scale, everything)
        return self._parts.project(cross.output, joined)[0]
