"""Memory and speed as functions of dimensions, device and load."""

from __future__ import annotations

import argparse
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.quantise import Precision
from build.recipe import known_recipes, load_recipe
from build.recommend.cli import SPEED_FACTOR, gib, parse_bytes
from build.recommend.memory import answering, footprint, product_bytes, serving, token_bytes
from build.recommend.speed import (
    BANDWIDTH_SHARE,
    COMPUTE_SHARE,
    CPU,
    DEVICES,
    Device,
    device,
    first_s,
    step_s,
    this_machine,
)
from build.shape import Shape

GIB = 2**30
SHAPES = {name: shape for name in known_recipes() if (shape := load_recipe(name).shape) is not None}
SERVER = device("cpu-server")
# What the probe found, at its best, on the two machines of the README, two cores of each.
ZEN_4 = replace(SERVER, bandwidth=36e9, compute=197e9)
ZEN_3 = replace(SERVER, bandwidth=45e9, compute=265e9)
shapes = st.sampled_from(list(SHAPES.values()))
devices = st.sampled_from([device(name) for name in DEVICES if name != CPU])
some = st.integers(1, 64)


def test_the_caches_are_those_the_engine_asks_for() -> None:
    """2 * 4 bytes * layers * kv heads * head size, for each position; an encoder's source adds its own."""
    smollm2, bart = SHAPES["smollm2"], SHAPES["bart-large-cnn"]
    assert token_bytes(smollm2, False) == 2 * 4 * 30 * 3 * 64
    assert token_bytes(smollm2, True) == 2 * 2 * 30 * 3 * 64
    found = footprint(bart, Precision.INT8, False, serving(bart, 16, None))
    assert found.caches == 2 * 4 * 12 * 16 * 64 * 16 * (1024 + 1024)


@pytest.mark.parametrize(
    ("name", "context", "expected"),
    [
        ("smollm2", None, (2048, 0)),
        ("gpt2", None, (1024, 0)),
        ("gpt2", 512, (512, 0)),
        ("bart-large-cnn", None, (1024, 1024)),
        ("t5-small", None, (2048, 1024)),
        ("t5-small", 256, (256, 256)),
    ],
)
def test_positions_are_those_of_the_settings(
    name: str, context: int | None, expected: tuple[int, int]
) -> None:
    served = serving(SHAPES[name], 4, context)
    assert (served.context, served.source) == expected


def test_the_server_of_the_demo_takes_what_was_measured() -> None:
    """int8 on ONNX Runtime, 16 slots of 2048 positions, full: 2.1 GB on a machine of two cores."""
    shape = SHAPES["smollm2"]
    assert footprint(shape, Precision.INT8, False, serving(shape, 16, 2048)).total == pytest.approx(
        2.1e9, rel=0.15
    )


def test_steps_are_those_that_were_measured() -> None:
    """SmolLM2 int8 on ONNX Runtime on two quiet cores (docs/measured.md), with that machine's rates."""
    shape = SHAPES["smollm2"]
    steps = {rows: 1e3 * step_s(shape, Precision.INT8, ZEN_4, rows, 160) for rows in (1, 8, 16)}
    assert steps == pytest.approx({1: 8.1, 8: 18.5, 16: 33.5}, rel=0.2)
    assert 1e3 * first_s(shape, Precision.INT8, ZEN_4, 128) == pytest.approx(164, rel=0.2)


@pytest.mark.parametrize(
    ("name", "on", "tokens_in", "measured"),
    [
        ("smollm2", ZEN_3, 128, {1: 94, 8: 208, 32: 229}),
        ("smollm2", ZEN_4, 128, {1: 133, 8: 480, 32: 571}),
        ("gpt2", ZEN_4, 128, {1: 107.9, 8: 214.8}),
        ("bart-base", ZEN_4, 256, {1: 134.1, 8: 217.3}),
    ],
)
def test_what_the_benchmarks_measured_is_in_the_range(
    name: str, on: Device, tokens_in: int, measured: dict[int, float]
) -> None:
    """The README's tokens/s in int8 with 64 tokens out; prompts are read one after another."""
    for requests, rate in measured.items():
        step = step_s(SHAPES[name], Precision.INT8, on, requests, tokens_in + 32)
        prompts = requests * first_s(SHAPES[name], Precision.INT8, on, tokens_in)
        ratio = rate / (requests * 64 / (prompts + 64 * step))
        assert 1 / SPEED_FACTOR < ratio < SPEED_FACTOR, (requests, ratio)


@given(shape=shapes, gpu=st.booleans(), slots=some, context=st.integers(2, 512))
def test_more_slots_and_positions_take_more_memory(shape: Shape, gpu: bool, slots: int, context: int) -> None:
    here = footprint(shape, Precision.INT8, gpu, serving(shape, slots, context)).total
    assert footprint(shape, Precision.INT8, gpu, serving(shape, slots + 1, context)).total > here
    assert footprint(shape, Precision.INT8, gpu, serving(shape, slots, context + 1)).total >= here


@given(shape=shapes, on=devices, rows=some)
def test_more_streams_are_faster_together_and_slower_each(shape: Shape, on: Device, rows: int) -> None:
    few, many = (step_s(shape, on.precisions[0], on, n, 160) for n in (rows, rows + 1))
    assert few < many
    assert (rows + 1) / many > rows / few


def test_int4_keeps_the_sensitive_products_in_8_bits() -> None:
    parts = answering(SHAPES["smollm2"])
    int4, int8 = (product_bytes(parts, precision, False) for precision in (Precision.INT4, Precision.INT8))
    assert int8 * 0.55 < int4 < int8


def test_an_encoder_reads_once_and_its_decoder_answers() -> None:
    """A long prompt costs an encoder-decoder time to the first token, and cache reads, but no products."""
    shape = SHAPES["bart-large-cnn"]
    short, long = (step_s(shape, Precision.INT8, SERVER, 1, held) for held in (48, 1056))
    assert long - short == pytest.approx(1008 * token_bytes(shape, False) / SERVER.bandwidth)
    long, short = (first_s(shape, Precision.INT8, SERVER, tokens) for tokens in (1024, 128))
    assert long > 4 * short


def test_this_machine_has_rates() -> None:
    found = this_machine()
    assert 1e8 < found.bandwidth < 1e13
    assert 1e8 < found.compute < 1e16
    assert "cores" in found.title


def test_gpus_are_their_data_sheets_times_what_is_assumed() -> None:
    h100 = device("h100")
    assert h100.memory == 80 * 10**9
    assert h100.bandwidth == pytest.approx(BANDWIDTH_SHARE * 3.35e12)
    assert h100.compute == pytest.approx(COMPUTE_SHARE * 989e12)
    assert Precision.FP8 not in device("a100-80").precisions
    assert Precision.BF16 not in device("t4").precisions


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * GIB),
        ("8Gi", 8 * GIB),
        ("8GB", 8 * 10**9),
        ("8g", 8 * 10**9),
        ("1.5 GiB", 3 * GIB // 2),
        (" 512MiB ", 512 * 2**20),
        ("2TB", 2 * 10**12),
        ("1024", 1024),
        ("1024B", 1024),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "8 apples", "GiB", "-8GiB", "0", "8GiBB", "8,5GB", "1e9", "nan"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a size such as 8GiB"):
        parse_bytes(text)


@given(st.integers(GIB // 8, 2**45))
def test_a_size_that_is_shown_is_read_again(size: int) -> None:
    assert parse_bytes(gib(size)) == pytest.approx(size, rel=0.06)
