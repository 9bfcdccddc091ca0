"""The weights of an encoder-decoder, and the tables its positions need: one file for both graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from build.architecture.parts import Attention, FeedForward, Positions
from build.architecture.positions import distance_buckets, sinusoids
from build.architecture.seq2seq import AnyLayer, CrossAttention, EncoderDecoder, EncoderLayer, Stack
from build.dialects.contents import Store
from build.dialects.encoding import Role


def store_encoder_decoder(store: Store, model: EncoderDecoder, advance: Callable[[], None]) -> None:
    """Everything that the encoder's and the decoder's graph need; `advance` is called after each layer."""
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
    _store_positions(store, stack)
    for norm in (stack.embedding_norm, stack.final_norm):
        store.add_norm(norm)
    for index, layer in enumerate(stack.layers):
        _store_layer(store, f"{side}_{index}", layer)
        advance()


def _store_positions(store: Store, stack: Stack[AnyLayer]) -> None:
    table = position_table(stack)
    if isinstance(stack.positions, Positions):
        store.add_tensor(stack.positions.table, (stack.positions.rows, stack.hidden_size))
    elif stack.positions and table and not store.has(table):
        store.add_values(table, sinusoids(stack.positions.rows, stack.hidden_size))
    if stack.relative:
        biases = store.checkpoint.weight(stack.relative.table, (stack.relative.buckets, stack.heads)).read()
        by_distance = np.ascontiguousarray(biases[distance_buckets(stack.relative)].T)
        store.add_values(distance_table(stack), by_distance)


def _store_layer(store: Store, name: str, layer: AnyLayer) -> None:
    _store_attention(store, name, layer.attention)
    _store_feed_forward(store, name, layer.ffn)
    for norm in (layer.attention_norm, layer.ffn_norm):
        store.add_norm(norm)
    if not isinstance(layer, EncoderLayer):
        store.add_norm(layer.cross_norm)
        _store_cross(store, f"{name}_cross", layer.cross)


def _store_attention(store: Store, name: str, attention: Attention) -> None:
    store.add_projection(f"{name}_qkv", attention.qkv, Role.SENSITIVE)
    store.add_projection(f"{name}_output", attention.output, Role.ROBUST)


def _store_cross(store: Store, name: str, cross: CrossAttention) -> None:
    store.add_projection(f"{name}_query", cross.query, Role.ROBUST)
    store.add_projection(f"{name}_key_value", cross.key_value, Role.SENSITIVE)
    store.add_projection(f"{name}_output", cross.output, Role.ROBUST)


def _store_feed_forward(store: Store, name: str, ffn: FeedForward) -> None:
    store.add_projection(f"{name}_{'gate_up' if ffn.gated else 'up'}", ffn.inner, Role.ROBUST)
    store.add_projection(f"{name}_down", ffn.outer, Role.SENSITIVE)
