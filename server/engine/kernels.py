"""The library of `server/kernels`, which computes int8 decoders of the Llama line, as ctypes sees it.

It is there once compiled (`make kernels`), and loaded where the processor has what it was compiled for.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32, c_void_p
from pathlib import Path
from typing import Final

LIBRARY: Final = Path(__file__).resolve().parents[1] / "kernels" / "libhalimede.so"
ABI: Final = 2
# In the order of decoder.h.
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


def load_library(path: Path = LIBRARY) -> ctypes.CDLL:
    """Raises KernelsMissing."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        why = f"cannot be loaded ({error})" if path.exists() else "has not been compiled: make kernels"
        raise KernelsMissing(f"{path.name} {why}") from error
    if library.halimede_abi() != ABI:
        raise KernelsMissing(f"{path.name} is of another version: make kernels")
    if missing := lacking(library.halimede_lacks()):
        raise KernelsMissing(f"the processor has no {', '.join(missing)}")
    library.halimede_open.restype = c_void_p
    library.halimede_open.argtypes = (POINTER(Model), c_void_p, c_int32, c_int32, c_int32)
    numbers = (c_void_p, c_void_p, c_void_p)
    library.halimede_run.argtypes = (c_void_p, c_int32, *numbers, c_int32, c_void_p, c_void_p)
    library.halimede_close.restype = None
    library.halimede_close.argtypes = (c_void_p,)
    return library


def lacking(bits: int) -> list[str]:
    """The names of what `halimede_lacks` answered."""
    return [name for at, name in enumerate(_NEEDED) if bits >> at & 1]
