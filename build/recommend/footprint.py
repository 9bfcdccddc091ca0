"""Memory of a server that runs one model, with every slot full.

    memory = weights + caches + working + server

On a CPU that is the server and all its processes; on a GPU its own memory. The constants were measured on
ONNX Runtime 1.32 and tritonserver 2.51 (see docs/choosing.md); those of a GPU are assumptions.
"""

from __future__ import annotations

from dataclasses import dataclass

from build.quantise import Precision
from build.recommend.device import Kind
from build.recommend.weights import loaded_bytes
from build.shape import Shape

_MIB = 2**20
# Python, numpy, ONNX Runtime and a graph of some hundred nodes, without weights.
_PROCESS = 60 * _MIB
# tritonserver, the launcher, and the steps that tokenize and detokenize; a token of the tokenizer's.
_TRITON = 120 * _MIB
_TOKEN = 650
# CUDA's context, cuBLAS and TensorRT.
_CUDA = 700 * _MIB
_MAX_CONTEXT = 2048
_MAX_SOURCE = 1024
_PREFILL_CHUNK = 128


@dataclass(frozen=True)
class Serving:
    """`context` positions of a slot hold prompt and answer, or the answer alone where an encoder reads the
    prompt: then `source` positions are its.
    """

    slots: int
    context: int
    source: int


def serving(shape: Shape, slots: int, context: int | None) -> Serving:
    """What the server's settings make of it; the model's positions may be fewer than `context`."""
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

    @property
    def engine(self) -> int:
        """Of the process that runs the model alone, on a CPU."""
        return self.total - self.server + _PROCESS


def footprint(shape: Shape, precision: Precision, kind: Kind, served: Serving) -> Footprint:
    return Footprint(
        weights=loaded_bytes(shape, precision, kind),
        caches=served.slots * (served.context + served.source) * token_bytes(shape, kind),
        working=_working(shape, served),
        server=_PROCESS + _TRITON + _TOKEN * shape.vocab_size if kind is Kind.CPU else _CUDA,
    )


def token_bytes(shape: Shape, kind: Kind) -> int:
    """Of the keys and values of one position, over all layers of the decoder."""
    return 2 * kind.wide_bytes * shape.layers * shape.kv_heads * shape.head_dim


def _working(shape: Shape, served: Serving) -> int:
    """Float32: logits, kept for every number of rows and every slot, and the activations of a prefill."""
    logits = (served.slots * (served.slots + 1) // 2 + served.slots) * shape.vocab_size
    tokens = served.source or min(_PREFILL_CHUNK, served.context)
    inner = shape.intermediate_size * (3 if shape.gated else 2)
    activations = tokens * (4 * shape.hidden_size + 3 * shape.heads * shape.head_dim + inner)
    scores = shape.heads * tokens * (served.source or served.context)
    return 4 * (logits + activations + scores)
