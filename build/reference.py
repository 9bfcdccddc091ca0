"""The model in plain numpy, fp32, with no ONNX: what every engine is measured against.

All windows go through one layer before the next is read, so one layer's weights are held at a time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from build.architecture import Architecture, Layer, Projection
from build.checkpoint import Checkpoint
from build.quantise import Floats, Ids

Observe = Callable[[str, Floats], None]


def final_hidden(
    checkpoint: Checkpoint,
    architecture: Architecture,
    windows: Ids,
    advance: Callable[[], None],
    observe: Observe = lambda _norm, _values: None,
) -> Floats:
    """What the head is applied to, [windows, positions, hidden], for ids [windows, positions].

    `advance` is called after each layer, `observe` with the name and the output of each norm.
    """
    model = _Reference(checkpoint, architecture, observe)
    hidden = model.embed(windows)
    for layer in architecture.layers:
        hidden = model.layer(layer, hidden)
        advance()
    return model.norm(hidden, architecture.final_norm)


def head_weight(checkpoint: Checkpoint, architecture: Architecture) -> Floats:
    """[vocab, hidden]; logits are hidden @ head_weight.T."""
    head = architecture.head
    return checkpoint.weight(head.parts[0], (head.rows[0], head.columns)).read()


class _Reference:
    def __init__(self, checkpoint: Checkpoint, architecture: Architecture, observe: Observe) -> None:
        self._checkpoint = checkpoint
        self._arch = architecture
        self._observe = observe

    def embed(self, windows: Ids) -> Floats:
        shape = (self._arch.vocab_size, self._arch.hidden_size)
        rows: Floats = self._checkpoint.weight(self._arch.embedding, shape).read()[windows]
        return rows

    def layer(self, layer: Layer, hidden: Floats) -> Floats:
        hidden = hidden + self._attention(layer, self.norm(hidden, layer.input_norm))
        return hidden + self._feed_forward(layer, self.norm(hidden, layer.post_norm))

    def norm(self, values: Floats, name: str) -> Floats:
        """Root mean square over the last axis."""
        weight = self._checkpoint.weight(name, (values.shape[-1],)).read()
        mean_square = np.mean(values * values, axis=-1, keepdims=True, dtype=np.float32)
        normed: Floats = values / np.sqrt(mean_square + np.float32(self._arch.norm_epsilon)) * weight
        self._observe(name, normed)
        return normed

    def _attention(self, layer: Layer, hidden: Floats) -> Floats:
        query, key, value = (self._heads(part) for part in self._project(layer.qkv, hidden))
        if layer.q_norm is not None and layer.k_norm is not None:
            query, key = self.norm(query, layer.q_norm), self.norm(key, layer.k_norm)
        query, key = self._rotate(query), self._rotate(key)
        group = self._arch.heads // self._arch.kv_heads
        attended = np.empty_like(query)
        mask = _mask(hidden.shape[1], layer.window)
        for window in range(query.shape[0]):  # scores of one window and head at a time
            for head in range(self._arch.heads):
                k, v = key[window, head // group], value[window, head // group]
                attended[window, head] = _softmax(self._scale() * query[window, head] @ k.T + mask) @ v
        joined = attended.swapaxes(1, 2).reshape(*hidden.shape[:2], -1)
        return self._project(layer.output, joined)[0]

    def _scale(self) -> np.float32:
        return np.float32(self._arch.head_dim**-0.5)

    def _heads(self, packed: Floats) -> Floats:
        """[windows, positions, heads * size] to [windows, heads, positions, size]."""
        apart = packed.reshape(*packed.shape[:2], -1, self._arch.head_dim)
        return apart.swapaxes(1, 2)

    def _rotate(self, values: Floats) -> Floats:
        """Rotary embedding: the first half of each head turns against the second."""
        frequencies = np.asarray(self._arch.inverse_frequencies)
        angles = np.outer(np.arange(values.shape[2]), frequencies)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        first, second = np.split(values, 2, axis=-1)
        turned = [first * cos - second * sin, second * cos + first * sin]
        return np.concatenate(turned, axis=-1)

    def _feed_forward(self, layer: Layer, hidden: Floats) -> Floats:
        gate, up = self._project(layer.gate_up, hidden)
        return self._project(layer.down, gate / (1 + np.exp(-gate)) * up)[0]

    def _project(self, projection: Projection, hidden: Floats) -> list[Floats]:
        """One product for each part."""
        products = []
        for index, (name, rows) in enumerate(zip(projection.parts, projection.rows, strict=True)):
            weight = self._checkpoint.weight(name, (rows, projection.columns)).read()
            product = hidden @ weight.T
            if projection.biases:
                product += self._checkpoint.weight(projection.biases[index], (rows,)).read()
            products.append(product)
        return products


def _mask(positions: int, window: int | None) -> Floats:
    """0 where a position (row) sees another (column), minus infinity elsewhere."""
    distance = np.subtract.outer(np.arange(positions), np.arange(positions))
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    return np.where(seen, np.float32(0), np.float32(-np.inf))


def _softmax(scores: Floats) -> Floats:
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights
