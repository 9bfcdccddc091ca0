"""Every sampling input has its effect."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.wire import Answer, Wire, ask, chat

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

PROMPT = "The capital of France is"
REPETITIVE = "one two one two one two one two one two"


def _drawn(wire: Wire, **inputs: Any) -> Answer:
    return ask(wire, PROMPT, **{"temperature": 2.0, "seed": 1, "max_tokens": 12, **inputs})


def test_greedy_answers_repeat(wire: Wire) -> None:
    answers = {ask(wire, PROMPT, max_tokens=24).text for _ in range(3)}
    assert len(answers) == 1


def test_a_seed_repeats_an_answer_and_another_changes_it(wire: Wire) -> None:
    by_seed = {seed: _drawn(wire, seed=seed).text for seed in (0, 1, 2**64 - 1)}
    assert len(set(by_seed.values())) == 3
    assert {seed: _drawn(wire, seed=seed).text for seed in by_seed} == by_seed


def test_a_seed_gives_the_same_answer_streamed(wire: Wire) -> None:
    assert _drawn(wire, stream=True).text == _drawn(wire).text


def test_without_a_seed_answers_differ(wire: Wire) -> None:
    answers = {ask(wire, PROMPT, temperature=2.0, max_tokens=12).text for _ in range(3)}
    assert len(answers) == 3


@pytest.mark.parametrize(
    "narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}, {"temperature": 1e-6}], ids=str
)
def test_the_narrowest_sampling_is_greedy(wire: Wire, narrow: dict[str, float]) -> None:
    assert _drawn(wire, **narrow).text == ask(wire, PROMPT, max_tokens=12).text


@pytest.mark.parametrize("limit", [{"top_k": 5}, {"top_p": 0.01}, {"min_p": 0.5}], ids=str)
def test_a_limit_keeps_unlikely_tokens_out(wire: Wire, limit: dict[str, float]) -> None:
    """At this temperature nearly every token drawn without a limit is far from the likeliest 20."""
    hot = {"temperature": 2.5, "ignore_eos": True, "num_logprobs": 20}
    assert _outsiders(_drawn(wire, **hot)) > 0
    assert _outsiders(_drawn(wire, **hot, **limit)) == 0


def _outsiders(answer: Answer) -> int:
    return sum(
        entry["id"] not in {alternative["id"] for alternative in entry["top"]} for entry in answer.logprobs
    )


@pytest.mark.parametrize(
    "penalty", [{"repetition_penalty": 2.0}, {"frequency_penalty": 2.0}, {"presence_penalty": 2.0}], ids=str
)
def test_a_penalty_breaks_a_repetition(wire: Wire, penalty: dict[str, float]) -> None:
    plain = ask(wire, REPETITIVE, max_tokens=24, num_logprobs=0)
    changed = ask(wire, REPETITIVE, max_tokens=24, num_logprobs=0, **penalty)
    assert len(set(changed.ids)) > len(set(plain.ids))


def test_a_bias_makes_or_bans_a_token(wire: Wire) -> None:
    plain = ask(wire, PROMPT, max_tokens=1, num_logprobs=2)
    first, second = (alternative["id"] for alternative in plain.logprobs[0]["top"])
    banned = ask(wire, PROMPT, max_tokens=1, num_logprobs=0, logit_bias=json.dumps({str(first): -100}))
    assert (plain.ids, banned.ids) == ([first], [second])
    made = ask(wire, PROMPT, max_tokens=3, num_logprobs=0, logit_bias=json.dumps({str(second): 100}))
    assert made.ids == [second] * 3


def test_logprobs_are_those_of_the_model_before_any_change(wire: Wire) -> None:
    plain = ask(wire, PROMPT, max_tokens=1, num_logprobs=2).logprobs[0]
    biased = ask(
        wire, PROMPT, max_tokens=1, num_logprobs=2, temperature=2.0, seed=1,
        logit_bias=json.dumps({str(plain["id"]): 100}),
    ).logprobs[0]  # fmt: skip
    assert biased == plain


def test_max_tokens_ends_an_answer(wire: Wire) -> None:
    for limit in (1, 2, 9):
        answer = ask(wire, PROMPT, max_tokens=limit, ignore_eos=True)
        assert (answer.tokens, answer.finish) == (limit, "length")


def test_an_answer_that_is_complete_stops(wire: Wire) -> None:
    answer = chat(wire, "Say hi.", max_tokens=200)
    assert answer.finish == "stop"
    assert answer.tokens < 200


def test_min_tokens_puts_the_end_off(wire: Wire) -> None:
    short = chat(wire, "Say hi.", max_tokens=200)
    wanted = short.tokens + 10
    longer = chat(wire, "Say hi.", max_tokens=200, min_tokens=wanted)
    assert longer.tokens >= wanted
    assert longer.text.startswith(short.text)


def test_ignore_eos_generates_on(wire: Wire) -> None:
    short = chat(wire, "Say hi.", max_tokens=200)
    wanted = short.tokens + 10
    longer = chat(wire, "Say hi.", max_tokens=wanted, ignore_eos=True)
    assert (longer.tokens, longer.finish) == (wanted, "length")
    assert longer.text.startswith(short.text)
