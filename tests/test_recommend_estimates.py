"""Memory and speed as functions of dimensions, device and load."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from build.quantise import Precision
from build.recipe import known_recipes, load_recipe
from build.recommend.amount import GIB, gib, parse_bytes
from build.recommend.device import Kind
from build.recommend.devices import BANDWIDTH_SHARE, COMPUTE_SHARE, DEVICES
from build.recommend.footprint import footprint, serving, token_bytes
from build.recommend.probe import rates, this_machine
from build.recommend.roofline import Load, decode, first_token, speed
from build.shape import Shape

SHAPES = {name: shape for name in known_recipes() if (shape := load_recipe(name).shape) is not None}
LOAD = Load(128, 64)
shapes = st.sampled_from(list(SHAPES.values()))
devices = st.sampled_from(list(DEVICES.values()))
some = st.integers(1, 64)


def test_the_caches_are_those_the_engine_asks_for() -> None:
    """2 * 4 bytes * layers * kv heads * head size, for each position; an encoder's source adds its own."""
    smollm2, bart = SHAPES["smollm2"], SHAPES["bart-large-cnn"]
    assert token_bytes(smollm2, Kind.CPU) == 2 * 4 * 30 * 3 * 64
    assert token_bytes(smollm2, Kind.GPU) == 2 * 2 * 30 * 3 * 64
    found = footprint(bart, Precision.INT8, Kind.CPU, serving(bart, 16, None))
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
    """int8, 16 slots of 2048 positions, full: 2.1 GB on the machine of the README."""
    shape = SHAPES["smollm2"]
    assert footprint(shape, Precision.INT8, Kind.CPU, serving(shape, 16, 2048)).total == pytest.approx(
        2.1e9, rel=0.15
    )


def test_steps_are_those_that_were_measured() -> None:
    """SmolLM2 int8 on two quiet cores (docs/decisions.md), with that machine's rates."""
    shape = SHAPES["smollm2"]
    device = replace(DEVICES["cpu-laptop"], bandwidth=36e9, compute={Precision.INT8: 197e9})
    steps = {rows: 1e3 * decode(shape, Precision.INT8, device, rows, LOAD).seconds for rows in (1, 8, 16)}
    assert steps == pytest.approx({1: 8.1, 8: 18.5, 16: 33.5}, rel=0.2)
    assert 1e3 * first_token(shape, Precision.INT8, device, LOAD) == pytest.approx(164, rel=0.2)


@given(shape=shapes, kind=st.sampled_from(Kind), slots=some, context=st.integers(2, 512))
def test_more_slots_and_positions_take_more_memory(
    shape: Shape, kind: Kind, slots: int, context: int
) -> None:
    precision = kind.precisions[0]
    here = footprint(shape, precision, kind, serving(shape, slots, context)).total
    assert footprint(shape, precision, kind, serving(shape, slots + 1, context)).total > here
    assert footprint(shape, precision, kind, serving(shape, slots, context + 1)).total >= here


@given(shape=shapes, name=st.sampled_from(list(DEVICES)), rows=some)
def test_more_streams_are_faster_together_and_slower_each(shape: Shape, name: str, rows: int) -> None:
    device = DEVICES[name]
    precision = device.kind.precisions[0]
    few, many = (decode(shape, precision, device, n, LOAD).seconds for n in (rows, rows + 1))
    assert few < many
    assert (rows + 1) / many > rows / few


@given(shape=shapes, factor=st.floats(1.1, 10))
def test_a_device_of_twice_the_rates_is_twice_as_fast_but_for_its_starts(shape: Shape, factor: float) -> None:
    slow = DEVICES["h100"]
    fast = replace(
        slow,
        bandwidth=slow.bandwidth * factor,
        compute={p: rate * factor for p, rate in slow.compute.items()},
        layer_s=slow.layer_s / factor,
    )
    one, other = (speed(shape, Precision.FP16, device, 8, LOAD) for device in (slow, fast))
    assert other.full == pytest.approx(factor * one.full)
    assert other.first_token_s == pytest.approx(one.first_token_s / factor)


def test_int4_keeps_the_sensitive_products_in_8_bits() -> None:
    shape, device = SHAPES["smollm2"], DEVICES["cpu-server"]
    weights = {p: decode(shape, p, device, 1, LOAD).weights for p in (Precision.INT4, Precision.INT8)}
    assert weights[Precision.INT8] * 0.55 < weights[Precision.INT4] < weights[Precision.INT8]


def test_an_encoder_reads_once_and_its_decoder_answers() -> None:
    """A long prompt costs an encoder-decoder time to the first token, and cache reads, but no products."""
    shape, device = SHAPES["bart-large-cnn"], DEVICES["cpu-server"]
    short, long = (decode(shape, Precision.INT8, device, 1, Load(n, 64)) for n in (16, 1024))
    assert (short.weights, short.products) == (long.weights, long.products)
    assert short.caches < long.caches
    assert first_token(shape, Precision.INT8, device, Load(1024, 1)) > 4 * first_token(
        shape, Precision.INT8, device, Load(128, 1)
    )


@given(bandwidth=st.floats(1e9, 1e12), compute=st.floats(1e10, 1e13))
def test_the_probe_finds_the_rates_that_made_its_times(bandwidth: float, compute: float) -> None:
    read, weights, rows = 64 * 2**20, 60 * 2**20, 64
    times = [read / bandwidth + 2 * n * weights / compute for n in (1, rows)]
    found = rates(read, weights, rows, *times)
    row_s = 2 * weights / compute
    if row_s < times[0]:
        assert found.compute == pytest.approx(compute, rel=1e-6)
        assert found.bandwidth == pytest.approx(bandwidth, rel=1e-3)


@given(one=st.floats(1e-6, 1), many=st.floats(1e-6, 1))
def test_the_probe_makes_sense_of_any_clock(one: float, many: float) -> None:
    found = rates(2**20, 2**20, 64, one, many)
    assert 0 < found.bandwidth < float("inf")
    assert 0 < found.compute < float("inf")


def test_this_machine_has_rates() -> None:
    device = this_machine()
    assert device.bandwidth > 1e8
    assert set(device.compute) == set(Kind.CPU.precisions)
    assert all(rate > 1e8 for rate in device.compute.values())
    assert "cores" in device.title


def test_gpus_are_their_data_sheets_times_what_is_assumed() -> None:
    h100 = DEVICES["h100"]
    assert h100.memory == 80 * 10**9
    assert h100.bandwidth == pytest.approx(BANDWIDTH_SHARE * 3.35e12)
    assert h100.compute[Precision.FP16] == pytest.approx(COMPUTE_SHARE * 989e12)
    assert Precision.FP8 not in DEVICES["a100-80"].compute
    assert Precision.BF16 not in DEVICES["t4"].compute


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
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as 8GiB"):
        parse_bytes(text)


@given(st.integers(GIB // 8, 2**45))
def test_a_size_that_is_shown_is_read_again(size: int) -> None:
    assert parse_bytes(gib(size)) == pytest.approx(size, rel=0.06)
