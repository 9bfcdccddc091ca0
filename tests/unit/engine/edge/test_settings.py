from __future__ import annotations

from dataclasses import fields, replace

import pytest

from engine.core.contract import SETTINGS, DeviceChoice, EngineSettings, KernelsChoice
from engine.core.errors import SettingsError
from engine.core.limits import Limit
from engine.edge.artifact import Architecture, ModelShape
from engine.edge.container import usable_cores
from engine.edge.settings import Footprint, Settings, check_fit, read_settings
from engine.edge.triton import parameters_of
from engine.runners.kernels import LEVELS

SHAPE = ModelShape(layers=2, kv_heads=3, head_dim=4, vocab_size=10, max_positions=100)
PLAIN = Footprint(SHAPE)
SLOT = 2 * 4 * 2 * 3 * 4  # bytes of one position: keys and values of 4 bytes, 2 layers, 3 heads of 4


def test_without_parameters_there_are_defaults() -> None:
    assert read_settings({}) == Settings(16, 2048, 0, 0, 64, 0, 128, 250, 500)


def test_parameters_are_read_and_others_left_alone() -> None:
    assert read_settings({"slots": " 4 ", "max_queue": "2", "other": "x"}) == Settings(slots=4, max_queue=2)


def test_a_misspelt_parameter_of_a_config_is_refused() -> None:
    config = {"parameters": {"slot": {"string_value": "4"}, "EXECUTION_ENV_PATH": {"string_value": "x"}}}
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: slot: unknown parameter, must be one of slots, "):
        parameters_of(config, EngineSettings.__slots__)
    assert parameters_of(config, ["slot"]) == {"slot": "4", "EXECUTION_ENV_PATH": "x"}


RANGES = {one.name: SETTINGS[one.name] for one in fields(EngineSettings)}


@pytest.mark.parametrize("name", [name for name, limit in RANGES.items() if isinstance(limit, Limit)])
def test_the_ends_of_every_range(name: str) -> None:
    limit = RANGES[name]
    assert isinstance(limit, Limit)
    low, high = limit.low, limit.high
    for value in (low, high):
        assert getattr(read_settings({name: str(value)}), name) == value
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError) as caught:
            read_settings({name: str(value)})
        assert str(caught.value) == f"INVALID_ARG: {name}: {value}, must be a whole number in [{low}, {high}]"


@pytest.mark.parametrize("text", ["", "many", "1.5", "1e3", "-1", "0x10", "²", "9" * 5000])
def test_a_value_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: slots: .*must be a whole number in \[1, 1024\]$"):
        read_settings({"slots": text})


@pytest.mark.parametrize("device", DeviceChoice)
def test_a_device_is_read(device: DeviceChoice) -> None:
    assert read_settings({"device": device.value}).device is device


@pytest.mark.parametrize("text", ["", "gpu", "cuda:0", "CUDA"])
def test_an_unknown_device_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: device: .*, must be one of auto, cpu, cuda$"):
        read_settings({"device": text})


@pytest.mark.parametrize("choice", KernelsChoice)
def test_the_kernels_are_read(choice: KernelsChoice) -> None:
    assert read_settings({"kernels": choice.value}).kernels is choice


def test_every_level_of_the_kernels_can_be_chosen() -> None:
    assert list(KernelsChoice) == ["auto", "on", "off", *LEVELS]


@pytest.mark.parametrize("text", ["", "avx", "AVX2", "avxvnni-evex"])
def test_an_unknown_choice_of_kernels_is_refused(text: str) -> None:
    choices = "auto, on, off, avx512, avxvnni, avx2, plain"
    with pytest.raises(SettingsError, match=rf"^INVALID_ARG: kernels: .*, must be one of {choices}$"):
        read_settings({"kernels": text})


def test_zero_threads_are_all_cores() -> None:
    assert Settings().thread_count == usable_cores()
    assert Settings(threads=3).thread_count == 3


def test_a_context_longer_than_the_models_is_refused() -> None:
    check_fit(Settings(slots=1, max_context=100), PLAIN, 2**30)
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: max_context: 101, must be at most 100 "):
        check_fit(Settings(slots=1, max_context=101), PLAIN, 2**30)


def test_a_source_longer_than_the_encoders_is_refused() -> None:
    seq2seq = replace(SHAPE, architecture=Architecture.ENCODER_DECODER, max_source_positions=50)
    check_fit(Settings(slots=1, max_context=100, max_source=50), Footprint(seq2seq), 2**30)
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: max_source: 51, must be at most 50 "):
        check_fit(Settings(slots=1, max_context=100, max_source=51), Footprint(seq2seq), 2**30)
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: max_source: 1, must be at most 0 "):
        check_fit(Settings(slots=1, max_context=100, max_source=1), PLAIN, 2**30)


def test_the_usual_source_is_what_the_encoder_takes_but_not_more_than_1024() -> None:
    for positions, expected in ((512, 512), (16384, 1024)):
        assert Settings().source_capacity(replace(SHAPE, max_source_positions=positions)) == expected
    assert Settings(max_source=2048).source_capacity(replace(SHAPE, max_source_positions=16384)) == 2048
    assert Settings().source_capacity(SHAPE) == 0


def test_the_cross_cache_counts_to_the_budget() -> None:
    seq2seq = replace(SHAPE, architecture=Architecture.ENCODER_DECODER, max_source_positions=50)
    settings = Settings(slots=2, max_context=10, max_source=30, kv_budget_bytes=2 * 40 * SLOT)
    check_fit(settings, Footprint(seq2seq), 2**30)
    with pytest.raises(SettingsError, match="2 slots of 40 positions need"):
        check_fit(replace(settings, kv_budget_bytes=2 * 40 * SLOT - 1), Footprint(seq2seq), 2**30)


def test_the_cache_of_all_slots_must_fit_the_budget() -> None:
    settings = Settings(slots=10, max_context=100, kv_budget_bytes=1000 * SLOT)
    check_fit(settings, PLAIN, 2**30)
    tight = Settings(slots=10, max_context=100, kv_budget_bytes=1000 * SLOT - 1)
    with pytest.raises(SettingsError) as caught:
        check_fit(tight, PLAIN, 2**30)
    assert str(caught.value) == (
        "INVALID_ARG: kv_budget_bytes: 10 slots of 100 positions need 192,000 bytes, "
        "the limit is 191,999; 9 slots fit, or a max_context of 99"
    )


@pytest.mark.parametrize(
    ("own", "environ", "threads"),
    [("0", {"HALIMEDE_THREADS": "3"}, 3), ("2", {"HALIMEDE_THREADS": "3"}, 2), ("0", {}, usable_cores())],
)
def test_threads_are_the_models_then_the_servers_then_what_may_be_used(
    own: str, environ: dict[str, str], threads: int
) -> None:
    assert read_settings({"threads": own}, environ).thread_count == threads
    assert read_settings({}, {"HALIMEDE_THREADS": "4"}).thread_count == 4


def test_without_a_budget_four_fifths_of_free_memory_may_be_used() -> None:
    settings = Settings(slots=8, max_context=100)
    check_fit(settings, PLAIN, 1000 * SLOT)
    with pytest.raises(SettingsError, match="the limit is 153,599"):
        check_fit(settings, PLAIN, 1000 * SLOT - 1)


def test_a_budget_beyond_free_memory_is_refused() -> None:
    settings = Settings(slots=2, max_context=100, kv_budget_bytes=2**40)
    check_fit(settings, PLAIN, 200 * SLOT)
    with pytest.raises(SettingsError, match="1 slots fit"):
        check_fit(settings, PLAIN, 200 * SLOT - 1)
