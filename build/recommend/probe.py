"""This machine's rates, from the very products an engine makes: about two seconds.

A product of one row is mostly reading, one of many rows mostly arithmetic:

    time(rows) = bytes / bandwidth + 2 * rows * weights / compute
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from build.container import container
from build.dialects.encoding import BLOCK_SIZES, Role
from build.dialects.inference import open_session
from build.quantise import Floats, Precision
from build.recommend.device import Device, Kind
from build.recommend.devices import CPU, CPU_LAYER_S
from build.recommend.products import Product
from build.recommend.weights import product_bytes

# Weights that no cache holds: 64 MiB at 8 bits and in float32.
_SIZES = {Precision.INT8: 8192, Precision.INT4: 8192, Precision.FP32: 4096}
_ROWS = 64
_REPEATS = 10
_INT8_ACTIVATIONS = 4


@dataclass(frozen=True)
class Rates:
    """bytes/s and operations/s."""

    bandwidth: float
    compute: float


def this_machine() -> Device:
    """The CPU as it is now: what else runs on it takes its share."""
    rates = {precision: _measured(precision) for precision in _SIZES}
    cores = container().cores
    return Device(
        name=CPU,
        title=f"{_cpu_name()}, {cores} cores",
        kind=Kind.CPU,
        memory=None,
        # At 4 bits unpacking takes longer than reading.
        bandwidth=rates[Precision.INT8].bandwidth,
        compute={precision: rate.compute for precision, rate in rates.items()},
        layer_s=CPU_LAYER_S,
        source=f"measured now, at a load average of {os.getloadavg()[0]:.1f}",
    )


def rates(read: int, weights: int, rows: int, one_s: float, many_s: float) -> Rates:
    """From the seconds of a product of one row, and of `rows`; `read` bytes hold its `weights`.

    A clock that says nonsense, as under a sudden load, gives the nearest sense: the whole of a time.
    """
    row_s = (many_s - one_s) / (rows - 1)
    row_s = row_s if 0 < row_s < one_s else many_s / rows
    fixed_s = one_s - row_s
    return Rates(read / (fixed_s if fixed_s > 0 else one_s), 2 * weights / row_s)


def _measured(precision: Precision) -> Rates:
    size = _SIZES[precision]
    run = _product(precision, size)
    one_s, many_s = _best(run, [np.ones((rows, size), np.float32) for rows in (1, _ROWS)])
    read = product_bytes(Product(size, size, Role.ROBUST, 1), precision, Kind.CPU)
    return rates(round(read), size * size, _ROWS, one_s, many_s)


def _best(run: Callable[[Floats], None], inputs: Sequence[Floats]) -> list[float]:
    """The shortest time of each, in turns: whatever disturbs one only adds."""
    times = [[_timed(run, rows) for rows in inputs] for _ in range(_REPEATS)]
    return [min(found) for found in zip(*times, strict=True)]


def _timed(run: Callable[[Floats], None], rows: Floats) -> float:
    began = time.perf_counter()
    run(rows)
    return time.perf_counter() - began


def _product(precision: Precision, size: int) -> Callable[[Floats], None]:
    """y = x W^T, W [size, size], by the operator that an engine of this precision has."""
    hidden = _floats("x", size)
    constants = _weights(precision, size)
    attributes: dict[str, int] = {"transB": 1}
    kind = "FusedMatMul"
    if precision is not Precision.FP32:
        bits = 4 if precision is Precision.INT4 else 8
        kind, attributes = (
            "MatMulNBits",
            {"N": size, "K": size, "bits": bits, "block_size": BLOCK_SIZES[bits]},
        )
        attributes["accuracy_level"] = _INT8_ACTIVATIONS
    product = _floats("y", size)
    node = ir.node(kind, [hidden, *constants], attributes, domain="com.microsoft", outputs=[product])
    versions = {"": 21, "com.microsoft": 1}
    graph = ir.Graph(
        [hidden], [product], nodes=[node], initializers=constants, opset_imports=versions, name="product"
    )
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    session = open_session(content)
    return lambda rows: session.run(None, {"x": rows})


def _floats(name: str, size: int) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape(["rows", size]), type=ir.TensorType(ir.DataType.FLOAT))


def _weights(precision: Precision, size: int) -> list[ir.Value]:
    if precision is Precision.FP32:
        return [_constant("weights", np.full((size, size), 0.01, np.float32))]
    bits = 4 if precision is Precision.INT4 else 8
    block = BLOCK_SIZES[bits]
    blocks = (size, size // block)
    levels = np.full((*blocks, block * bits // 8), 0x5A, np.uint8)
    return [_constant("levels", levels), _constant("scales", np.full(blocks, 0.01, np.float32))]


def _constant(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> ir.Value:
    tensor = ir.tensor(values, name=name)
    return ir.Value(
        name=name, shape=ir.Shape(values.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
    )


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return "CPU"
