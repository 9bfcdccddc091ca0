"""Runs a graph of the `tensorrt` dialect on ONNX Runtime's CPU provider, by address as TensorRT does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from engine.runners.onnx_runner import open_session
from engine.runners.runner import Place, Profile

TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(bfloat16)": 16,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


@dataclass
class OnnxStep:
    session: ort.InferenceSession
    binding: Any

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


@dataclass
class OnnxExecutor:
    """Checks what TensorRT would: the profile's bounds, and that every tensor has a place of its shape.

    `profiles` has (most rows, longest sequence), as docs/gpu.md lists them.
    """

    path: Path
    profiles: Mapping[Profile, tuple[int, int]]
    prepared: list[tuple[Profile, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.session = open_session(self.path, threads=1)
        self.types = {t.name: t for t in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.outputs = {t.name for t in self.session.get_outputs()}

    @property
    def inputs(self) -> frozenset[str]:
        return frozenset(self.types) - self.outputs

    def prepare(self, profile: Profile, places: Mapping[str, Place], *, repeated: bool) -> OnnxStep:
        self.prepared.append((profile, repeated))
        assert places.keys() == self.types.keys()
        rows, length = places["input_ids"].shape
        assert (rows, length) <= self.profiles[profile]
        assert length <= self.profiles[profile][1]
        binding = self.session.io_binding()
        for name, place in places.items():
            self._check(name, place, places)
            bind = binding.bind_output if name in self.outputs else binding.bind_input
            bind(name, "cpu", 0, TYPES[self.types[name].type], place.shape, place.address)
        return OnnxStep(self.session, binding)

    def _check(self, name: str, place: Place, places: Mapping[str, Place]) -> None:
        assert place.address % 256 == 0, name
        declared = self.types[name].shape
        assert len(declared) == len(place.shape), name
        sizes = zip(declared, place.shape, strict=True)
        assert all(size in {wanted, None} or isinstance(wanted, str) for wanted, size in sizes), name
        if name.startswith("present_"):
            assert place == places[name.replace("present_", "past_")], "a cache is updated in place"
