"""Where the server's own kernels find a graph's weights: `kernels.json`, an index into its external data.

They compute decoders of the Llama line in int8, as the graph of this dialect does; the server runs the graph
where they cannot run (server/kernels). A model that they do not know has no index.
"""

from __future__ import annotations

import json
from typing import Any

import onnx_ir as ir

from build.architecture.parts import Activation, Architecture, Layer, Norm, Projection
from build.dialects.contents import rotations
from build.dialects.onnxruntime.rounded import CREST
from build.dialects.onnxruntime.store import Store, StoredRows

VERSION = 1
_HEAD_VECTOR = 16
Json = dict[str, Any]


def runs_on_kernels(architecture: Architecture) -> bool:
    """Whether the kernels have every part of the model, in layers of one width.

    The kinds of norms are not checked here: only `rotatable` models get here.
    """
    layers = architecture.layers
    epsilons = {norm.epsilon for layer in layers for norm in layer.norms()} | {
        architecture.final_norm.epsilon
    }
    return (
        architecture.positions is None
        and len(rotations(architecture)) == 1
        and len(epsilons) == 1
        and architecture.head_dim % _HEAD_VECTOR == 0
        and len({layer.attention.scale for layer in layers}) == 1
        and len({layer.ffn.outer.columns for layer in layers}) == 1
        and all(_known(layer, architecture.max_positions) for layer in layers)
    )


def _known(layer: Layer, positions: int) -> bool:
    attention, ffn = layer.attention, layer.ffn
    sees_all = attention.window is None or attention.window >= positions
    return sees_all and attention.rotary is not None and ffn.gated and ffn.activation is Activation.SILU


def encode_index(architecture: Architecture, store: Store) -> bytes:
    """The content of `kernels.json`."""
    first = architecture.layers[0].attention
    index = {
        "version": VERSION,
        "layers": len(architecture.layers),
        "hidden": architecture.hidden_size,
        "heads": architecture.heads,
        "kv_heads": architecture.kv_heads,
        "head_dim": architecture.head_dim,
        "vocab": architecture.vocab_size,
        "epsilon": architecture.final_norm.epsilon,
        "head_epsilon": first.q_norm.epsilon if first.q_norm else architecture.final_norm.epsilon,
        "scale": first.scale,
        "crest": CREST,
        "embedding_scale": architecture.embedding_scale,
        "embedding": _place(store.tensors[architecture.embedding]),
        "cosines": _place(store.tensors["cosines_0"]),
        "sines": _place(store.tensors["sines_0"]),
        "final_norm": _norm(store, architecture.final_norm),
        "head": _product(store, architecture.head),
        "layer": [_layer(store, layer) for layer in architecture.layers],
    }
    return json.dumps(index, indent=1).encode()


def _layer(store: Store, layer: Layer) -> Json:
    attention, ffn = layer.attention, layer.ffn
    gate, up = store.rounded[ffn.inner]
    return {
        "input_norm": _norm(store, layer.input_norm),
        "query_norm": _norm(store, attention.q_norm),
        "key_norm": _norm(store, attention.k_norm),
        "ffn_norm": _norm(store, layer.ffn_norm),
        "qkv": _product(store, attention.qkv),
        "output": _product(store, attention.output),
        "gate": [_rows(gate)],
        "up": [_rows(up)],
        "down": _product(store, ffn.outer),
    }


def _norm(store: Store, norm: Norm | None) -> Json | None:
    return _place(store.tensors[norm.weight]) if norm else None


def _product(store: Store, projection: Projection) -> list[Json]:
    """The parts of a product, stored one below the other."""
    return [_rows(part) for part in store.rounded[projection]]


def _rows(stored: StoredRows) -> Json:
    bias = None if stored.bias is None else _place(stored.bias)
    return {"weight": _place(stored.weight), "scales": _place(stored.scales), "bias": bias}


def _place(value: ir.Value) -> Json:
    tensor = value.const_value
    assert isinstance(tensor, ir.ExternalTensor)
    return {"offset": tensor.offset, "shape": list(tensor.shape.numpy())}
