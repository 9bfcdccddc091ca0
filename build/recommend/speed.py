"""About how fast: one formula, from a device's two rates. A first token takes a step over the prompt.

step(n) = (bytes of weights + n * bytes of the positions held) / bandwidth
        + 2 * n * weights / compute
        + layers * time to start one
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from build.container import container
from build.errors import BadInput
from build.quantise import Precision
from build.recommend.memory import (
    PREFILL_CHUNK,
    Product,
    answering,
    head,
    product_bytes,
    reading,
    token_bytes,
)
from build.shape import Shape

# GB, GB/s, 10^12 operations/s in fp16, dense, and precisions that it lacks; weights of fewer bits are
# multiplied in fp16. Sources: NVIDIA's data sheets (half of a figure with sparsity), for the RTX 4090 the
# Ada whitepaper.
_GPUS = {
    "h100": ("NVIDIA H100 SXM", 80, 3350, 989, ""),
    "h100-pcie": ("NVIDIA H100 PCIe", 80, 2000, 756, ""),
    "h200": ("NVIDIA H200 SXM", 141, 4800, 989, ""),
    "a100-40": ("NVIDIA A100 40 GB SXM", 40, 1555, 312, "fp8"),
    "a100-80": ("NVIDIA A100 80 GB SXM", 80, 2039, 312, "fp8"),
    "l4": ("NVIDIA L4", 24, 300, 121, ""),
    "l40s": ("NVIDIA L40S", 48, 864, 362, ""),
    "t4": ("NVIDIA T4", 16, 320, 65, "fp8 bf16"),
    "a10": ("NVIDIA A10", 24, 600, 125, "fp8"),
    "rtx4090": ("NVIDIA GeForce RTX 4090", 24, 1008, 165, ""),
}
# GB/s, and 10^9 operations/s at 8 bits, of no machine in particular.
_CPUS = {
    "cpu-laptop": ("8 cores with AVX2, two channels of DDR5", 50, 300),
    "cpu-server": ("32 cores with AVX-512 VNNI, eight channels of DDR5", 200, 2500),
}
CPU = "cpu"
DEVICES = (CPU, *_GPUS, *_CPUS)
# What engines get of a GPU's peaks, and what starting a layer takes. Those of GPUs are assumptions.
BANDWIDTH_SHARE, COMPUTE_SHARE = 0.7, 0.4
_START_S, _GPU_START_S = 60e-6, 20e-6


@dataclass(frozen=True)
class Device:
    """Sustained rates: `bandwidth` in bytes/s, `compute` in operations/s, of which a CPU has half in fp32.
    `memory` is None where it is asked of the machine.
    """

    name: str
    title: str
    memory: int | None
    bandwidth: float
    compute: float
    gpu: bool = False
    precisions: tuple[Precision, ...] = (Precision.INT8, Precision.INT4, Precision.FP32)


def device(name: str) -> Device:
    """`cpu` measures this machine in about a second. BadInput lists those that are known."""
    name = name.lower()
    if name == CPU:
        return this_machine()
    if name in _CPUS:
        title, bandwidth, compute = _CPUS[name]
        return Device(name, title, None, bandwidth * 1e9, compute * 1e9)
    if name not in _GPUS:
        raise BadInput(f"--device: {name!r}, must be one of {', '.join(DEVICES)}")
    title, memory, bandwidth, compute, lacks = _GPUS[name]
    known = (Precision.FP16, Precision.INT8, Precision.INT4, Precision.FP8, Precision.BF16)
    precisions = tuple(precision for precision in known if precision.value not in lacks.split())
    rates = BANDWIDTH_SHARE * bandwidth * 1e9, COMPUTE_SHARE * compute * 1e12
    return Device(name, title, memory * 10**9, *rates, True, precisions)


def this_machine() -> Device:
    """The CPU in its present state: other load or a quota takes its share. A product of one row is mostly
    reading, one of many mostly arithmetic; 64 MiB of weights fit no cache. At 8 bits engines do twice the
    operations.
    """
    weights = np.full((4096, 4096), 0.01, np.float32)
    seconds = []
    for rows in (1, 64):
        inputs = np.ones((4096, rows), np.float32)
        began, products = time.perf_counter(), 0
        while (passed := time.perf_counter() - began) < 0.5:
            weights @ inputs
            products += 1
        seconds.append(passed / products)
    title = f"this machine, {container().cores} cores, measured at a load average of {os.getloadavg()[0]:.1f}"
    return Device(CPU, title, None, weights.nbytes / seconds[0], 2 * 2 * 64 * weights.size / seconds[1])


def step_s(shape: Shape, precision: Precision, on: Device, rows: int, held: int) -> float:
    """Seconds to the next token of each of the rows, whose attention reads `held` positions."""
    caches = rows * held * token_bytes(shape, on.gpu) / on.bandwidth
    return (
        _pass_s([*answering(shape), head(shape)], precision, on, rows) + _start_s(shape.layers, on) + caches
    )


def first_s(shape: Shape, precision: Precision, on: Device, tokens: int) -> float:
    """Seconds from a prompt that does not wait to its first token; an encoder reads the prompt in one
    step.
    """
    encoder = shape.encoder_layers
    chosen = [*(answering(shape) if encoder else []), head(shape)]
    chunks = (
        [tokens] if encoder else [min(PREFILL_CHUNK, tokens - at) for at in range(0, tokens, PREFILL_CHUNK)]
    )
    read = sum(_pass_s(reading(shape), precision, on, rows) for rows in chunks)
    return read + len(chunks) * _start_s(encoder or shape.layers, on) + _pass_s(chosen, precision, on, 1)


def _pass_s(products: Iterable[Product], precision: Precision, on: Device, rows: int) -> float:
    products = list(products)
    compute = on.compute / (2 if precision is Precision.FP32 else 1)
    multiplied = 2 * rows * sum(product.weights for product in products) / compute
    return product_bytes(products, precision, on.gpu) / on.bandwidth + multiplied


def _start_s(layers: int, on: Device) -> float:
    return layers * (_GPU_START_S if on.gpu else _START_S)
