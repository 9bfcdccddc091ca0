"""The index `kernels.json`, read and checked against itself: the kernels trust every size that it names.

They allocate by the sizes and by the first layer, and read by the shapes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from engine.errors import ArtifactError, shown

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
