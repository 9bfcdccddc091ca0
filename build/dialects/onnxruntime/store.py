"""The weights of a model, encoded and written once, as initializers that every graph variant shares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from build.architecture import Architecture, Layer, Projection
from build.checkpoint import Checkpoint
from build.dialects.encoding import Role, bias, encode
from build.dialects.onnxruntime.weight_file import WeightFile
from build.quantise import Blocks, Floats, Precision


@dataclass(frozen=True)
class StoredProjection:
    """A dense [rows, columns] weight where `scales` is None, else blocks as MatMulNBits holds them."""

    name: str
    weight: ir.Value
    scales: ir.Value | None
    bias: ir.Value | None
    rows: int
    columns: int
    bits: int
    block_size: int


@dataclass(frozen=True)
class StoredLayer:
    input_norm: ir.Value
    qkv: StoredProjection
    qk_norms: tuple[ir.Value, ir.Value] | None
    output: StoredProjection
    post_norm: ir.Value
    gate_up: StoredProjection
    down: StoredProjection
    window: int | None


@dataclass(frozen=True)
class StoredModel:
    """`cosines` and `sines` are [max_positions, head_dim / 2]."""

    embedding: ir.Value
    cosines: ir.Value
    sines: ir.Value
    layers: tuple[StoredLayer, ...]
    final_norm: ir.Value
    head: StoredProjection


@dataclass(frozen=True)
class Store:
    checkpoint: Checkpoint
    architecture: Architecture
    precision: Precision
    file: WeightFile

    def model(self, advance: Callable[[], None]) -> StoredModel:
        """Everything the graph needs; `advance` is called after each layer."""
        cosines, sines = rotary_tables(self.architecture)
        embedding = self._embedding()
        layers = []
        for index, layer in enumerate(self.architecture.layers):
            layers.append(self._layer(f"layer_{index}", layer))
            advance()
        return StoredModel(
            embedding=embedding,
            cosines=self.file.add("cosines", cosines),
            sines=self.file.add("sines", sines),
            layers=tuple(layers),
            final_norm=self._norm(self.architecture.final_norm, self.architecture.hidden_size),
            head=self._head(embedding),
        )

    def _embedding(self) -> ir.Value:
        arch = self.architecture
        shape = (arch.vocab_size, arch.hidden_size)
        return self.file.add("embedding", self.checkpoint.weight(arch.embedding, shape).read())

    def _head(self, embedding: ir.Value) -> StoredProjection:
        head = self.architecture.head
        if self.architecture.tied_head and self.precision is Precision.FP32:
            return _dense("head", embedding, None, head)
        return self._projection("head", head, Role.SENSITIVE)

    def _layer(self, name: str, layer: Layer) -> StoredLayer:
        return StoredLayer(
            input_norm=self._norm(layer.input_norm, self.architecture.hidden_size),
            qkv=self._projection(f"{name}_qkv", layer.qkv, Role.SENSITIVE),
            qk_norms=self._qk_norms(layer),
            output=self._projection(f"{name}_output", layer.output, Role.ROBUST),
            post_norm=self._norm(layer.post_norm, self.architecture.hidden_size),
            gate_up=self._projection(f"{name}_gate_up", layer.gate_up, Role.ROBUST),
            down=self._projection(f"{name}_down", layer.down, Role.SENSITIVE),
            window=layer.window,
        )

    def _qk_norms(self, layer: Layer) -> tuple[ir.Value, ir.Value] | None:
        if layer.q_norm is None or layer.k_norm is None:
            return None
        size = self.architecture.head_dim
        return self._norm(layer.q_norm, size), self._norm(layer.k_norm, size)

    def _norm(self, name: str, size: int) -> ir.Value:
        return self.file.add(name, self.checkpoint.weight(name, (size,)).read())

    def _projection(self, name: str, projection: Projection, role: Role) -> StoredProjection:
        offsets = bias(self.checkpoint, projection)
        stored_bias = None if offsets is None else self.file.add(f"{name}_bias", offsets)
        encoded = encode(self.checkpoint, projection, self.precision, role)
        if isinstance(encoded, Blocks):
            return self._blocks(name, encoded, stored_bias)
        return _dense(name, self.file.add(f"{name}_weight", encoded), stored_bias, projection)

    def _blocks(self, name: str, blocks: Blocks, stored_bias: ir.Value | None) -> StoredProjection:
        return StoredProjection(
            name=name,
            weight=self.file.add(f"{name}_weight", blocks.packed()),
            scales=self.file.add(f"{name}_scales", blocks.scales),
            bias=stored_bias,
            rows=blocks.rows,
            columns=blocks.columns,
            bits=blocks.bits,
            block_size=blocks.block_size,
        )


def _dense(
    name: str, weight: ir.Value, stored_bias: ir.Value | None, projection: Projection
) -> StoredProjection:
    rows = sum(projection.rows)
    return StoredProjection(name, weight, None, stored_bias, rows, projection.columns, 32, 0)


def rotary_tables(architecture: Architecture) -> tuple[Floats, Floats]:
    """Cosines and sines [max_positions, head_dim / 2]."""
    frequencies = np.asarray(architecture.inverse_frequencies, np.float64)
    angles = np.outer(np.arange(architecture.max_positions, dtype=np.float64), frequencies)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
