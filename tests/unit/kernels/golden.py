"""Tiny seeded decoders, what is asked of them, and the hashes of the logits that every level must give.

Nothing in here depends on a processor or a library: weights are random bits shifted into place, and what is
computed is exact or rounded once by IEEE 754. So a hash that one machine has found holds on every other one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

SLOTS: Final = 14
_SIZES: Final = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab")
Array = NDArray[Any]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sizes:
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocab: int
    capacity: int = 96
    head_norms: bool = False
    biases: bool = False
    # Multiplies the weights of keys, until some are beyond half floats.
    keys: float = 1.0
    # What stands in the embedding of the last token id.
    planted: float | None = None

    @property
    def qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim


@dataclass(frozen=True, slots=True)
class Call:
    """As `halimede_run` takes it; `rows` are those whose logits are wanted."""

    ids: list[int]
    slots: list[int]
    positions: list[int]
    rows: list[int]


# Found by the plain level, which is the specification; a NaN counts as one whatever its bits.
GOLDEN: Final[dict[str, tuple[Sizes, str]]] = {
    "grouped heads": (
        Sizes(3, 96, 6, 2, 16, 160, 131),
        "f3929ebb97d388cbaf6a65e8c213b990f820872aa04b2f3fa81705a162776f89",
    ),
    "sizes that fill no vector": (
        Sizes(2, 84, 6, 2, 32, 100, 97),
        "4aa2ce70064945e1eb33b0d0de7c1e005930db1d94b5953dde11d47fbf73e9b8",
    ),
    "norms of heads, and biases": (
        Sizes(2, 64, 4, 4, 32, 96, 101, head_norms=True, biases=True),
        "cdb3938ef48620986f2024599e24ab7bebea2d1ccec3de573cb1d35c9feaaec2",
    ),
    "one head for all keys": (
        Sizes(2, 128, 9, 1, 48, 64, 33),
        "3213afa2f987b6a28ab77e34887721d6f5d092e26c82d21c87f2f7c94277b6fd",
    ),
    "a long context": (
        Sizes(1, 64, 6, 2, 64, 64, 65, capacity=2064),
        "081f0a27e501a40777ad1244fee04da5ded8bb72033f32fd3f08b9c388d4382f",
    ),
    "a NaN": (
        Sizes(2, 64, 4, 2, 16, 96, 67, planted=float("nan")),
        "ad1832d45443693db226fa8d3b33cfef7053701b7ab4c7db5c722c808050d583",
    ),
    "an infinity": (
        Sizes(2, 64, 4, 2, 16, 96, 67, planted=float("-inf")),
        "9a5b46b6ceb886c04fe7380962204bfaeaed67bcd061448e5c6aed237ab9d776",
    ),
    "keys beyond half floats": (
        Sizes(2, 64, 4, 2, 16, 96, 67, keys=1.125 * 2.0**14),
        "39ba291f76b53158976e43048fdd0b722b0bbcb36db06b8a9a2b9718d15b52e4",
    ),
}


class Bits:
    """Random numbers of a seed, from the raw output of PCG64, which numpy keeps as it is."""

    def __init__(self, seed: int) -> None:
        self._source = np.random.PCG64(seed)

    def below(self, end: int, *shape: int) -> Array:
        return (self._source.random_raw(shape or 1) % np.uint64(end)).astype(np.int64)

    def one(self, low: int, high: int) -> int:
        return low + int(self.below(high - low)[0])


class Golden:
    """A decoder's arrays by name, in the order in which they are written."""

    def __init__(self, name: str) -> None:
        self.sizes, self.hash = GOLDEN[name]
        self._bits = Bits(list(GOLDEN).index(name))
        self._data: list[bytes] = []
        self._used = 0
        self.index = self._index()

    def write(self, folder: Path) -> Path:
        """As an engine's folder has it; driver.c reads the index from decoder.txt, as plain numbers."""
        (folder / "model.onnx.data").write_bytes(b"".join(self._data))
        (folder / "kernels.json").write_text(json.dumps(self.index))
        (folder / "decoder.txt").write_text("\n".join([*self._numbers(), *self._calls()]) + "\n")
        return folder

    def calls(self) -> list[Call]:
        """Prompts in chunks of any size and rows of decode; one to 14 rows; drafts of several tokens."""
        bits, lengths = Bits(1000), [0] * SLOTS
        waves = [
            [(slot, bits.one(1, size + 1)) for slot in range(SLOTS - 1) if bits.one(0, 3)]
            for size in (1, 7, 16, 33, 2, 12)
        ]
        if self.sizes.capacity > 1000:
            waves += [[(SLOTS - 1, chunk), (0, 1)] for chunk in (129, 640, 1000)]
        waves += [[(slot, 1) for slot in range(rows)] for rows in range(1, SLOTS + 1)]
        drafts = [[(slot, bits.one(1, most + 1)) for slot in range(0, SLOTS, 3)] for most in (2, 5)]
        return [
            self._call(bits, lengths, wave, every=wave in drafts) for wave in (*waves, *drafts)
        ]  # fmt: skip

    def _call(self, bits: Bits, lengths: list[int], wave: list[tuple[int, int]], *, every: bool) -> Call:
        """So many tokens more of each slot. The last id of the vocabulary comes only where it is planted."""
        call = Call([], [], [], [])
        for slot, count in wave:
            for place in range(count):
                planted = self.sizes.planted is not None and slot in (2, 5) and lengths[slot] == 9
                call.ids.append(self.sizes.vocab - 1 if planted else bits.one(0, self.sizes.vocab - 1))
                call.slots.append(slot)
                call.positions.append(lengths[slot])
                if every or place == count - 1:
                    call.rows.append(len(call.ids) - 1)
                lengths[slot] += 1
                assert lengths[slot] <= self.sizes.capacity
        return call

    def _index(self) -> Json:
        s, half = self.sizes, self.sizes.head_dim // 2
        turns = (self._bits.below(2**16, s.capacity, half) - 2.0**15) / 2**15
        embedding = (self._bits.below(4097, s.vocab, s.hidden) - 2048) / 1024
        if s.planted is not None:
            embedding[-1, 3] = s.planted
        return {
            "version": 1,
            **{name: getattr(s, name) for name in _SIZES},
            "epsilon": 2.0**-17,
            "head_epsilon": 2.0**-18,
            "scale": float(np.float32(1 / np.sqrt(np.float64(s.head_dim)))),
            "crest": 1.5,  # many levels end at 127 and -127
            "embedding_scale": 1.5,
            "embedding": self._floats(embedding),
            "cosines": self._floats((1 - turns * turns) / (1 + turns * turns)),
            "sines": self._floats(2 * turns / (1 + turns * turns)),
            "final_norm": self._norm(s.hidden),
            "head": [self._product(s.hidden, s.vocab)],
            "layer": [self._layer() for _ in range(s.layers)],
        }

    def _layer(self) -> Json:
        s = self.sizes
        queries, keys = s.heads * s.head_dim, s.kv_heads * s.head_dim
        return {
            "input_norm": self._norm(s.hidden),
            "query_norm": self._norm(s.head_dim) if s.head_norms else None,
            "key_norm": self._norm(s.head_dim) if s.head_norms else None,
            "ffn_norm": self._norm(s.hidden),
            "qkv": [
                self._product(s.hidden, queries, s.biases),
                self._product(s.hidden, keys, s.biases, s.keys),
                self._product(s.hidden, keys, s.biases),
            ],
            "output": [self._product(queries, s.hidden)],
            "gate": [self._product(s.hidden, s.inner)],
            "up": [self._product(s.hidden, s.inner)],
            "down": [self._product(s.inner, s.hidden)],
        }

    def _norm(self, size: int) -> Json:
        return self._floats((self._bits.below(256, size) + 128) / 256)

    def _product(self, columns: int, rows: int, biased: bool = False, times: float = 1.0) -> Json:
        """Outputs are about as large as inputs."""
        scales = (self._bits.below(512, rows) + 512) / 2**19 * times
        weight = (self._bits.below(255, columns, rows) - 127).astype(np.int8)
        bias = self._floats((self._bits.below(512, rows) - 256) / 1024) if biased else None
        return {"weight": self._place(weight), "scales": self._floats(scales), "bias": bias}

    def _floats(self, values: Array) -> Json:
        return self._place(values.astype(np.float32))

    def _place(self, array: Array) -> Json:
        place = {"offset": self._used, "shape": list(array.shape)}
        data = array.tobytes()
        self._data.append(data + b"\0" * (-len(data) % 64))
        self._used += len(self._data[-1])
        return place

    def _numbers(self) -> Iterator[str]:
        index = self.index
        floats = ("epsilon", "head_epsilon", "scale", "crest", "embedding_scale")
        yield _line(SLOTS, self.sizes.capacity, *(index[name] for name in _SIZES))
        yield " ".join(float(index[name]).hex() for name in floats)
        yield _line(*(index[name]["offset"] for name in ("embedding", "cosines", "sines", "final_norm")))
        yield from self._parts(index["head"])
        for layer in index["layer"]:
            norms = (layer[name] for name in ("input_norm", "query_norm", "key_norm", "ffn_norm"))
            yield _line(*(-1 if norm is None else norm["offset"] for norm in norms))
            for name in ("qkv", "output", "gate", "up", "down"):
                yield from self._parts(layer[name])

    def _parts(self, parts: list[Json]) -> Iterator[str]:
        """Products that stand together, a line for each: its inputs and outputs, and where its arrays are."""
        yield _line(len(parts))
        for part in parts:
            bias = -1 if part["bias"] is None else part["bias"]["offset"]
            yield _line(*part["weight"]["shape"], part["weight"]["offset"], part["scales"]["offset"], bias)

    def _calls(self) -> Iterator[str]:
        calls = self.calls()
        yield _line(len(calls))
        for call in calls:
            yield _line(len(call.ids), len(call.rows))
            yield from (_line(*numbers) for numbers in (call.ids, call.slots, call.positions, call.rows))


def hash_of(logits: NDArray[np.float32]) -> str:
    return hashlib.sha256(np.where(np.isnan(logits), np.float32(np.nan), logits).tobytes()).hexdigest()


def _line(*numbers: int) -> str:
    return " ".join(map(str, numbers))
