"""Invariants 1, 2, 4 and 6: an answer depends neither on how it is asked for nor on other requests."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.live.crowd import WIRES, a_few_at_once, at_once
from tests.live.serving import Server
from tests.live.wire import Address, Answer, ask
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

PROMPTS = (
    "The capital of France is",
    "1, 2, 3, 4, 5, 6,",
    "def fibonacci(n):\n    if n < 2:\n",
    "春眠不觉晓，处处闻啼鸟。",
    "😀 🚀 🌍 😀 🚀 🌍",
    "Dear Sir or Madam,\n\n",
    "Ein Haus, zwei Häuser; ein Baum,",
    " ".join(f"word{number}" for number in range(60)),
)
# Ways to ask that differ in all that a step of the engine does.
MANNERS: tuple[dict[str, Any], ...] = (
    {},
    {"stream": True},
    {"temperature": 1.5, "seed": 3},
    {"temperature": 1.0, "top_k": 40, "top_p": 0.9, "min_p": 0.02, "seed": 4, "stream": True},
    {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2},
    {"num_logprobs": 5, "stop_words": ["never said", "\n\n\n\n"]},
)


def _asked(address: Address, kind: str, prompt: str, **inputs: Any) -> Answer:
    with WIRES[kind](address) as wire:
        return ask(wire, prompt, **inputs)


def test_invariant_1_every_request_ends_in_exactly_one_final_response(int8: Server) -> None:
    endings: dict[str, dict[str, Any]] = {
        "length": {"ignore_eos": True},
        "stop_sequence": {"stop_words": [" "]},
        "stop": {"logit_bias": '{"2": 100}'},  # the end-of-sequence token
        "INVALID_ARG": {"top_p": 2.0},
        "DEADLINE_EXCEEDED": {"ignore_eos": True, "max_tokens": 2000, "timeout": 200_000},
    }
    for ending, inputs in endings.items():
        for stream in (False, True):
            given = {"text_input": PROMPTS[0], "temperature": 0.0, "max_tokens": 12, **inputs}
            with GrpcWire(int8.address) as wire:
                request = wire.request(stream=stream, **given)
                messages = list(wire.stub.ModelStreamInfer(iter([request]), timeout=60))
            assert [bool(_ending(message)) for message in messages] == [False] * (len(messages) - 1) + [True]
            assert ending in _ending(messages[-1])
            assert [_is_final(message) for message in messages[:-1]] == [False] * (len(messages) - 1)
    int8.wait_idle()


def _ending(message: Any) -> str:
    """The error or the finish reason, empty for a response that others follow."""
    if message.error_message:
        return str(message.error_message)
    outputs = [output.name for output in message.infer_response.outputs]
    raw = message.infer_response.raw_output_contents[outputs.index("finish_reason")]
    return str(raw[4:], "utf-8")


def _is_final(message: Any) -> bool:
    return bool(message.infer_response.parameters["triton_final_response"].bool_param)


def test_invariant_2_the_chunks_joined_are_the_unary_text(int8: Server) -> None:
    """Under load, where chunks get joined, and for every way to ask."""

    def pair(prompt: str, kind: str, manner: dict[str, Any]) -> tuple[str, str, str]:
        inputs = {"max_tokens": 20, **manner}
        unary = _asked(int8.address, kind, prompt, **{**inputs, "stream": False})
        streamed = _asked(int8.address, kind, prompt, **{**inputs, "stream": True})
        return f"{prompt} {kind} {manner}", unary.text, streamed.text

    pairs = a_few_at_once(
        partial(pair, prompt, kind, MANNERS[(index + (kind == "grpc")) % len(MANNERS)])
        for index, prompt in enumerate(PROMPTS)
        for kind in WIRES
    )
    assert len(pairs) == len(PROMPTS) * len(WIRES)
    for asked, unary, streamed in pairs:
        assert streamed == unary, asked


def test_invariant_4_an_answer_does_not_depend_on_the_batch(int8: Server) -> None:
    """Token for token and to the last bit of every log-probability, alone and with 16 others in the batch.

    In int8, where rounding would show most; the parity tests do the same in fp32.
    """
    watched = {"max_tokens": 24, "num_logprobs": 0}
    alone = [_asked(int8.address, "grpc", prompt, **watched) for prompt in PROMPTS]

    def others() -> list[Callable[[], Answer]]:
        return [
            partial(
                _asked, int8.address, ("http", "grpc")[number % 2], PROMPTS[-1 - number % 8],
                **{"max_tokens": 10 + 3 * number, **MANNERS[number % len(MANNERS)]},
            )
            for number in range(16)
        ]  # fmt: skip

    for start in range(0, len(PROMPTS), 4):
        prompts = PROMPTS[start : start + 4]
        asked: list[Callable[[], Answer]] = [
            partial(_asked, int8.address, "grpc", prompt, **watched) for prompt in prompts
        ]
        together = at_once(others() + asked)[16:]
        for prompt, answer, in_batch in zip(prompts, alone[start : start + 4], together, strict=True):
            assert in_batch.text == answer.text, prompt
            assert in_batch.logprobs == answer.logprobs, prompt


def test_invariant_4_an_answer_does_not_depend_on_the_prefix_cache(int8: Server) -> None:
    """A prompt of several chunks, cold, cached whole, and cached in part."""
    words = random.Random(5).choices(["red", "green", "blue", "seven", "eleven", "house"], k=300)
    long = f"{random.random()} " + " ".join(words)
    cold, warm = (_asked(int8.address, "grpc", long, num_logprobs=0) for _ in range(2))
    assert warm.logprobs == cold.logprobs
    _asked(int8.address, "grpc", long + " and so on and on", num_logprobs=0)
    assert _asked(int8.address, "grpc", long, num_logprobs=0).logprobs == cold.logprobs


def test_invariant_6_a_stop_sequence_is_never_emitted(int8: Server) -> None:
    """Cut from the answer at any place, by any length: what comes is all that precedes it."""
    plain = {prompt: _asked(int8.address, "grpc", prompt, max_tokens=32).text for prompt in PROMPTS[:6]}
    choose = random.Random(6)

    def check(prompt: str, word: str, kind: str) -> None:
        inputs = {"max_tokens": 32, "stop_words": [word, "never said"]}
        answer = _asked(int8.address, kind, prompt, stream=True, **inputs)
        assert answer.text == plain[prompt][: plain[prompt].index(word)], (prompt, word)
        assert answer.finish == "stop_sequence"

    jobs = []
    for prompt, text in plain.items():
        whole = text.rstrip("\ufffd")
        for kind in WIRES:
            start = choose.randrange(len(whole) - 1)
            end = start + choose.randint(1, 8)
            jobs.append(partial(check, prompt, whole[start:end], kind))
    a_few_at_once(jobs)
