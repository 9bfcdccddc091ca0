"""The parts of a model in plain numpy, fp32: what every engine is measured against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from build.architecture.parts import Activation, FeedForward, Norm, NormKind, Projection
from build.checkpoint import Checkpoint
from build.quantise import Floats
from build.reference.erf import erf

Observe = Callable[[str, Floats], None]


def ignore(_norm: str, _values: Floats) -> None:
    """The default of `Parts`: observes nothing."""


class Parts:
    """Reads each weight when it is needed.

    `observe` gets the name of a norm's weight with its output, and that of a product's first part with its
    input.
    """

    def __init__(self, checkpoint: Checkpoint, observe: Observe = ignore) -> None:
        self._checkpoint = checkpoint
        self.observe = observe

    def tensor(self, name: str, shape: tuple[int, ...]) -> Floats:
        return self._checkpoint.weight(name, shape).read()

    def norm(self, values: Floats, norm: Norm) -> Floats:
        if norm.kind is NormKind.LAYER:
            values = values - values.mean(axis=-1, keepdims=True, dtype=np.float32)
        mean_square = np.mean(values * values, axis=-1, keepdims=True, dtype=np.float32)
        normed: Floats = values / np.sqrt(mean_square + np.float32(norm.epsilon))
        normed *= self.tensor(norm.weight, (norm.size,))
        if norm.bias is not None:
            normed += self.tensor(norm.bias, (norm.size,))
        self.observe(norm.weight, normed)
        return normed

    def feed_forward(self, ffn: FeedForward, hidden: Floats) -> Floats:
        first, *rest = self.project(ffn.inner, hidden)
        active = _ACTIVATIONS[ffn.activation](first)
        inputs = active * rest[0] if ffn.gated else active
        return self.project(ffn.outer, inputs)[0]

    def project(self, projection: Projection, hidden: Floats) -> list[Floats]:
        """One product for each part."""
        self.observe(projection.parts[0], hidden)
        products = []
        for index, (name, rows) in enumerate(zip(projection.parts, projection.rows, strict=True)):
            product = hidden @ self.tensor(name, (rows, projection.columns)).T
            if projection.biases:
                product += self.tensor(projection.biases[index], (rows,))
            products.append(product)
        return products


def heads(packed: Floats, size: int) -> Floats:
    """[windows, positions, heads * size] to [windows, heads, positions, size]."""
    return packed.reshape(*packed.shape[:2], -1, size).swapaxes(1, 2)


def attend(query: Floats, key: Floats, value: Floats, scale: float, mask: Floats) -> Floats:
    """softmax(scale * q k^T + mask) v for [windows, heads, positions, size]; fewer kv heads are shared.

    `mask` is [positions, positions of the keys], or one of these for each head. Returns
    [windows, positions, heads * size]. Scores of one window and head are held at a time.
    """
    group = query.shape[1] // key.shape[1]
    masks = np.broadcast_to(mask, (query.shape[1], *mask.shape[-2:]))
    attended = np.empty_like(query)
    for window, head in np.ndindex(query.shape[:2]):
        k, v = key[window, head // group], value[window, head // group]
        scores = np.float32(scale) * query[window, head] @ k.T + masks[head]
        attended[window, head] = softmax(scores) @ v
    joined: Floats = attended.swapaxes(1, 2).reshape(query.shape[0], query.shape[2], -1)
    return joined


def causal_mask(positions: int, window: int | None = None) -> Floats:
    """0 where a position (row) sees another (column), minus infinity elsewhere."""
    distance = np.subtract.outer(np.arange(positions), np.arange(positions))
    seen = distance >= 0
    if window is not None:
        seen &= distance < window
    mask: Floats = np.where(seen, np.float32(0), np.float32(-np.inf))
    return mask


def softmax(scores: Floats) -> Floats:
    weights: Floats = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def rotate(values: Floats, frequencies: tuple[float, ...]) -> Floats:
    """Rotary embedding: the first half of each head turns against the second."""
    angles = np.outer(np.arange(values.shape[2]), np.asarray(frequencies))
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    first, second = np.split(values, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def _silu(x: Floats) -> Floats:
    return x / (1 + np.exp(-x))


def _gelu(x: Floats) -> Floats:
    exact: Floats = x / 2 * (1 + erf(x / np.float32(np.sqrt(2))))
    return exact


def _gelu_tanh(x: Floats) -> Floats:
    # x * x, since numpy's x**3 takes 20 times as long.
    inner = np.float32(np.sqrt(2 / np.pi)) * x * (1 + np.float32(0.044715) * (x * x))
    approximate: Floats = x / 2 * (1 + np.tanh(inner))
    return approximate


def _relu(x: Floats) -> Floats:
    return np.maximum(x, np.float32(0))


_ACTIVATIONS: dict[Activation, Callable[[Floats], Floats]] = {
    Activation.SILU: _silu,
    Activation.GELU: _gelu,
    Activation.GELU_TANH: _gelu_tanh,
    Activation.RELU: _relu,
}
