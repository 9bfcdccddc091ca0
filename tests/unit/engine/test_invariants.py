"""The invariants of docs/design.md, each under its number, on the engine with a toy model."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.core.errors import InvalidArgument, Unavailable
from engine.core.request import FinishReason, Sampling
from tests.fakes.loop import EOS, TOY_TABLE, VOCAB, ToyEngine, ToyModel, answer_alone, text_of
from tests.unit.engine.machine import CAPACITY, EngineMachine, greedy, prompts, stop_words

test_invariant_1_exactly_one_final_response = EngineMachine.TestCase
varied = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, CAPACITY), "seed": st.integers(0, 99)},
    optional={
        "temperature": st.sampled_from([0.0, 1.0, 3.0]),
        "stop_words": stop_words,
        "min_tokens": st.just(1),
        "ignore_eos": st.booleans(),
        "num_logprobs": st.integers(0, 3),
    },
)


@given(prompts, varied, st.lists(st.booleans(), min_size=1, max_size=CAPACITY))
def test_invariant_2_streamed_chunks_joined_equal_the_unary_text(
    prompt: list[int], sampling: dict[str, Any], sends: list[bool]
) -> None:
    unary, stream = (ToyEngine(2, CAPACITY, eos=frozenset({EOS})) for _ in range(2))
    whole = unary.ask(prompt, stream=False, **sampling)
    unary.run()
    chunks = stream.ask(prompt, stream=True, **sampling)
    for place in range(2000):
        if not stream.loop.keys():
            break
        stream.clock.advance(300)
        stream.step(send=sends[place % len(sends)])
    stream.outbox.send_pending()
    assert len(whole.chunks) == 1
    assert chunks.text == whole.text
    assert (chunks.tokens, chunks.finish) == (whole.tokens, whole.finish)
    entries = [entry for chunk in chunks.chunks for entry in chunk.logprobs]
    assert json.dumps(entries) == json.dumps(whole.chunks[0].logprobs)
    assert all("�" not in text for text in chunks.texts) or "�" in whole.text


def test_invariant_3_a_cancelled_stream_frees_its_slot_within_one_step() -> None:
    """The detokenizer sees the cancel on a chunk; from then on it takes one step."""
    engine = ToyEngine(slots=2)
    gone, other = engine.ask([1], max_tokens=50), engine.ask([2], max_tokens=50)
    for _ in range(3):
        engine.step()
    assert len(engine.scheduler.slots.free) == 0
    engine.loop.cancel(gone.key)
    engine.step()
    assert len(engine.scheduler.slots.free) == 1
    assert gone.done
    assert other.tokens == 3


@pytest.mark.parametrize("place", ["running", "prefilling", "waiting"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_invariant_3_wherever_it_is_a_request_ends_within_one_step(place: str, how: str) -> None:
    engine = ToyEngine(slots=1, chunk=4, capacity=64)
    if place == "waiting":
        engine.ask([3], max_tokens=50)
        engine.step()
    client = engine.ask([1] if place == "running" else [1] * 40, timeout_ms=100, max_tokens=50)
    engine.step()
    before = len(engine.loop.keys())
    if how == "cancel":
        engine.loop.cancel(client.key)
    else:
        engine.clock.advance(100)
    engine.step()
    assert client.done
    assert client.error.startswith("CANCELLED: " if how == "cancel" else "DEADLINE_EXCEEDED: timeout: ")
    assert len(engine.loop.keys()) == before - 1


def test_invariant_3_after_100_disconnects_nothing_is_running() -> None:
    engine = ToyEngine(slots=4, max_queue=100)
    for number in range(100):
        client = engine.ask([1 + number % 20, 2], max_tokens=50)
        for _ in range(number % 7):
            engine.step()
        engine.loop.cancel(client.key)
    engine.step()
    assert engine.loop.keys() == []
    assert list(engine.scheduler) == []
    assert len(engine.scheduler.slots.free) == 4
    assert all(client.finals == 1 for client in engine.clients)
    assert not engine.step()


@settings(max_examples=60)
@given(prompts, greedy, st.lists(st.tuples(prompts, varied, st.integers(0, 6)), max_size=6))
def test_invariant_4_a_greedy_answer_does_not_depend_on_its_batch(
    prompt: list[int], sampling: dict[str, Any], others: list[tuple[list[int], dict[str, Any], int]]
) -> None:
    """Others come before, with and after it, share its prefixes, and leave gaps between the rows."""
    engine = ToyEngine(3, CAPACITY, 100, 4, frozenset({EOS}), min_reuse=2)
    half = len(others) // 2
    for other, how, steps in others[:half]:
        engine.ask(other, **how)
        for _ in range(steps):
            engine.step()
    client = engine.ask(prompt, **sampling)
    for other, how, steps in others[half:]:
        engine.ask(other, **how)
        for _ in range(steps):
            engine.step()
    engine.run()
    alone = answer_alone(prompt, Sampling(**sampling), CAPACITY, frozenset({EOS}))
    assert (client.text, client.tokens, client.finish) == alone


def test_invariant_5_the_queue_is_bounded_and_says_so_at_once() -> None:
    engine = ToyEngine(slots=1, max_queue=3)
    engine.ask([1], max_tokens=50)
    engine.step()
    accepted = [engine.ask([2]) for _ in range(3)]
    for _ in range(100):
        with pytest.raises(
            Unavailable, match=r"^UNAVAILABLE: queue: 3 requests waiting, limit 3; retry later$"
        ):
            engine.ask([3])
    assert len(engine.loop.keys()) == 4
    engine.run()
    assert all(client.finish is FinishReason.LENGTH for client in accepted)


def test_invariant_5_a_prompt_too_long_is_refused_with_both_numbers() -> None:
    engine = ToyEngine(capacity=64)
    with pytest.raises(InvalidArgument, match=r"^INVALID_ARG: prompt: 64 tokens, must be at most 63 "):
        engine.ask([1] * 64)
    assert engine.loop.keys() == []


@given(prompts, varied, st.lists(st.booleans(), min_size=1, max_size=CAPACITY))
def test_invariant_6_a_stop_sequence_is_never_emitted(
    prompt: list[int], sampling: dict[str, Any], sends: list[bool]
) -> None:
    """Stop sequences that the model is about to say, cut at any byte by its tokens."""
    said = text_of(ToyModel().greedy(prompt, CAPACITY))
    words = [
        said[start : start + 3] for start in range(2, len(said) - 3, 5) if "�" not in said[start : start + 3]
    ]
    sampling = {**sampling, "stop_words": tuple([*words, "STOP", "ab"][:4]), "min_tokens": 0}
    for stream in (True, False):
        engine = ToyEngine(2, CAPACITY, eos=frozenset({EOS}))
        client = engine.ask(prompt, stream, **sampling)
        for place in range(200):
            engine.step(send=sends[place % len(sends)])
        engine.outbox.send_pending()
        assert client.done
        assert not any(word in client.text for word in sampling["stop_words"])


def test_invariant_6_a_stop_sequence_split_over_tokens_is_held_back() -> None:
    """Forced to say "S", "T"…: nothing of "STOP" is ever sent, and what only looked like it is."""
    engine = ToyEngine()
    st_token, op, s, p = (
        next(i for i in range(VOCAB) if TOY_TABLE[i] == w) for w in (b"ST", b"OP", b"S", b"P")
    )
    script = [s, st_token, st_token, op, p]
    model = engine.runner.model
    answers = iter(script)
    logits = model.logits

    def scripted(tokens: Any) -> Any:
        row = logits(tokens).copy()
        row[next(answers)] = 100
        return row

    model.logits = scripted  # type: ignore[method-assign]
    client = engine.ask([1], max_tokens=9, stop_words=("STOP",))
    texts = []
    while engine.loop.keys():
        engine.step()
        texts.append(client.text)
    assert texts == ["", "S", "SST", "SST"]
    assert client.finish is FinishReason.STOP_SEQUENCE
    assert client.tokens == 4


@pytest.mark.parametrize("operation", ["verify", "prefill"])
def test_invariant_7_a_failed_step_fails_its_own_and_the_engine_goes_on(operation: str) -> None:
    engine = ToyEngine(slots=4, chunk=4)
    decoding = [engine.ask([n], max_tokens=30) for n in (1, 2)]
    engine.step()
    engine.step()
    prefilling, waiting = engine.ask([3] * 20), engine.ask([4])
    engine.step()
    # Both in one call fail first, and are then tried apart.
    engine.runner.faults = {name: RuntimeError("out of memory") for name in ("both", operation)}
    engine.step()
    failed, well = (decoding, [prefilling]) if operation == "verify" else ([prefilling], decoding)
    assert all(client.error.startswith("INTERNAL: engine: ") for client in failed)
    engine.run()
    for client in (*well, waiting):
        assert client.finish is FinishReason.LENGTH
    later = engine.ask([1, 2, 3], max_tokens=5)
    engine.run()
    assert later.text == text_of(ToyModel().greedy([1, 2, 3], 5))


bad_ids = st.lists(st.integers(-5, VOCAB + 5), max_size=CAPACITY + 3)
names = ["max_tokens", "min_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty"]
values = st.sampled_from([-1, 0, 1, 3, 100, 10**6, 0.5, 1e-30, float("nan"), float("inf")])


@given(prompts, bad_ids, st.dictionaries(st.sampled_from(names), values))
def test_invariant_7_one_bad_request_never_hurts_another(
    prompt: list[int], bad_prompt: list[int], bad: dict[str, Any]
) -> None:
    """It is refused or runs. Another request in the same batch is answered as if alone."""
    engine = ToyEngine(3, CAPACITY, chunk=4, min_reuse=2)
    client = engine.ask(prompt, max_tokens=CAPACITY)
    engine.step()
    try:
        engine.ask(bad_prompt, **bad)
    except InvalidArgument as error:
        assert str(error).startswith("INVALID_ARG: ")  # noqa: PT017
    engine.run()
    assert not engine.faults
    alone = answer_alone(prompt, Sampling(CAPACITY), CAPACITY)
    assert (client.text, client.tokens, client.finish) == alone
