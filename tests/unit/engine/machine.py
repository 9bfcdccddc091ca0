"""Requests, steps, cancellations, deadlines, slow clients and faults, in any order."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.core.contract import EarlyStoppingChoice
from engine.core.errors import InternalError, Unavailable
from engine.core.request import Sampling
from tests.fakes.loop import EOS, Client, ToyEngine, answer_alone, searched_alone

CAPACITY = 24
few = st.integers(1, 3)  # few different tokens, so that prompts share prefixes
prompts = st.lists(few, min_size=1, max_size=CAPACITY - 1)
STOPS = ["a", "ab", "STOP", "é", "€", " the", "\n", "b a", "cab", "OPS"]
stop_words = st.lists(st.sampled_from(STOPS), max_size=3).map(tuple)
greedy = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, CAPACITY)},
    optional={"stop_words": stop_words, "ignore_eos": st.booleans()},
)
searches = st.fixed_dictionaries(
    {"max_tokens": st.integers(1, CAPACITY), "num_beams": st.integers(2, 4)},
    optional={
        "ignore_eos": st.booleans(),
        "early_stopping": st.sampled_from(EarlyStoppingChoice),
        "length_penalty": st.sampled_from([-1.0, 0.0, 2.0]),
        "no_repeat_ngram_size": st.integers(1, 3),
    },
)


class EngineMachine(RuleBasedStateMachine):
    """Requests, steps, cancellations, deadlines, slow clients and faults in any order."""

    @initialize(
        slots=st.integers(1, 5), queue=st.integers(1, 6), chunk=st.integers(1, 6), encoder=st.booleans()
    )
    def begin(self, slots: int, queue: int, chunk: int, encoder: bool) -> None:
        self.eos = frozenset({EOS})
        self.encoder = encoder
        source = CAPACITY if encoder else 0
        self.engine = ToyEngine(slots, CAPACITY, queue, chunk, self.eos, min_reuse=2, source_capacity=source)
        self.asked: list[tuple[Client, list[int], Sampling]] = []
        self.disturbed: set[int] = set()  # keys of those that need not end well
        self.faults = 0

    @rule(prompt=prompts, sampling=greedy, stream=st.booleans(), timeout=st.none() | st.integers(1, 900))
    def ask(self, prompt: list[int], sampling: dict[str, Any], stream: bool, timeout: int | None) -> None:
        try:
            client = self.engine.ask(prompt, stream, timeout, **sampling)
        except Unavailable:
            return
        self.asked.append((client, prompt, Sampling(**sampling)))
        if timeout is not None:
            self.disturbed.add(client.key)

    @rule(prompt=prompts, sampling=searches, timeout=st.none() | st.integers(1, 900))
    def ask_for_a_search(self, prompt: list[int], sampling: dict[str, Any], timeout: int | None) -> None:
        if sampling["num_beams"] <= len(self.engine.scheduler.slots.slots):
            self.ask(prompt, sampling, False, timeout)

    @rule(send=st.booleans())
    def step(self, send: bool) -> None:
        self.engine.step(send)

    @precondition(lambda self: self.engine.loop.keys())
    @rule(data=st.data(), fault=st.booleans())
    def cancel(self, data: st.DataObject, fault: bool) -> None:
        key = data.draw(st.sampled_from(self.engine.loop.keys()))
        self.engine.loop.cancel(key, InternalError("detokenizer", "x") if fault else None)
        self.disturbed.add(key)

    @rule(milliseconds=st.integers(1, 1000))
    def time_passes(self, milliseconds: int) -> None:
        self.engine.clock.advance(milliseconds)

    @precondition(lambda self: self.engine.loop.keys())
    @rule(operation=st.sampled_from(["decode", "prefill", "encode", "copy", "swap"]))
    def fault(self, operation: str) -> None:
        before = len(self.engine.faults)
        self.engine.runner.faults = {operation: RuntimeError("fault")}
        self.engine.step()
        self.engine.runner.faults = {}
        self.faults += 1
        failed = {c.key for c, _, _ in self.asked if c.error.startswith("INTERNAL: engine")}
        assert len(self.engine.faults) - before in (0, 1)
        self.disturbed |= failed

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        for client, _, _ in self.asked:
            assert client.finals <= 1
            assert client.late == 0

    @invariant()
    def slots_belong_to_those_that_have_not_ended(self) -> None:
        keys = self.engine.loop.keys()
        busy = [slot for slot in self.engine.scheduler.slots.slots if slot.busy]
        placed = [sequence for sequence in self.engine.scheduler if sequence.lanes]
        assert [slot.index for slot in busy] == sorted(
            lane.slot.index for sequence in placed for lane in sequence.lanes
        )
        assert len(placed) + len(self.engine.scheduler.waiting) == len(keys)
        assert {sequence.key for sequence in self.engine.scheduler} == set(keys)

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        self.engine.run()
        for client, prompt, sampling in self.asked:
            assert (client.finals, client.late) == (1, 0)
            if client.key not in self.disturbed:
                assert client.errors == []
            if client.finish:
                alone = answer_alone if sampling.num_beams == 1 else searched_alone
                expected = alone(prompt, sampling, CAPACITY, self.eos, self.encoder)
                assert (client.text, client.tokens, client.finish) == expected
        assert len(self.engine.scheduler.slots.free) == len(self.engine.scheduler.slots.slots)
        assert all(str(fault) == "fault" for fault in self.engine.faults)
        assert len(self.engine.faults) <= self.faults


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
