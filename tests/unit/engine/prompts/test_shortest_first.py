from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.prompts.reader import ShortestFirst


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    opened = threading.Event()
    yield opened
    opened.set()


@given(st.lists(st.integers(0, 5), max_size=12))
def test_the_smallest_of_those_that_wait_runs_first_and_equals_in_their_order(sizes: list[int]) -> None:
    gate, ran = threading.Event(), list[tuple[int, int]]()
    jobs = ShortestFirst("test", lambda error: None)
    jobs.put(0, lambda: assert_opened(gate))
    for place, size in enumerate(sizes):
        jobs.put(size, lambda job=(size, place): ran.append(job))  # type: ignore[misc]
    gate.set()
    jobs.close()
    assert sorted(ran) == sorted((size, place) for place, size in enumerate(sizes))
    assert ran == sorted(ran)


def assert_opened(gate: threading.Event) -> None:
    assert gate.wait(30)


def test_a_job_that_raises_is_reported_and_ends_no_other() -> None:
    reported, ran = list[BaseException](), list[str]()
    jobs = ShortestFirst("test", reported.append)
    jobs.put(1, lambda: ran.append("first"))
    jobs.put(2, lambda: ran.remove("absent"))
    jobs.put(3, lambda: ran.append("last"))
    jobs.close()
    assert ran == ["first", "last"]
    assert [type(error) for error in reported] == [ValueError]


def test_it_closes_when_what_waits_is_done(gate: threading.Event) -> None:
    ran = list[str]()
    jobs = ShortestFirst("test", lambda error: None)
    jobs.put(1, lambda: assert_opened(gate))
    jobs.put(9, lambda: ran.append("long"))
    closing = threading.Thread(target=jobs.close)
    closing.start()
    gate.set()
    closing.join(30)
    assert ran == ["long"]
