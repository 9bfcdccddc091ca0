"""A bug of ours at any line that changes what the scheduler knows: each request has one final response."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest

from engine.core import pacing as chunking
from engine.core import scheduler, slots, stops
from engine.core.errors import EngineError, Unavailable
from engine.sampling import beams
from tests.fakes.loop import ToyEngine

FILES = {module.__file__ for module in (beams, chunking, scheduler, slots, stops)}
Line = tuple[CodeType, int]


class Planted(Exception):
    pass


def decoders() -> ToyEngine:
    engine = ToyEngine(slots=3, chunk=4, min_reuse=2)
    engine.ask([1, 2, 3, 4, 5, 6], max_tokens=4)
    engine.ask([1, 2, 3, 9], max_tokens=3, stream=False)
    engine.ask([7], max_tokens=6, num_beams=2, stream=False)
    engine.ask([1, 2, 3, 4, 8], max_tokens=2, timeout_ms=1)
    engine.ask([5, 5, 5, 5], max_tokens=3)
    return engine


def encoders() -> ToyEngine:
    engine = ToyEngine(slots=3, source_capacity=16)
    engine.ask([1, 2, 3], max_tokens=3)
    engine.ask([4, 5], max_tokens=4, num_beams=3, stream=False)
    engine.ask([6], max_tokens=2)
    return engine


def drafts() -> ToyEngine:
    engine = ToyEngine(slots=2, speculative_tokens=3)
    engine.ask([1, 2, 3, 1, 2, 3, 1, 2], max_tokens=8)
    engine.ask([4, 4, 4, 4, 4], max_tokens=5)
    return engine


def run(engine: ToyEngine) -> bool:
    """The loop's own `run`, until there is nothing left."""
    engine.loop._wait = lambda: bool(engine.loop.keys())  # type: ignore[method-assign]
    sound = engine.loop.run()
    engine.outbox.send_pending()
    return sound


@contextmanager
def watched(visit: Callable[[Line], None]) -> Iterator[None]:
    """`visit` is called before each line of the files, and after the last of each function."""

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event in ("line", "return"):
            visit((frame.f_code, frame.f_lineno if event == "line" else -1))
        return local

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename in FILES else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


def visits(make: Callable[[], ToyEngine]) -> list[int]:
    """Of all lines that a run passes: the first time, and one in the middle of those that follow."""
    passed: dict[Line, list[int]] = {}
    count = 0

    def visit(line: Line) -> None:
        nonlocal count
        passed.setdefault(line, []).append(count)
        count += 1

    engine = make()
    with watched(visit):
        assert run(engine)
    assert all(client.finals == 1 for client in engine.clients)
    return sorted({place for places in passed.values() for place in (places[0], places[len(places) // 2])})


@pytest.mark.parametrize("make", [decoders, encoders, drafts])
def test_whatever_state_a_bug_leaves_each_request_has_its_one_final_response(
    make: Callable[[], ToyEngine],
) -> None:
    places = visits(make)
    assert len(places) > 100
    for place in places:
        count = 0

        def visit(_: Line, place: int = place) -> None:
            nonlocal count
            count += 1
            if count == place + 1:
                raise Planted

        engine = make()
        with watched(visit):
            sound = run(engine)
        assert [(client.finals, client.late) for client in engine.clients] == [(1, 0)] * len(engine.clients)
        assert any(isinstance(fault, Planted) for fault in engine.faults)
        if not sound:
            with pytest.raises(Unavailable):
                engine.ask([1])


def test_without_counters_all_are_answered_too(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = decoders()

    def broken(*_: object) -> None:
        raise Planted

    for name in ("rejected", "finished", "tokens"):
        monkeypatch.setattr(engine.recorder, name, broken)
    assert not run(engine)
    assert [(client.finals, client.late) for client in engine.clients] == [(1, 0)] * len(engine.clients)
    assert all(isinstance(error, EngineError) for client in engine.clients for error in client.errors)
