"""The libraries of `server/kernels`, which compute int8 decoders of the Llama line, as ctypes sees them.

There is one for each level of processors, once compiled (`make kernels`): all give the same bits, and the
best that the processor can run is loaded. `python -m engine.runners.kernels` prints those that it can run.

The index `kernels.json` is read and checked against itself: the kernels allocate by its sizes and by the
first layer, and read by its shapes.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import POINTER, c_float, c_int32, c_int64, c_void_p
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final

from engine.core.errors import ArtifactError, shown

FOLDER: Final = Path(__file__).resolve().parents[2] / "kernels"
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
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Of the metric that tells it."""
        return (("level", self.level or "none"), ("why", self.why.value))

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


INDEX: Final = "kernels.json"
VERSION: Final = 1
SIZES: Final = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")
# A vector of the kernels: heads are computed in whole ones.
_HEAD_VECTOR: Final = 16
_MOST: Final = 2**31 - 1
Json = Mapping[str, Any]


def read_index(folder: Path, positions: int | None = None) -> Json:
    """`positions` are those that the rotary tables must have, if that is known.

    Raises ArtifactError for an index that cannot be read, or whose shapes do not fit its sizes.
    """
    try:
        index: Json = json.loads((folder / INDEX).read_text("utf-8"))
        if index["version"] != VERSION:
            raise ArtifactError(INDEX, f"version {shown(index['version'])}, this server reads {VERSION}")
        _check_sizes(index)
        _check_tables(index, positions)
        inner = _shape(index["layer"][0]["gate"][0]["weight"])[-1]
        for number, layer in enumerate(index["layer"]):
            _check_layer(index, f"layer {number}: ", layer, inner)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ArtifactError(INDEX, f"cannot be used ({error!r}); build the model again") from error
    return index


def _check_sizes(index: Json) -> None:
    for name in SIZES:
        if type(index[name]) is not int or not 0 < index[name] <= _MOST:
            raise _unfit(name, repr(index[name]), f"a whole number in [1, {_MOST}]")
    if index["head_dim"] % _HEAD_VECTOR:
        raise _unfit("head_dim", index["head_dim"], f"a multiple of {_HEAD_VECTOR}")
    if index["heads"] % index["kv_heads"]:
        raise _unfit("heads", index["heads"], f"a multiple of kv_heads, {index['kv_heads']}")
    if len(index["layer"]) != index["layers"]:
        raise _unfit("layer", f"{len(index['layer'])} of them", f"as many as layers, {index['layers']}")


def _check_tables(index: Json, positions: int | None) -> None:
    hidden, vocab = index["hidden"], index["vocab"]
    rows = positions or _shape(index["cosines"])[0]
    _check("embedding", index["embedding"], [vocab, hidden])
    _check("cosines", index["cosines"], [rows, index["head_dim"] // 2])
    _check("sines", index["sines"], [rows, index["head_dim"] // 2])
    _check("final_norm", index["final_norm"], [hidden])
    _check_product("head", index["head"], hidden, vocab)


def _check_layer(index: Json, which: str, layer: Json, inner: int) -> None:
    hidden, size = index["hidden"], index["head_dim"]
    queries, keys = index["heads"] * size, index["kv_heads"] * size
    _check(f"{which}input_norm", layer["input_norm"], [hidden])
    _check(f"{which}ffn_norm", layer["ffn_norm"], [hidden])
    for name in ("query_norm", "key_norm"):
        if layer[name] is not None:
            _check(f"{which}{name}", layer[name], [size])
    _check_product(f"{which}qkv", layer["qkv"], hidden, queries + 2 * keys)
    _check_product(f"{which}output", layer["output"], queries, hidden)
    _check_product(f"{which}gate", layer["gate"], hidden, inner)
    _check_product(f"{which}up", layer["up"], hidden, inner)
    _check_product(f"{which}down", layer["down"], inner, hidden)


def _check_product(what: str, parts: Sequence[Json], columns: int, rows: int) -> None:
    """The parts of a product follow one another, and have `rows` together."""
    shapes = [_shape(part["weight"]) for part in parts]
    for part, shape in zip(parts, shapes, strict=True):
        _check(f"{what}: weight", part["weight"], [columns, shape[-1]])
        _check(f"{what}: scales", part["scales"], [shape[-1]])
        if part["bias"] is not None:
            _check(f"{what}: bias", part["bias"], [shape[-1]])
    if (together := sum(shape[-1] for shape in shapes)) != rows:
        raise _unfit(f"{what}: weight", f"shape {[columns, together]}", [columns, rows])
    if len({part["bias"] is None for part in parts}) > 1:
        raise _unfit(f"{what}: bias", "of some parts", "of all or of none")


def _check(what: str, place: Json, expected: list[int]) -> None:
    if _shape(place) != expected:
        raise _unfit(what, f"shape {_shape(place)}", expected)


def _shape(place: Json) -> list[int]:
    shape: list[int] = place["shape"]
    if not shape or any(type(size) is not int or size < 1 for size in shape):
        raise ValueError(f"shape {shown(shape)}")
    return shape


def _unfit(what: str, found: object, expected: object) -> ArtifactError:
    return ArtifactError(INDEX, f"{what}: {shown(found)}, must be {expected}; build the model again")
