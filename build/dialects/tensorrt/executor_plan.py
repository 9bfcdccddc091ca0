"""Experimental, never run on a GPU: runs a plan with its caches bound in place, to verify it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from build.dialects.tensorrt.cuda import Cuda
from build.dialects.tensorrt.session import Feeds, Profile
from build.errors import BuildError
from build.quantise import Floats

_OWN, _CROSS = "past_", "cross_"
Places = Mapping[str, tuple[int, tuple[int, ...]]]


class PlanExecutor:
    """`rows` is how many sequences its caches hold; `encoder` is the other plan of an encoder-decoder."""

    def __init__(self, tensorrt: Any, cuda: Cuda, plan: Path, rows: int, encoder: Path | None = None) -> None:
        self._cuda = cuda
        self._decoder = _Plan(tensorrt, cuda, plan)
        self._encoder = _Plan(tensorrt, cuda, encoder) if encoder else None
        self.inputs = self._decoder.inputs
        own, cross = (
            sorted(name for name in self.inputs if name.startswith(kind)) for kind in (_OWN, _CROSS)
        )
        self.capacity = self._decoder.shape(own[0])[2]
        self.source_capacity = self._decoder.shape(cross[0])[2] if cross else 0
        self._rows = {
            name: prod(self._decoder.shape(name)[1:]) * self._decoder.item_bytes(name)
            for name in (*own, *cross)
        }
        self._caches = {name: cuda.allocate(rows * size) for name, size in self._rows.items()}
        self._vocabulary = self._decoder.shape("logits")[-1]
        self._buffers: dict[str, tuple[int, int]] = {}

    def encode(self, feeds: Feeds, row: int) -> None:
        assert self._encoder is not None
        places = self._sent(feeds)
        count = feeds["input_ids"].shape[1]
        for name in self._cross():
            _, heads, _, size = self._decoder.shape(name)
            item = self._decoder.item_bytes(name)
            places[name] = (self._buffer(name, heads * count * size * item), (1, heads, count, size))
        self._encoder.run(Profile.DECODE, {**places})
        for name in self._cross():
            self._put(name, row, *places[name])
        self._cuda.synchronise()

    def _put(self, name: str, row: int, source: int, shape: tuple[int, ...]) -> None:
        """Copies one row's keys or values: adjacent heads to heads `source_capacity` apart in the cache."""
        _, heads, count, size = shape
        item = self._decoder.item_bytes(name)
        target = self._caches[name] + row * self._rows[name]
        self._cuda.copy_rows(target, self.source_capacity * size * item, source, count * size * item, heads)

    def run(self, profile: Profile, feeds: Feeds, rows: slice) -> Floats:
        count = rows.stop - rows.start
        places = self._sent(feeds)
        logits = np.empty((count, 1, self._vocabulary), np.float32)
        places["logits"] = (self._buffer("logits", logits.nbytes), logits.shape)
        for name, address in self._caches.items():
            shape = (count, *self._decoder.shape(name)[1:])
            places[name] = (address + rows.start * self._rows[name], shape)
            if name.startswith(_OWN):
                places[name.replace(_OWN, "present_")] = places[name]
        self._decoder.run(profile, places)
        self._cuda.read(logits, places["logits"][0])
        return logits

    def _cross(self) -> list[str]:
        return [name for name in self._caches if name.startswith(_CROSS)]

    def _sent(self, feeds: Feeds) -> dict[str, tuple[int, tuple[int, ...]]]:
        places = {}
        for name, values in feeds.items():
            array = np.ascontiguousarray(values)
            address = self._buffer(f"fed_{name}", array.nbytes)
            self._cuda.write(address, array)
            places[name] = (address, array.shape)
        return places

    def _buffer(self, name: str, size: int) -> int:
        """The buffer of that name: the same one as before where it is large enough."""
        address, room = self._buffers.get(name, (0, 0))
        if room < size:
            address = self._cuda.allocate(size)
            self._buffers[name] = (address, size)
        return address


class _Plan:
    """One engine with a context for each profile that is used."""

    def __init__(self, tensorrt: Any, cuda: Cuda, path: Path) -> None:
        self._cuda = cuda
        self._name = path.name
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.WARNING))
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise BuildError(f"{path.name}: TensorRT cannot load the plan that it has built: see its log")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        modes = {name: self._engine.get_tensor_mode(name) for name in names}
        self.inputs = frozenset(name for name in names if modes[name] == tensorrt.TensorIOMode.INPUT)
        self._contexts: dict[Profile, Any] = {}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an input or output, -1 where it is dynamic."""
        return tuple(self._engine.get_tensor_shape(name))

    def item_bytes(self, name: str) -> int:
        return int(self._engine.get_tensor_dtype(name).itemsize)

    def run(self, profile: Profile, places: Places) -> None:
        context = self._context(profile)
        for name, (address, shape) in places.items():
            taken = name not in self.inputs or context.set_input_shape(name, shape)
            if not (taken and context.set_tensor_address(name, address)):
                raise BuildError(f"{self._name}: {name} {shape} does not fit profile {profile.name.lower()}")
        if not context.execute_async_v3(self._cuda.stream):
            raise BuildError(f"{self._name}: TensorRT does not run the plan that it has built: see its log")

    def _context(self, profile: Profile) -> Any:
        if profile not in self._contexts:
            context = self._engine.create_execution_context()
            if context is None or not context.set_optimization_profile_async(int(profile), self._cuda.stream):
                raise BuildError(f"{self._name}: no context for profile {profile.name.lower()}")
            self._contexts[profile] = context
        return self._contexts[profile]
