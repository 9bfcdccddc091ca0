"""The account of what became of each request: every one in one place, none excused without a reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.k8s.failover_account import Death, Failure, Request, Served, account, served

VICTIM, OTHER = "127.0.0.1:1", "127.0.0.1:2"
DEATH = Death(frozenset({VICTIM}), 10.0)
TIMES = st.floats(0.0, 20.0)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[list[Request], dict[str, list[Served]]]:
    requests, lines = [], {}
    for number in range(draw(st.integers(0, 8))):
        one = _request(str(number), draw)
        requests.append(one)
        asked = st.lists(st.sampled_from([VICTIM, OTHER]), min_size=1, max_size=3)
        lines[one.id] = [
            Served(tuple(found), len(found)) for found in draw(st.lists(asked, max_size=one.attempts))
        ]
    return requests, lines


def _request(name: str, draw: st.DrawFn) -> Request:
    times = sorted(draw(st.lists(TIMES, min_size=3, max_size=6)))
    began, *middle, ended = times
    failed = draw(st.booleans())
    notes = [Failure(at_s, "ConnectionLost") for at_s in middle[1:]]
    if failed:
        notes.append(Failure(ended, "ConnectionLost"))
    first = max(began, middle[-1]) if draw(st.booleans()) else None
    error = "ConnectionLost" if failed else None
    return Request(name, began, first, ended, error, notes)


@given(_requests())
def test_every_request_is_counted_once(found: tuple[list[Request], dict[str, list[Served]]]) -> None:
    counted = account(*found, DEATH)
    assert counted.sent == len(found[0])
    assert counted.sent == counted.completed + counted.failed_after_first + counted.failed_otherwise
    assert counted.failed_after_first <= counted.on_victim_streaming <= counted.on_victim
    assert counted.attempts >= counted.sent
    assert counted.retried <= counted.completed


@given(_requests())
def test_where_nobody_died_no_failure_is_excused(
    found: tuple[list[Request], dict[str, list[Served]]],
) -> None:
    counted = account(*found, None)
    assert counted.failed_otherwise == counted.sent - counted.completed
    assert (counted.on_victim, counted.failed_after_first) == (0, 0)


@given(_requests())
def test_no_failure_is_excused_on_a_server_that_lived(
    found: tuple[list[Request], dict[str, list[Served]]],
) -> None:
    counted = account(*found, Death(frozenset({"127.0.0.1:3"}), 10.0))
    assert counted.failed_otherwise == counted.sent - counted.completed


def _lost(first_s: float | None, *, began_s: float = 9.0, ended_s: float = 10.1) -> Request:
    return Request("a", began_s, first_s, ended_s, "lost", [Failure(ended_s, "lost")])


@pytest.mark.parametrize(
    ("request_", "upstream", "excused"),
    [
        (_lost(9.5), VICTIM, 1),
        (_lost(None), VICTIM, 0),  # before its first token it ought to have been sent again
        (_lost(9.5), OTHER, 0),
        (_lost(10.5, began_s=10.2, ended_s=11.0), VICTIM, 0),  # sent to a server already dead
        (_lost(9.5, ended_s=9.9), VICTIM, 0),  # lost before the kill
        (_lost(10.05), VICTIM, 1),  # a token that its caller noticed late
    ],
)
def test_only_a_stream_past_its_first_token_on_the_victim_may_fail(
    request_: Request, upstream: str, excused: int
) -> None:
    counted = account([request_], {"a": [Served((upstream,), 1)]}, DEATH)
    assert (counted.failed_after_first, counted.failed_otherwise) == (excused, 1 - excused)


def test_a_stream_that_was_moved_from_the_victim_may_not_fail() -> None:
    counted = account([_lost(10.05)], {"a": [Served((VICTIM, OTHER), 2)]}, DEATH)
    assert (counted.on_victim, counted.on_victim_streaming, counted.failed_otherwise) == (1, 0, 1)


def test_a_retried_request_was_on_the_victim_with_its_first_attempt_alone() -> None:
    one = Request("a", 9.0, 11.0, 12.0, None, [Failure(10.1, "lost")])
    lines = {"a": [Served((VICTIM,), 1), Served((OTHER,), 1)]}
    counted = account([one], lines, DEATH)
    assert (counted.on_victim, counted.on_victim_streaming, counted.retried) == (1, 0, 1)
    assert account([one], {"a": lines["a"][::-1]}, DEATH).on_victim == 0


def test_the_log_of_either_balancer() -> None:
    nginx = {"attempt": "a", "upstream": f"{VICTIM}, {OTHER}", "status": "200"}
    envoy = {"attempt": "a", "upstream": OTHER, "tries": 2, "status": 200}
    probe = {"attempt": "", "upstream": OTHER, "status": "200"}
    nobody = {"attempt": "b", "upstream": None, "tries": 0, "status": 503}
    found = served(map(json.dumps, (nginx, envoy, probe, nobody)))
    assert found == {"a": [Served((VICTIM, OTHER), 2), Served((OTHER,), 2)], "b": [Served((), 1)]}
