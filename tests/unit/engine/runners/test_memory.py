"""Device memory, and the caches and inputs that stand in it, over the host's own memory."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.edge.artifact import Architecture, KvDtype, ModelShape
from engine.runners.memory import (
    ALIGNMENT,
    CacheShape,
    HostMemory,
    KvCache,
    SlotCache,
    Staging,
    aligned,
    staged_bytes,
)

SHAPE = CacheShape(slots=4, heads=3, capacity=7, head_dim=5, item_size=4)
NAMES = ("key_0", "value_0", "key_1")


def contents(memory: HostMemory, cache: KvCache, name: str) -> NDArray[np.float32]:
    found = np.empty(cache.shape.rows(cache.shape.slots), np.float32)
    memory.to_host(found, cache.address(name))
    return found


def filled() -> tuple[HostMemory, KvCache, dict[str, NDArray[np.float32]]]:
    """A cache of random numbers, and the same numbers as arrays."""
    memory, random = HostMemory(), np.random.default_rng(0)
    cache = KvCache(memory, NAMES, SHAPE)
    arrays = {name: random.random(SHAPE.rows(SHAPE.slots), np.float32) for name in NAMES}
    for name, array in arrays.items():
        memory.from_host(cache.address(name), array)
    return memory, cache, arrays


rows, positions = st.integers(0, SHAPE.slots - 1), st.integers(0, SHAPE.capacity)


@given(rows, rows, positions, positions)
def test_a_copied_part_of_a_row_is_that_part_and_no_more(
    source: int, target: int, start: int, end: int
) -> None:
    if source == target:
        return
    memory, cache, arrays = filled()
    cache.copy(source, target, start, end)
    for name, array in arrays.items():
        array[target, :, start:end] = array[source, :, start:end]
        assert np.array_equal(contents(memory, cache, name), array)


@given(rows, rows, positions)
def test_swapped_parts_of_rows_change_places(a: int, b: int, tokens: int) -> None:
    memory, cache, arrays = filled()
    cache.swap(a, b, tokens)
    for name, array in arrays.items():
        array[[a, b], :, :tokens] = array[[b, a], :, :tokens]
        assert np.array_equal(contents(memory, cache, name), array)


@given(rows, st.integers(1, SHAPE.capacity))
def test_a_row_is_filled_from_what_is_packed(row: int, tokens: int) -> None:
    memory, cache, arrays = filled()
    packed = np.random.default_rng(1).random((SHAPE.heads, tokens, SHAPE.head_dim), np.float32)
    address = memory.allocate(packed.nbytes)
    memory.from_host(address, packed)
    cache.fill("value_0", row, address, tokens)
    arrays["value_0"][row, :, :tokens] = packed
    for name, array in arrays.items():
        assert np.array_equal(contents(memory, cache, name), array)


def test_a_source_goes_where_its_slot_goes() -> None:
    memory = HostMemory()
    model = ModelShape(
        layers=1, kv_heads=2, head_dim=4, vocab_size=8, max_positions=16,
        architecture=Architecture.ENCODER_DECODER, max_source_positions=16, kv_dtype=KvDtype.FLOAT16,
    )  # fmt: skip
    cache = SlotCache(memory, model, slots=3, capacity=8, source_capacity=6)
    assert cache.cross
    sources = {}
    for slot, tokens in ((0, 5), (1, 3)):
        sources[slot] = np.random.default_rng(slot).random((2, tokens, 4)).astype(np.float16)
        for address in cache.encoded.values():
            memory.from_host(address, sources[slot])
        cache.take_encoded(slot, tokens)

    def source(slot: int) -> NDArray[np.float16]:
        assert cache.cross
        row = np.empty((2, 6, 4), np.float16)
        memory.to_host(row, cache.cross.address("key_0", slot))
        return row[:, : cache.sources[slot]]

    cache.copy(0, 2, 0, 0, cross=True)
    assert np.array_equal(source(2), sources[0])
    cache.copy(1, 2, 0, 4, cross=False)
    assert np.array_equal(source(2), sources[0])
    cache.swap(0, 1, 0)
    assert np.array_equal(source(0), sources[1])
    assert np.array_equal(source(1), sources[0])


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=8))
def test_what_is_allocated_is_aligned_zero_and_apart(sizes: list[int]) -> None:
    memory = HostMemory()
    blocks = [(memory.allocate(size), size) for size in sizes]
    for address, size in blocks:
        found = np.ones(size, np.uint8)
        memory.to_host(found, address)
        assert not found.any()
        assert address % ALIGNMENT == 0
    ends = sorted((address, address + size) for address, size in blocks)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


def test_an_access_beyond_a_block_is_an_error() -> None:
    memory = HostMemory()
    address = memory.allocate(100)
    with pytest.raises(AssertionError):
        memory.from_host(address + 1, np.zeros(100, np.uint8))
    with pytest.raises(AssertionError):
        memory.copy_rows(address, 50, address + 90, 10, 10, 2)
    with pytest.raises(AssertionError):
        memory.to_host(np.zeros(1, np.uint8), 0)


def test_inputs_of_a_layout_arrive_at_their_addresses() -> None:
    memory = HostMemory()
    layout = {"a": (np.int64, (2, 3)), "b": (np.bool_, (5,)), "c": (np.int32, ())}
    staging = Staging(memory, staged_bytes(layout))
    inputs = staging.lay(layout)
    wanted = {"a": np.arange(6).reshape(2, 3), "b": np.arange(5) % 2 == 0, "c": np.array(7, np.int32)}
    for name, array in wanted.items():
        inputs.arrays[name][...] = array
    inputs.send()
    for name, array in wanted.items():
        found = np.empty_like(array)
        memory.to_host(found, inputs.addresses[name])
        assert np.array_equal(found, array)
    assert staging.lay(layout).addresses == inputs.addresses
    assert all(address % ALIGNMENT == 0 for address in inputs.addresses.values())


def test_a_layout_that_is_too_large_is_our_bug() -> None:
    staging = Staging(HostMemory(), 16)
    with pytest.raises(AssertionError):
        staging.lay({"a": (np.int64, (3,))})


@pytest.mark.parametrize(("size", "wanted"), [(0, 0), (1, 256), (256, 256), (257, 512)])
def test_aligned(size: int, wanted: int) -> None:
    assert aligned(size) == wanted
