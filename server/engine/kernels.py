"""The library of `server/kernels`, which computes int8 decoders of the Llama line, as ctypes sees it.

It is there once compiled (`make kernels`), and loaded where the processor has what it was compiled for.
"""

from __future__ import annotations

import ctypes
import re
from ctypes import POINTER, c_float, c_int32, c_void_p
from pathlib import Path
from typing import Final

LIBRARY: Final = Path(__file__).resolve().parents[1] / "kernels" / "libhalimede.so"
ABI: Final = 1
_NEEDED: Final = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni")


class Product(ctypes.Structure):
    """Mirrors decoder.h, as do the structures below."""

    _fields_ = (
        ("weight", c_void_p),
        ("scales", c_void_p),
        ("bias", c_void_p),
        ("rows", c_int32),
        ("columns", c_int32),
    )


class Layer(ctypes.Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("input_norm", "query_norm", "key_norm", "ffn_norm")),
        *((name, Product) for name in ("qkv", "output", "gate", "up", "down")),
    )


class Model(ctypes.Structure):
    _fields_ = (
        *((name, c_int32) for name in ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")),
        *((name, c_float) for name in ("epsilon", "head_epsilon", "scale", "crest", "embedding_scale")),
        *((name, c_void_p) for name in ("embedding", "cosines", "sines", "final_norm")),
        ("layer", POINTER(Layer)),
        ("head", Product),
    )


class KernelsMissing(Exception):
    """The kernels cannot run here; says why."""


def load_library(path: Path = LIBRARY, cpu: Path = Path("/proc/cpuinfo")) -> ctypes.CDLL:
    """Raises KernelsMissing."""
    if missing := lacking(cpu):
        raise KernelsMissing(f"the processor has no {', '.join(missing)}")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        why = f"cannot be loaded ({error})" if path.exists() else "has not been compiled: make kernels"
        raise KernelsMissing(f"{path.name} {why}") from error
    if library.halimede_abi() != ABI:
        raise KernelsMissing(f"{path.name} is of another version: make kernels")
    library.halimede_open.restype = c_void_p
    library.halimede_open.argtypes = (POINTER(Model), c_void_p, c_int32, c_int32, c_int32)
    numbers = (c_void_p, c_void_p, c_void_p)
    library.halimede_run.argtypes = (c_void_p, c_int32, *numbers, c_int32, c_void_p, c_void_p)
    library.halimede_close.restype = None
    library.halimede_close.argtypes = (c_void_p,)
    return library


def lacking(cpu: Path) -> list[str]:
    """The instructions that the kernels need and the processor does not have."""
    try:
        found = re.search(r"^flags\s*:(.*)$", cpu.read_text(), re.MULTILINE)
    except OSError:
        found = None
    flags = set(found[1].split()) if found else set()
    return [name for name in _NEEDED if name not in flags]
