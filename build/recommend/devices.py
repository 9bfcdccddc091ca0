"""Devices by name: GPUs from their data sheets, and two CPUs of no make.

Peaks are those of NVIDIA's data sheets, dense: where a sheet gives tensor figures with sparsity, half of
them. Sources: H100, H200, A100, L4, L40S, T4 and A10 Tensor Core GPU data sheets; Ada architecture whitepaper
for the RTX 4090. Memory is the name's figure in powers of ten: the driver and ECC take the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from build.errors import BadInput
from build.quantise import Precision
from build.recommend.device import Device, Kind

# What engines get of the peaks: assumptions, as nothing here has been compared with a GPU.
BANDWIDTH_SHARE = 0.7
COMPUTE_SHARE = 0.4
# A layer of some eight kernels, started from a CUDA graph.
_GPU_LAYER_S = 20e-6
# Measured on one machine: see docs/choosing.md.
CPU_LAYER_S = 60e-6
CPU = "cpu"


@dataclass(frozen=True)
class _Sheet:
    """GB, GB/s, and 10^12 operations/s of tensor cores in fp16, which also multiply weights that were rounded
    to fewer bits.
    """

    title: str
    memory: int
    bandwidth: int
    half: float
    lacks: frozenset[Precision] = frozenset()


_AMPERE = frozenset({Precision.FP8})
_TURING = frozenset({Precision.FP8, Precision.BF16})
_SHEETS = {
    "h100": _Sheet("NVIDIA H100 SXM", 80, 3350, 989),
    "h100-pcie": _Sheet("NVIDIA H100 PCIe", 80, 2000, 756),
    "h200": _Sheet("NVIDIA H200 SXM", 141, 4800, 989),
    "a100-40": _Sheet("NVIDIA A100 40 GB SXM", 40, 1555, 312, _AMPERE),
    "a100-80": _Sheet("NVIDIA A100 80 GB SXM", 80, 2039, 312, _AMPERE),
    "l4": _Sheet("NVIDIA L4", 24, 300, 121),
    "l40s": _Sheet("NVIDIA L40S", 48, 864, 362),
    "t4": _Sheet("NVIDIA T4", 16, 320, 65, _TURING),
    "a10": _Sheet("NVIDIA A10", 24, 600, 125, _AMPERE),
    "rtx4090": _Sheet("NVIDIA GeForce RTX 4090", 24, 1008, 165),
}


def _gpu(name: str, sheet: _Sheet) -> Device:
    half = COMPUTE_SHARE * sheet.half * 1e12
    return Device(
        name=name,
        title=sheet.title,
        kind=Kind.GPU,
        memory=sheet.memory * 10**9,
        bandwidth=BANDWIDTH_SHARE * sheet.bandwidth * 1e9,
        compute={p: half for p in Kind.GPU.precisions if p not in sheet.lacks},
        layer_s=_GPU_LAYER_S,
        source=f"data sheet: {sheet.bandwidth} GB/s and {sheet.half:g} TFLOPS in fp16, of which"
        f" {BANDWIDTH_SHARE:.0%} and {COMPUTE_SHARE:.0%} are assumed",
    )


def _cpu(name: str, title: str, bandwidth: float, int8: float) -> Device:
    """Rates in 10^9; the ratios between precisions are those of the machine that was measured."""
    return Device(
        name=name,
        title=title,
        kind=Kind.CPU,
        memory=None,
        bandwidth=bandwidth * 1e9,
        compute={
            Precision.INT8: int8 * 1e9,
            Precision.INT4: int8 * 1e9,
            Precision.FP32: int8 * 0.5e9,
        },
        layer_s=CPU_LAYER_S,
        source="a profile of no particular machine: --device cpu measures this one",
    )


DEVICES = {name: _gpu(name, sheet) for name, sheet in _SHEETS.items()} | {
    "cpu-laptop": _cpu("cpu-laptop", "8 cores with AVX2, two channels of DDR5", 50, 300),
    "cpu-server": _cpu("cpu-server", "32 cores with AVX-512 VNNI, eight channels of DDR5", 200, 2500),
}


def named(name: str) -> Device:
    """A device of the table; BadInput lists them. `cpu` is not in it: that one is measured."""
    found = DEVICES.get(name.lower())
    if found is None:
        known = ", ".join((CPU, *DEVICES))
        raise BadInput(f"--device: {name!r}, must be one of {known}")
    return found
