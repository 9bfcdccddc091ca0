"""Two instances of one engine: requests are balanced, and all else is as with one."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from tests.live.artifacts import MODEL, built, instances, variant
from tests.live.conftest import CONTEXT, INSTANCES, TWIN, TWIN_SLOTS
from tests.live.crowd import ENDLESS, WIRES, at_once, leave_after, running
from tests.live.serving import Server, eventually, started
from tests.live.wire import WireError, ask, refused
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

PROMPT = "Once upon a time"
REGIONS = Path("/dev/shm")
LONG = CONTEXT - 48  # tokens; on their way until a test has seen enough


def in_flight(server: Server) -> Counter[str]:
    """Requests that run or wait, by instance."""
    found: Counter[str] = Counter()
    for name in ("num_requests_running", "num_requests_waiting"):
        for labels, value in server.metrics.series(name):
            found[labels["model_instance"]] += int(value)
    return found


def spread(server: Server, count: int) -> list[int]:
    """The requests of each instance, once the metrics show all `count`."""
    assert eventually(lambda: in_flight(server).total() == count), in_flight(server)
    return sorted(in_flight(server).values())


def test_every_instance_tells_its_own_gauges(twins: Server) -> None:
    names = {f"{MODEL}_engine_0_{number}" for number in range(INSTANCES)}
    for gauge in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert {labels["model_instance"] for labels, _ in twins.metrics.series(gauge)} == names


def test_streams_are_spread_evenly(twins: Server) -> None:
    """One after the other, until all slots run."""
    twins.wait_idle()
    with running(twins.address, 2, max_tokens=LONG), running(twins.address, 2, max_tokens=LONG):
        assert spread(twins, 4) == [2, 2]
        with running(twins.address, 4, max_tokens=LONG):
            assert spread(twins, 8) == [4, 4]
    twins.wait_idle()


def test_a_burst_is_spread_evenly(twins: Server) -> None:
    """As many at once as both can hold, running and waiting. None ends before the metrics show all."""
    twins.wait_idle()
    count = INSTANCES * 2 * TWIN_SLOTS
    seen = Event()

    def stream(number: int) -> bool:
        with GrpcWire(twins.address) as wire:
            replies = wire.open(text_input=f"Story {number}:", max_tokens=LONG, **ENDLESS)
            with closing(replies):
                return any(seen.is_set() for _ in replies)

    with ThreadPoolExecutor(count) as threads:
        left = [threads.submit(stream, number) for number in range(count)]
        try:
            fewest, most = spread(twins, count)
        finally:
            seen.set()
        assert all(stream.result() for stream in left)
    assert most - fewest <= 2
    twins.wait_idle()


def test_requests_go_where_there_is_less_to_do(twins: Server) -> None:
    """Long answers and short ones by turns: handed out in turn, one instance would get all the long ones."""
    twins.wait_idle()
    with ExitStack() as stack, GrpcWire(twins.address) as wire:
        for _ in range(4):
            stack.enter_context(running(twins.address, 1, max_tokens=LONG))
            ask(wire, PROMPT, max_tokens=2)
        fewest, most = spread(twins, 4)
        assert most - fewest <= 2
    twins.wait_idle()


def test_instances_answer_alike(twins: Server) -> None:
    def answer() -> str:
        with GrpcWire(twins.address) as wire:
            return ask(wire, PROMPT, max_tokens=24, ignore_eos=True).text

    assert len(set(at_once([answer] * 8))) == 1


def test_counters_of_the_instances_add_up(twins: Server) -> None:
    before = twins.wait_idle()

    def answer(number: int) -> int:
        with GrpcWire(twins.address) as wire:
            given = {"max_tokens": 10 + number, "ignore_eos": True, "stream": number % 2 == 0}
            return ask(wire, f"Story {number}:", **given).tokens

    tokens = at_once([partial(answer, number) for number in range(8)])
    assert tokens == list(range(10, 18))
    after = twins.wait_idle()
    grown = {
        name: after.total(name) - before.total(name)
        for name in (
            "generation_tokens_total", "request_success_total", "e2e_request_latency_seconds_count",
            "time_to_first_token_seconds_count", "inter_token_latency_seconds_count",
        )
    }  # fmt: skip
    assert list(grown.values()) == [sum(tokens), 8, 8, 8, sum(tokens) - 8]
    # One series, not one for each process.
    assert len(list(after.series("generation_tokens_total"))) == 1


def test_streams_that_are_left_free_their_slots_on_every_instance(twins: Server) -> None:
    twins.wait_idle()
    jobs = [
        partial(leave_after, twins.address, kind, 2, text_input=f"Story {number}:", max_tokens=LONG)
        for kind in WIRES
        for number in range(TWIN_SLOTS)
    ]
    at_once(jobs)
    stopped = twins.wait_idle().total("generation_tokens_total")
    with GrpcWire(twins.address) as wire:
        assert ask(wire, PROMPT, max_tokens=2).tokens == 2
    assert eventually(lambda: twins.metrics.total("generation_tokens_total") == stopped + 2)


def test_deadlines_end_requests_on_every_instance(twins: Server) -> None:
    twins.wait_idle()

    def overdue(kind: str) -> str:
        inputs = {"text_input": PROMPT, "max_tokens": LONG, "timeout": 300_000, **ENDLESS}
        with WIRES[kind](twins.address) as wire:
            return refused(wire, **inputs).refusal.code

    assert set(at_once([partial(overdue, kind) for kind in [*WIRES] * 4])) == {"DEADLINE_EXCEEDED"}
    twins.wait_idle()


def test_past_both_queues_a_request_is_refused(twins: Server) -> None:
    """Neither refuses as long as the other has room."""
    twins.wait_idle()
    room = INSTANCES * (TWIN_SLOTS + int(TWIN["max_queue"]))

    def outcome(number: int) -> str:
        with GrpcWire(twins.address) as wire:
            try:
                for _ in wire.open(text_input=f"Story {number}:", max_tokens=LONG, **ENDLESS):
                    if full.is_set():
                        return "taken"
            except WireError as error:
                full.set()
                return error.refusal.code
            return "taken"

    full = Event()
    outcomes = at_once([partial(outcome, number) for number in range(room + 4)])
    assert outcomes.count("taken") >= room
    assert set(outcomes) == {"taken", "UNAVAILABLE"}
    twins.wait_idle()


def test_the_prefix_cache_is_each_instances_own(twins: Server) -> None:
    text = "Numbers, in order: " + ", ".join(map(str, range(40)))

    def hits_of_two_at_once() -> float:
        before = twins.wait_idle().total("prefix_cache_hits_total")
        with running(twins.address, 1, text_input=text), running(twins.address, 1, text_input=text):
            assert spread(twins, 2) == [1, 1]
        return twins.wait_idle().total("prefix_cache_hits_total") - before

    assert hits_of_two_at_once() == 0
    with GrpcWire(twins.address) as wire:
        (reply,) = ask(wire, text, max_tokens=1, return_num_input_tokens=True).replies
    assert hits_of_two_at_once() >= 2 * ((reply.input_tokens or 0) - 4)


@pytest.fixture
def own(workshop: Path) -> Iterator[Server]:
    """A server that its test may end."""
    repository = instances(variant(built("int8"), workshop / "own-twins", TWIN), INSTANCES)
    with started(repository, workshop / "own-twins.log") as server:
        yield server.wait_ready()
    shutil.rmtree(repository)


@pytest.mark.slow
def test_it_stops_in_time_with_streams_on_both_and_leaves_no_region(own: Server) -> None:
    with ExitStack() as stack:
        stack.enter_context(running(own.address, 4, max_tokens=100))
        boards = list(REGIONS.glob(f"halimede_{own.process.pid}_*.load"))
        assert len(boards) == 1
        own.process.terminate()
        assert own.wait_ended() == 0
    assert not list(REGIONS.glob(f"halimede_{own.process.pid}_*"))
