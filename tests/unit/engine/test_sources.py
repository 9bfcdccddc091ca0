"""What an encoder reads: one source a step, kept in its slot, lent to others, refused when too long."""

from __future__ import annotations

from typing import Any

import pytest

from engine.core.errors import EngineError
from engine.core.request import FinishReason, Sampling
from engine.core.slots import Copy, SlotTable
from tests.fakes.loop import DIVIDER, START, VOCAB, Client, ToyEngine, answer_alone

CAPACITY, SOURCE = 32, 12


def engine_of(slots: int = 3, stream_interval: int = 0) -> ToyEngine:
    return ToyEngine(slots, CAPACITY, source_capacity=SOURCE, stream_interval=stream_interval)


def refused(engine: ToyEngine, source: list[int], **sampling: Any) -> str:
    with pytest.raises(EngineError) as caught:
        engine.ask(source, **sampling)
    return str(caught.value)


def alone(source: list[int], **sampling: Any) -> tuple[str, int, FinishReason]:
    return answer_alone(source, Sampling(**{"max_tokens": 8, **sampling}), CAPACITY, encoder=True)


def told(client: Client) -> tuple[str, int, FinishReason | None]:
    return client.text, client.tokens, client.finish


def test_an_answer_follows_the_decoders_start_and_counts_the_source() -> None:
    engine = engine_of()
    client = engine.ask([4, 5, 6], stream=False)
    engine.run()
    assert told(client) == alone([4, 5, 6])
    assert client.chunks[0].prompt_tokens == 3
    assert engine.runner.calls.count("encode") == 1
    assert "prefill" not in engine.runner.calls


def test_a_source_of_the_greatest_length_is_read_and_a_longer_one_refused() -> None:
    engine = engine_of()
    client = engine.ask([1] * SOURCE)
    engine.run()
    assert told(client) == alone([1] * SOURCE)
    assert refused(engine, [1] * (SOURCE + 1)) == (
        "INVALID_ARG: prompt: 13 tokens, must be at most 12 (max_source)"
    )
    assert refused(engine, []) == "INVALID_ARG: prompt: 0 tokens, must have at least 1"


def test_one_source_a_step_while_the_streams_go_on() -> None:
    engine = engine_of(3, stream_interval=1)
    clients = [engine.ask([key, key], max_tokens=20) for key in (1, 2, 3)]
    for encoded in (1, 2, 3):
        before = [client.tokens for client in clients]
        engine.step()
        assert engine.runner.calls.count("encode") == encoded
        after = [client.tokens for client in clients]
        assert after == [count + (place < encoded - 1) for place, count in enumerate(before)]


def test_a_source_that_some_slot_holds_is_not_read_again() -> None:
    engine = engine_of(2)
    asked = [engine.ask([7, 8, 9], max_tokens=4 + step) for step in range(4)]
    engine.run()
    assert engine.runner.calls.count("encode") == 1
    for step, client in enumerate(asked):
        assert told(client) == alone([7, 8, 9], max_tokens=4 + step)
    tally = engine.recorder.drain()
    assert tally.counters["prefix_cache_queries_total", ()] == 12
    assert tally.counters["prefix_cache_hits_total", ()] == 9


def test_a_source_whose_encoding_failed_is_read_anew() -> None:
    engine = engine_of(2)
    engine.runner.faults = {"encode": RuntimeError("fault")}
    failed = engine.ask([7, 8, 9])
    engine.run()
    assert failed.error == "INTERNAL: engine: the step failed (RuntimeError); the request was ended"
    client = engine.ask([7, 8, 9])
    engine.run()
    assert told(client) == alone([7, 8, 9])
    assert engine.runner.calls.count("encode") == 2


def test_a_failed_encoding_harms_no_stream() -> None:
    engine = engine_of(2)
    stream = engine.ask([1, 2], max_tokens=10)
    engine.step()
    engine.runner.faults = {"encode": RuntimeError("fault")}
    failed = engine.ask([3])
    engine.run()
    assert failed.errors
    assert told(stream) == alone([1, 2], max_tokens=10)


def test_the_request_may_name_another_start() -> None:
    engine = engine_of()
    client = engine.ask([4, 5], decoder_start_token_id=9, max_tokens=1)
    engine.run()
    first = engine.runner.model.greedy([4, 5, DIVIDER, 9], 1)
    assert list(client.chunks[0].span.tokens) == first
    assert refused(engine, [4], decoder_start_token_id=VOCAB) == (
        f"INVALID_ARG: decoder_start_token_id: {VOCAB}, must be a token id in [0, {VOCAB - 1}]"
    )


def test_a_model_without_an_encoder_takes_no_start() -> None:
    assert refused(ToyEngine(), [4], decoder_start_token_id=START) == (
        "INVALID_ARG: decoder_start_token_id: 3, must be left out: this model has no encoder"
    )


@pytest.mark.parametrize("field", ["forced_bos_token_id", "forced_eos_token_id"])
def test_forced_tokens_are_of_the_model(field: str) -> None:
    assert refused(engine_of(), [4], **{field: VOCAB}).startswith(f"INVALID_ARG: {field}: {VOCAB}, must be")


def test_the_table_lends_a_source_and_moves_it_with_its_slot() -> None:
    table = SlotTable(3, CAPACITY, source_capacity=SOURCE)
    first = table.place_source((1, 2))
    assert first
    assert (first.reused, first.moves) == (0, ())
    first.slot.source = (1, 2)
    again = table.place_source((1, 2))
    assert again
    assert (again.reused, again.moves) == (2, (Copy(0, 1, 0),))
    table.release(first.slot)
    assert table.place_source((1, 2)).reused == 2  # type: ignore[union-attr]
    table.swap(again.slot, table.slots[2])
    assert [slot.source for slot in table.slots] == [(1, 2), (), (1, 2)]
    table.forget(table.slots[2])
    assert table.slots[2].source == ()


def test_usage_counts_sources() -> None:
    engine = engine_of(1)
    engine.ask([1] * 6, max_tokens=20)
    for _ in range(3):
        engine.step()
    assert engine.scheduler.slots.usage == (6 + 2) / (CAPACITY + SOURCE)
