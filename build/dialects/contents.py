"""The contents of a model's graphs in either dialect: its weights, and tables computed from its description.

The store of a dialect decides how a tensor and a product are written. The order of the calls here is the
order of the weight file.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import numpy as np

from build.architecture.parts import Architecture, Attention, FeedForward, Positions
from build.architecture.positions import distance_buckets, sinusoids
from build.architecture.seq2seq import AnyLayer, EncoderDecoder, EncoderLayer, Stack
from build.dialects.encoding import Role
from build.dialects.store import Store


class Scored(Enum):
    """Which positions get logits: a server samples from the last, verification scores all."""

    LAST = "last"
    ALL = "all"


def store_decoder(store: Store, architecture: Architecture, advance: Callable[[], None]) -> None:
    """Stores all that the decoder's graph needs; `advance` is called after each layer."""
    hidden = architecture.hidden_size
    store.add_tensor(architecture.embedding, (architecture.vocab_size, hidden))
    if architecture.positions:
        store.add_tensor(architecture.positions.table, (architecture.positions.rows, hidden))
    for index, layer in enumerate(architecture.layers):
        for norm in (*layer.norms(), layer.attention.q_norm, layer.attention.k_norm):
            store.add_norm(norm)
        _store_products(store, f"layer_{index}", layer.attention, layer.ffn)
        advance()
    for number, frequencies in enumerate(rotations(architecture)):
        angles = np.outer(np.arange(architecture.max_positions, dtype=np.float64), np.asarray(frequencies))
        store.add_values(f"cosines_{number}", np.cos(angles).astype(np.float32))
        store.add_values(f"sines_{number}", np.sin(angles).astype(np.float32))
    store.add_norm(architecture.final_norm)
    store.add_projection("head", architecture.head, Role.SENSITIVE)


def rotations(architecture: Architecture) -> list[tuple[float, ...]]:
    """The different rotary frequencies of the layers, in order of appearance.

    Number N of them has the tables `cosines_N` and `sines_N`, [positions, head_dim / 2].
    """
    found = [layer.attention.rotary for layer in architecture.layers if layer.attention.rotary]
    return list(dict.fromkeys(found))


def store_encoder_decoder(store: Store, model: EncoderDecoder, advance: Callable[[], None]) -> None:
    """Stores all that the encoder's and the decoder's graph need; `advance` is called after each layer."""
    _store_stack(store, "encoder", model.encoder, advance)
    _store_stack(store, "decoder", model.decoder, advance)
    store.add_projection("head", model.head, Role.SENSITIVE)


def position_table(stack: Stack[AnyLayer]) -> str | None:
    """The name under which the rows of the positions are stored."""
    if stack.positions is None:
        return None
    if isinstance(stack.positions, Positions):
        return stack.positions.table
    return f"sinusoids_{stack.positions.rows}"


def distance_table(stack: Stack[AnyLayer]) -> str:
    """The name of [heads, distances], as `build.architecture.positions.distance_buckets` orders them."""
    assert stack.relative is not None
    return f"{stack.relative.table}_by_distance"


def _store_stack(store: Store, side: str, stack: Stack[AnyLayer], advance: Callable[[], None]) -> None:
    store.add_tensor(stack.embedding, (stack.vocab_size, stack.hidden_size))
    table = position_table(stack)
    if isinstance(stack.positions, Positions):
        store.add_tensor(stack.positions.table, (stack.positions.rows, stack.hidden_size))
    elif stack.positions and table and table not in store.tensors:
        store.add_values(table, sinusoids(stack.positions.rows, stack.hidden_size))
    if stack.relative:
        biases = store.checkpoint.weight(stack.relative.table, (stack.relative.buckets, stack.heads)).read()
        by_distance = np.ascontiguousarray(biases[distance_buckets(stack.relative)].T)
        store.add_values(distance_table(stack), by_distance)
    for norm in (stack.embedding_norm, stack.final_norm):
        store.add_norm(norm)
    for index, layer in enumerate(stack.layers):
        name = f"{side}_{index}"
        _store_products(store, name, layer.attention, layer.ffn)
        for norm in (layer.attention_norm, layer.ffn_norm):
            store.add_norm(norm)
        if not isinstance(layer, EncoderLayer):
            store.add_norm(layer.cross_norm)
            store.add_projection(f"{name}_cross_query", layer.cross.query, Role.ROBUST)
            store.add_projection(f"{name}_cross_key_value", layer.cross.key_value, Role.SENSITIVE)
            store.add_projection(f"{name}_cross_output", layer.cross.output, Role.ROBUST)
        advance()


def _store_products(store: Store, name: str, attention: Attention, ffn: FeedForward) -> None:
    store.add_projection(f"{name}_qkv", attention.qkv, Role.SENSITIVE)
    store.add_projection(f"{name}_output", attention.output, Role.ROBUST)
    store.add_projection(f"{name}_{'gate_up' if ffn.gated else 'up'}", ffn.inner, Role.ROBUST)
    store.add_projection(f"{name}_down", ffn.outer, Role.SENSITIVE)
