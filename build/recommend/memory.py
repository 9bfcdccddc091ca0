"""Bytes of a model, from its published dimensions alone: on disk, and of a server with every slot full.

    disk   = tables + products + tokenizer
    memory = weights + caches + working + server

On a CPU the memory is that of the server and all its processes, on a GPU the device's. Constants of a CPU
were measured on ONNX Runtime 1.32 and tritonserver 2.51 (docs/measured.md); those of a GPU are assumptions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from build.dialects.encoding import BLOCK_SIZES, Role
from build.quantise import Precision
from build.shape import Positions, Shape

_MIB = 2**20
_BYTES = {Precision.FP32: 4.0, Precision.FP16: 2.0, Precision.BF16: 2.0}
# tokenizer.json and the table of the tokens' bytes, for each of them: 55 + 9 bytes of SmolLM2's.
_TOKENIZER_BYTES = 64
# Python, numpy, ONNX Runtime and a graph of some hundred nodes, without weights.
PROCESS = 60 * _MIB
# tritonserver, the launcher, and the steps that tokenize and detokenize; a token of the tokenizer's.
_TRITON = 120 * _MIB
_TOKEN = 650
# CUDA's context, cuBLAS and TensorRT.
_CUDA = 700 * _MIB
# The server's defaults.
_MAX_CONTEXT = 2048
_MAX_SOURCE = 1024
PREFILL_CHUNK = 128


@dataclass(frozen=True)
class Product:
    """`count` weights [rows, columns]."""

    rows: int
    columns: int
    role: Role
    count: int

    @property
    def weights(self) -> int:
        return self.rows * self.columns * self.count


def head(shape: Shape) -> Product:
    return Product(shape.vocab_size, shape.hidden_size, Role.SENSITIVE, 1)


def answering(shape: Shape) -> list[Product]:
    """The products that every token of an answer passes through, without the head."""
    inner, hidden = shape.heads * shape.head_dim, shape.hidden_size
    cross = [Product(*size, Role.ROBUST, shape.layers) for size in ((inner, hidden), (hidden, inner))]
    return _layers(shape, shape.layers) + (cross if shape.encoder_layers else [])


def reading(shape: Shape) -> list[Product]:
    """The products that every token of a prompt passes through: the encoder, if any, and the cross keys."""
    if not shape.encoder_layers:
        return answering(shape)
    keys = Product(2 * shape.heads * shape.head_dim, shape.hidden_size, Role.SENSITIVE, shape.layers)
    return [*_layers(shape, shape.encoder_layers), keys]


def stored(shape: Shape) -> list[Product]:
    """Every product once."""
    return [*(reading(shape) if shape.encoder_layers else []), *answering(shape), head(shape)]


def _layers(shape: Shape, count: int) -> list[Product]:
    inner, hidden = shape.heads * shape.head_dim, shape.hidden_size
    return [
        Product((shape.heads + 2 * shape.kv_heads) * shape.head_dim, hidden, Role.SENSITIVE, count),
        Product(hidden, inner, Role.ROBUST, count),
        Product(shape.intermediate_size * (2 if shape.gated else 1), hidden, Role.ROBUST, count),
        Product(hidden, shape.intermediate_size, Role.SENSITIVE, count),
    ]


def product_bytes(products: Iterable[Product], precision: Precision, gpu: bool) -> float:
    """Of weights and scales. At int4, the products that rounding harms most stay in 8 bits."""
    size = 0.0
    for product in products:
        bits = 4 if precision is Precision.INT4 and product.role is Role.ROBUST else 8
        if precision in _BYTES:
            size += _BYTES[precision] * product.weights
        elif gpu:  # TensorRT has a scale of 16 bits for a row, or for 64 weights of int4
            size += product.weights * (bits / 8 + 2 / (64 if bits == 4 else product.columns))
        else:  # ONNX Runtime has one of 32 bits for a block
            blocks = -(-product.columns // BLOCK_SIZES[bits]) * product.rows * product.count
            size += blocks * (BLOCK_SIZES[bits] * bits / 8 + 4)
    return size


def disk_bytes(shape: Shape, precision: Precision, gpu: bool) -> int:
    """Size of the engine's folder. A matrix that is both the embedding and the head is there once."""
    products = stored(shape)
    if shape.tied and precision in _BYTES:
        products.remove(head(shape))
    size = _table_bytes(shape, gpu) + product_bytes(products, precision, gpu)
    return round(size) + _TOKENIZER_BYTES * shape.vocab_size


def _table_bytes(shape: Shape, gpu: bool) -> int:
    """The embedding, and positions or cosines and sines."""
    positions = {
        Positions.ROTARY: shape.rotary_tables * shape.head_dim,
        Positions.LEARNED: shape.hidden_size * (2 if shape.encoder_layers else 1),
        Positions.SINUSOIDAL: shape.hidden_size,
        Positions.RELATIVE: 0,
    }[shape.positions]
    return wide_bytes(gpu) * (shape.vocab_size * shape.hidden_size + shape.max_positions * positions)


def wide_bytes(gpu: bool) -> int:
    """Of a number that no precision rounds: in caches, tables, activations."""
    return 2 if gpu else 4


@dataclass(frozen=True)
class Serving:
    """`context` positions of a slot hold prompt and answer, or the answer alone where an encoder reads the
    prompt: then `source` positions are its.
    """

    slots: int
    context: int
    source: int


def serving(shape: Shape, slots: int, context: int | None) -> Serving:
    """The positions of a slot by the server's settings; the model's may be fewer than `context`."""
    wanted = min(_MAX_CONTEXT, shape.max_positions) if context is None else context
    source = min(_MAX_SOURCE if context is None else context, shape.max_positions)
    return Serving(slots, wanted, source if shape.encoder_layers else 0)


@dataclass(frozen=True)
class Footprint:
    """Bytes."""

    weights: int
    caches: int
    working: int
    server: int

    @property
    def total(self) -> int:
        return self.weights + self.caches + self.working + self.server


def footprint(shape: Shape, precision: Precision, gpu: bool, served: Serving) -> Footprint:
    weights = disk_bytes(shape, precision, gpu) - _TOKENIZER_BYTES * shape.vocab_size
    if not gpu:
        # ONNX Runtime packs a product's weights and drops the file's; a tied head is packed, too.
        weights = round(_table_bytes(shape, gpu) + product_bytes(stored(shape), precision, gpu))
    # Float32: logits, kept for every number of rows and every slot, and the activations of a prefill.
    logits = (served.slots * (served.slots + 1) // 2 + served.slots) * shape.vocab_size
    tokens = served.source or min(PREFILL_CHUNK, served.context)
    inner = shape.intermediate_size * (3 if shape.gated else 2)
    activations = tokens * (4 * shape.hidden_size + 3 * shape.heads * shape.head_dim + inner)
    scores = shape.heads * tokens * (served.source or served.context)
    return Footprint(
        weights=weights,
        caches=served.slots * (served.context + served.source) * token_bytes(shape, gpu),
        working=4 * (logits + activations + scores),
        server=_CUDA if gpu else PROCESS + _TRITON + _TOKEN * shape.vocab_size,
    )


def token_bytes(shape: Shape, gpu: bool) -> int:
    """Of the keys and values of one position, over all layers of the decoder."""
    return 2 * wide_bytes(gpu) * shape.layers * shape.kv_heads * shape.head_dim
