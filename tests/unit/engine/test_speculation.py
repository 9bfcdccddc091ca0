"""Prompt lookup: what is proposed, and that no answer changes by it."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.core.errors import InternalError
from engine.core.sequence import TOGETHER, Drafter, room_for_drafts
from tests.fakes.loop import EOS, VOCAB, Client, ToyEngine, ToyModel, text_of

TOKENS = st.lists(st.integers(0, 3), min_size=1, max_size=60)


class HabitualModel(ToyModel):
    """The last two tokens decide what follows; once in `surprise` times all that was before does."""

    def __init__(self, surprise: int = 6) -> None:
        super().__init__()
        self._surprise = surprise

    def logits(self, tokens: NDArray[np.int32]) -> NDArray[np.float32]:
        whole = zlib.crc32(tokens.tobytes())
        return super().logits(tokens if whole % self._surprise == 0 else tokens[-2:])


@given(TOKENS, st.integers(0, 15), st.integers(1, 15))
def test_a_draft_is_what_followed_the_same_tokens_before(tokens: list[int], room: int, most: int) -> None:
    draft = Drafter(tokens, most).propose(room)
    assert len(draft) <= min(room, most)
    if not draft:
        return
    ends = [end for end in range(2, len(tokens)) if tokens[end - 2 : end] == tokens[-2:]]
    cycles = [[tokens[end + i % (len(tokens) - end)] for i in range(len(draft))] for end in ends]
    assert list(draft) in cycles


@given(TOKENS, TOKENS)
def test_a_drafter_that_watches_proposes_what_a_fresh_one_does(before: list[int], later: list[int]) -> None:
    tokens = list(before)
    watching = Drafter(tokens, 4)
    for token in later:
        tokens.append(token)
        assert watching.propose(4) == Drafter(list(tokens), 4).propose(4)


def test_three_tokens_say_more_than_two() -> None:
    assert Drafter([1, 2, 3, 7, 9, 2, 3, 8, 1, 2, 3], 1).propose(1) == (7,)
    assert Drafter([1, 2, 3, 7, 9, 2, 3, 8, 5, 2, 3], 1).propose(1) == (8,)


def test_nothing_alike_is_no_draft() -> None:
    assert Drafter([1, 2, 3, 4], 4).propose(4) == ()
    assert Drafter([1], 4).propose(4) == ()


def test_a_draft_of_which_nothing_is_kept_is_followed_by_a_rest() -> None:
    drafter = Drafter([1, 2, 3, 4, 1, 2], 4)
    assert drafter.propose(4) == (3, 4, 1, 2)
    drafter.kept(4, 0)
    assert [drafter.propose(4) for _ in range(8)] == [()] * 8
    assert drafter.propose(4) == (3,)
    drafter.kept(1, 1)
    assert drafter.propose(4) == (3, 4)


@given(st.integers(1, 200))
def test_a_step_stays_small(running: int) -> None:
    together = running * (1 + room_for_drafts(running))
    assert together <= max(running, TOGETHER)


REQUESTS = st.lists(
    st.tuples(
        st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20),
        st.integers(1, 30),
        st.sampled_from(
            [{}, {"temperature": 1.0, "seed": 3}, {"repetition_penalty": 1.3}, {"num_logprobs": 2}]
        ),
        st.booleans(),
    ),
    min_size=1,
    max_size=6,
)


def answers(requests: list[tuple[list[int], int, dict[str, Any], bool]], most: int) -> list[Client]:
    engine = ToyEngine(eos=frozenset({EOS}), speculative_tokens=most, model=HabitualModel(), capacity=48)
    clients = [
        engine.ask(prompt, stream=stream, open_ended=True, **{"max_tokens": count, **sampling})
        for prompt, count, sampling, stream in requests
    ]
    engine.run()
    assert not engine.faults
    return clients


@given(REQUESTS, st.integers(1, 15))
@settings(max_examples=150, deadline=None)
def test_no_answer_changes(requests: list[tuple[list[int], int, dict[str, Any], bool]], most: int) -> None:
    plain, drafted = answers(requests, 0), answers(requests, most)
    for one, other in zip(plain, drafted, strict=True):
        assert (other.text, other.tokens, other.finish) == (one.text, one.tokens, one.finish)
        assert _logprobs(other) == _logprobs(one)


def _logprobs(client: Client) -> list[object]:
    return [entry for chunk in client.chunks for entry in chunk.logprobs]


def periodic(most: int) -> ToyEngine:
    """An engine that has answered with what its prompt repeats."""
    model = HabitualModel(surprise=1000)
    prompt = model.greedy([1, 2], 40)
    engine = ToyEngine(speculative_tokens=most, model=model, capacity=128)
    engine.ask(prompt, max_tokens=60)
    engine.run()
    return engine


def test_an_answer_that_repeats_takes_fewer_steps_and_responses() -> None:
    plain, drafted = periodic(0), periodic(4)
    assert drafted.steps < 0.7 * plain.steps
    assert len(drafted.clients[0].chunks) < 0.7 * len(plain.clients[0].chunks)
    assert drafted.clients[0].text == plain.clients[0].text


def test_what_was_proposed_and_kept_is_counted() -> None:
    engine = periodic(4)
    counters = engine.recorder.drain().counters
    proposed = counters["spec_decode_num_draft_tokens_total", ()]
    kept = counters["spec_decode_num_accepted_tokens_total", ()]
    assert 0 < kept <= proposed
    assert counters["generation_tokens_total", ()] == 60
    # A step gives its own token and what was kept; the first token is the prefill's.
    assert engine.runner.calls.count("decode") + engine.runner.calls.count("verify") + kept == 59


def test_a_failed_step_ends_its_requests_and_no_others() -> None:
    model = HabitualModel(surprise=1000)
    prompt = model.greedy([1, 2], 30)
    engine = ToyEngine(speculative_tokens=4, model=model)
    client = engine.ask(prompt, max_tokens=20)
    engine.runner.faults["verify"] = RuntimeError("no memory")
    engine.run()
    assert client.finals == 1
    assert isinstance(client.errors[0], InternalError)
    again = engine.ask(prompt, max_tokens=20)
    engine.run()
    assert again.text == text_of(model.greedy(prompt, 20))
