"""The libraries of `server/kernels`, which compute int8 decoders of the Llama line, as ctypes sees them.

There is one for each level of processors, once compiled (`make kernels`): all give the same bits, and the
best that the processor can run is loaded. `python -m engine.kernels` prints those that it can run.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parents[1] / "kernels"
# The best first; a level with two libraries has the same code in two encodings (compile.py).
LEVELS: Final[Mapping[str, tuple[str, ...]]] = {
    "avx512": ("avx512",),
    "avxvnni": ("avxvnni", "avxvnni-evex"),
    "avx2": ("avx2",),
    "plain": ("plain",),
}
# In the order of decoder.h.
INSTRUCTIONS: Final = (
    *("AVX2", "FMA", "F16C"),
    *("AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "AVX512_VNNI", "AVX_VNNI"),
)


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


class Why(StrEnum):
    """Why no kernels run, in a word: a label of the metric."""

    NONE = ""
    OFF = "off"
    MODEL = "unsupported model"
    COMPILED = "not compiled"
    LOADED = "not loadable"
    PROCESSOR = "processor"


class KernelsMissing(Exception):
    """The kernels do not run here; says why."""

    def __init__(self, why: Why, problem: str) -> None:
        super().__init__(problem)
        self.why = why


@dataclass(frozen=True, slots=True)
class KernelUse:
    """The level that computes an engine on a CPU, or why ONNX Runtime does, in a word and in a clause."""

    level: str | None
    why: Why = Why.NONE
    missing: str | None = None

    @property
    def could_run(self) -> bool:
        """Whether the kernels could compute it on another machine, or with another build of this server."""
        return self.why in (Why.COMPILED, Why.LOADED, Why.PROCESSOR)


@dataclass(frozen=True, slots=True)
class Kernels:
    library: ctypes.CDLL
    level: str


def load_kernels(levels: Sequence[str] = tuple(LEVELS), folder: Path = FOLDER) -> Kernels:
    """The first of the levels that runs here. Raises KernelsMissing with the reason of the last level."""
    for level in levels:
        missing = []
        for name in LEVELS[level]:
            try:
                return Kernels(load_library(folder, name), level)
            except KernelsMissing as error:
                missing.append(error)
    raise KernelsMissing(missing[-1].why, "; ".join(map(str, missing)))


def levels_here(folder: Path = FOLDER) -> list[str]:
    """What the processor can run of what was compiled, the best first."""
    found = []
    for level in LEVELS:
        with suppress(KernelsMissing):
            found.append(load_kernels([level], folder).level)
    return found


def load_library(folder: Path, name: str) -> ctypes.CDLL:
    """Raises KernelsMissing."""
    path = folder / f"libhalimede-{name}-{_fingerprint(folder)}.so"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        if path.exists():
            raise KernelsMissing(Why.LOADED, f"{path.name} cannot be loaded ({error})") from error
        raise KernelsMissing(Why.COMPILED, f"{path.name} has not been compiled: make kernels") from error
    if missing := instructions(library.halimede_needs() & ~library.halimede_has()):
        raise KernelsMissing(Why.PROCESSOR, f"the processor has no {', '.join(missing)}")
    library.halimede_open.restype = c_void_p
    library.halimede_open.argtypes = (POINTER(Model), c_void_p, c_int32, c_int32, c_int32)
    numbers = (c_void_p, c_void_p, c_void_p)
    library.halimede_run.argtypes = (c_void_p, c_int32, *numbers, c_int32, c_void_p, c_void_p)
    library.halimede_close.restype = None
    library.halimede_close.argtypes = (c_void_p,)
    library.halimede_scratch.restype = c_int64
    library.halimede_scratch.argtypes = (POINTER(Model), c_int32)
    return library


def instructions(bits: int) -> list[str]:
    """The names of what `halimede_has` and `halimede_needs` answer."""
    return [name for at, name in enumerate(INSTRUCTIONS) if bits >> at & 1]


@cache
def _fingerprint(folder: Path) -> str:
    """Of all that the libraries are made of, as compile.py names them."""
    sources = sorted([*folder.glob("*.[ch]"), *folder.glob("compile.py")])
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:12]


if __name__ == "__main__":
    print(*levels_here())
