"""A GPU's memory on a stand-in for the CUDA runtime: it does what the host's memory does."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import numpy as np
import pytest

from engine.core.errors import InternalError
from engine.runners.memory import CacheShape, DeviceMemory, HostMemory, KvCache, Staging, staged_bytes
from tests.fakes.cuda import FakeCuda, installed

SHAPE = CacheShape(slots=3, heads=2, capacity=6, head_dim=4, item_size=4)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return installed(monkeypatch, FakeCuda())


def cuda_memory() -> Any:
    return importlib.import_module("engine.runners.cuda_memory").CudaMemory(1)


def played(memory: DeviceMemory) -> list[Any]:
    """Copies and swaps of rows, and what is then in the cache."""
    cache = KvCache(memory, ["key_0", "value_0"], SHAPE)
    random = np.random.default_rng(0)
    for name in cache.names:
        memory.from_host(cache.address(name), random.random(SHAPE.rows(3), np.float32))
    cache.copy(0, 2, 1, 5)
    cache.swap(0, 1, 4)
    packed = random.random((2, 3, 4), np.float32)
    address = memory.allocate(packed.nbytes)
    memory.from_host(address, packed)
    cache.fill("key_0", 1, address, 3)
    found = [np.empty(SHAPE.rows(3), np.float32) for _ in cache.names]
    for name, array in zip(cache.names, found, strict=True):
        memory.to_host(array, cache.address(name))
    return found


def test_it_moves_what_the_hosts_memory_moves(cuda: FakeCuda) -> None:
    assert np.array_equal(played(cuda_memory()), played(HostMemory()))


def test_what_is_allocated_is_zero_on_both_sides(cuda: FakeCuda) -> None:
    memory, found = cuda_memory(), np.ones(100, np.uint8)
    memory.to_host(found, memory.allocate(100))
    assert not found.any()
    assert not memory.allocate_host(100).any()


def test_a_copy_to_the_host_waits_for_it(cuda: FakeCuda) -> None:
    memory = cuda_memory()
    memory.to_host(np.empty(4, np.uint8), memory.allocate(4))
    assert cuda.calls == ["memset", "copy", "synchronize"]


def test_inputs_are_sent_in_one_copy(cuda: FakeCuda) -> None:
    memory, layout = cuda_memory(), {"a": (np.int64, (2,)), "b": (np.bool_, (3,)), "c": (np.int32, ())}
    inputs = Staging(memory, staged_bytes(layout)).lay(layout)
    cuda.calls.clear()
    inputs.send()
    assert cuda.calls == ["copy"]


def test_it_works_from_any_thread(cuda: FakeCuda) -> None:
    memory, problems = cuda_memory(), []

    def work() -> None:
        try:
            played(memory)
        except BaseException as error:
            problems.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not problems


def test_it_knows_its_gpu(cuda: FakeCuda) -> None:
    memory = cuda_memory()
    before = memory.free_bytes
    memory.allocate(1000)
    assert memory.free_bytes == before - 1000
    assert (memory.place, memory.compute_capability) == (("cuda", 1), "9.0")


def test_a_failed_call_says_which_error_it_was(cuda: FakeCuda) -> None:
    with pytest.raises(InternalError, match=r"^INTERNAL: cuda: cudaErrorMemoryAllocation, "):
        cuda_memory().allocate(1 << 30)
