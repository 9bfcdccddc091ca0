"""Which contexts, slots and threads fit a memory: keys and values, and the scratch memory of each thread."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import SettingsError
from engine.edge.artifact import Architecture, KvDtype, ModelShape
from engine.edge.settings import Footprint, Settings, check_fit
from engine.runners.kernels import Model, levels_here, load_kernels

SMOLLM2 = ModelShape(30, 3, 64, 49152, 8192)
# As in C: sixteen tokens of each query head of a group, floats, to a multiple of 32 positions.
THREADED = Footprint(
    replace(SMOLLM2, kv_dtype=KvDtype.FLOAT16), 16, lambda capacity: 16 * 3 * 4 * (-(-capacity // 32) * 32)
)


def test_the_largest_context_of_a_budget() -> None:
    smollm2, settings = Footprint(SMOLLM2), Settings(slots=16)
    assert SMOLLM2.kv_bytes(1, 1) == 46_080
    assert smollm2.max_context(settings, 16 * 2048 * 46_080) == 2048
    assert smollm2.max_context(settings, 16 * 2048 * 46_080 - 1) == 2047
    assert smollm2.max_context(settings, 2**40) == 8192  # the model's positions


def test_the_source_of_an_encoder_counts() -> None:
    bart = Footprint(ModelShape(6, 12, 64, 50265, 1024, Architecture.ENCODER_DECODER, 1024))
    settings = Settings(slots=16)
    assert bart.max_context(settings, 10**9) == 10**9 // 16 // 36_864 - 1024 == 671
    assert bart.max_context(settings, 16 * 1024 * 36_864) == 0


def test_threads_take_of_the_budget() -> None:
    settings = Settings(slots=4, max_context=1024, threads=8)
    cache, own = 4 * 1024 * 23_040, 8 * 16 * 3 * 4 * 1024
    assert THREADED.needed(settings) == cache + own
    assert check_fit(replace(settings, kv_budget_bytes=cache + own), THREADED, 2**40) == cache + own
    with pytest.raises(SettingsError) as caught:
        check_fit(replace(settings, kv_budget_bytes=cache + own - 1), THREADED, 2**40)
    assert str(caught.value) == (
        "INVALID_ARG: kv_budget_bytes: 4 slots of 1024 positions need 94,371,840 bytes "
        "and 8 threads 1,572,864, the limit is 95,944,703; "
        "3 slots fit, or 7 threads, or a max_context of 1008"
    )


def test_a_budget_that_the_threads_alone_exceed_fits_no_slot() -> None:
    settings = Settings(slots=1, max_context=1024, threads=64, kv_budget_bytes=1_000_000)
    with pytest.raises(SettingsError, match=r"; 0 slots fit, or 0 threads, or a max_context of \d+$"):
        check_fit(settings, THREADED, 2**40)


@pytest.mark.skipif(not levels_here(), reason="no kernels have been compiled")
def test_long_contexts_and_many_threads_are_a_part_that_counts() -> None:
    """The shape of Llama 3.2 1B at all of its positions."""
    library = load_kernels().library
    model = Model(layers=16, hidden=2048, heads=32, kv_heads=8, head_dim=64, vocab=128_256)
    own = library.halimede_scratch(ctypes.byref(model), 131_072)
    assert 2.1e9 < 64 * own < 2.3e9


@given(
    sizes=st.tuples(*[st.integers(1, 99)] * 4, st.integers(1, 9999)),
    budget=st.integers(1, 2**40),
    slots=st.integers(1, 99),
    threads=st.integers(1, 99),
    source=st.integers(0, 999),
    block=st.sampled_from([1, 16]),
    each=st.tuples(st.integers(0, 10**4), st.integers(0, 10**6)),
)
def test_the_largest_context_fits_and_one_block_more_does_not(
    sizes: tuple[int, int, int, int, int],
    budget: int,
    slots: int,
    threads: int,
    source: int,
    block: int,
    each: tuple[int, int],
) -> None:
    shape = replace(ModelShape(*sizes), max_source_positions=source)
    footprint = Footprint(shape, block, lambda capacity: each[0] * (-(-capacity // 32) * 32) + each[1])
    settings = Settings(slots=slots, threads=threads, max_source=source, kv_budget_bytes=budget)
    context = footprint.max_context(settings, budget)
    assert 0 <= context <= shape.max_positions
    if context:
        assert check_fit(replace(settings, max_context=context), footprint, 2**62) == budget
    if context < shape.max_positions:
        assert context % block == 0
        assert footprint.needed(replace(settings, max_context=context + 1)) > budget
