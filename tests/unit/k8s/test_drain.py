"""The preStop hook: how it reads metrics, how long it waits, and its exit codes."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import drain
from drain import Exit, Patience, Sight, Silence, in_flight, look

PROGRAM = Path(drain.__file__)
PAGE = """\
# HELP halimede_num_requests_running Requests that generate
# TYPE halimede_num_requests_running gauge
halimede_num_requests_running{{model="m_engine",version="1"}} {running}
halimede_num_requests_waiting{{model="m_engine",version="1"}} {waiting}
nv_inference_pending_request_count{{model="m"}} 7
halimede_num_requests_running_total{{model="m"}} 9
"""


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def played(sights: Sequence[Sight], patience: Patience) -> tuple[Exit, int, float, list[str]]:
    """The exit code, the number of looks, the seconds passed, the lines printed. The last page stays."""
    clock, lines, taken = Clock(), list[str](), 0

    def see() -> Sight:
        nonlocal taken
        taken += 1
        return sights[min(taken, len(sights)) - 1]

    code = drain.drain(see, patience, lines.append, clock, clock.sleep)
    return code, taken, clock.now, lines


def test_counts_what_runs_and_waits_and_nothing_else() -> None:
    assert in_flight(PAGE.format(running="3", waiting="2")) == 5


@given(st.lists(st.tuples(st.sampled_from(["running", "waiting"]), st.integers(0, 10**6)), min_size=1))
def test_sums_over_every_engine(counts: list[tuple[str, int]]) -> None:
    lines = [
        f'halimede_num_requests_{kind}{{model="m{at}",note="a}} b"}} {count}'
        for at, (kind, count) in enumerate(counts)
    ]
    assert in_flight("\n".join(lines)) == sum(count for _, count in counts)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "many"])
def test_a_page_without_a_number_is_never_zero(value: str) -> None:
    assert in_flight(PAGE.format(running="0", waiting=value)) is None
    assert in_flight("") is None


def test_neither_a_fraction_nor_a_negative_gauge_hides_a_request() -> None:
    assert in_flight(PAGE.format(running="0.25", waiting="0")) == 1
    assert in_flight(PAGE.format(running="1", waiting="-1")) == 1


def test_waits_for_several_quiet_looks_in_a_row() -> None:
    code, taken, _, lines = played([3, 0, 0, 1, 0], Patience(settle_s=0, looks=3))
    assert (code, taken) == (Exit.DRAINED, 7)
    assert lines == [
        "0.0 s: 3 requests in flight",
        "0.5 s: 0 requests in flight",
        "1.5 s: 1 requests in flight",
        "2.0 s: 0 requests in flight",
        "drained after 3.0 s",
    ]


def test_settles_first() -> None:
    code, _, seconds, _ = played([0], Patience(settle_s=8, looks=1))
    assert (code, seconds) == (Exit.DRAINED, 8)


def test_a_server_that_is_gone_is_drained() -> None:
    code, _, _, lines = played([2, Silence.GONE], Patience())
    assert code == Exit.DRAINED
    assert lines[-2].endswith("the server has ended")


def test_metrics_that_cannot_be_read_are_no_zero() -> None:
    code, _, seconds, lines = played([Silence.UNCLEAR], Patience(timeout_s=20))
    assert (code, seconds) == (Exit.TIME_UP, 20)
    assert lines[-1] == "timed out after 20 s: the metrics cannot be read; the Pod stops anyway"


sights = st.one_of(st.integers(0, 2), st.sampled_from(Silence))


@given(st.lists(sights, min_size=1, max_size=60), st.integers(1, 6), st.floats(0, 40), st.floats(0, 60))
def test_drained_only_after_equal_quiet_looks_and_never_long_after_its_time(
    seen: list[Sight], looks: int, settle_s: float, timeout_s: float
) -> None:
    patience = Patience(settle_s=settle_s, timeout_s=timeout_s, looks=looks)
    code, taken, seconds, _ = played(seen, patience)
    last = [seen[min(at, len(seen) - 1)] for at in range(taken)][-looks:]
    quiet = len(last) == looks and (last == [0] * looks or last == [Silence.GONE] * looks)
    assert (code == Exit.DRAINED) == quiet
    assert seconds <= timeout_s + patience.every_s + 1e-6
    assert seconds >= min(settle_s, timeout_s)


@contextmanager
def serving(*answers: tuple[int, str]) -> Iterator[str]:
    """The URL of a server that gives these answers in turn, then the last one for good."""
    given_ = iter(answers)
    held = [answers[-1]]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, page = next(given_, held[0])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it overrides
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/metrics"
        finally:
            server.shutdown()
            thread.join()


def test_tells_a_closed_port_from_a_page_that_is_no_help() -> None:
    with serving((200, PAGE.format(running="1", waiting="1")), (503, ""), (200, "hello")) as url:
        assert [look(url) for _ in range(3)] == [2, Silence.UNCLEAR, Silence.UNCLEAR]
    assert look(url) is Silence.GONE


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(PROGRAM), *arguments], capture_output=True, text=True, check=False
    )


def test_the_program_waits_for_a_page_to_fall_quiet() -> None:
    busy, quiet = PAGE.format(running="1", waiting="0"), PAGE.format(running="0", waiting="0")
    with serving((200, busy), (200, busy), (200, quiet)) as url:
        done = _run("--metrics", url, "--settle-s", "0", "--every-s", "0.01", "--looks", "2")
    assert done.returncode == 0
    said = [line.partition(" s: ")[2] for line in done.stderr.splitlines()[:-1]]
    assert said == ["1 requests in flight", "0 requests in flight"]


def test_the_program_says_when_the_time_was_up() -> None:
    with serving((200, PAGE.format(running="1", waiting="0"))) as url:
        done = _run("--metrics", url, "--settle-s", "0", "--every-s", "0.01", "--timeout-s", "0.1")
    assert done.returncode == 4
    assert "timed out after 0.1 s: 1 requests in flight" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--timeout-s", "-1"], "argument --timeout-s: -1, must be 0 to 86400 seconds"),
        (["--timeout-s", "nan"], "must be 0 to 86400 seconds"),
        (["--looks", "0"], "argument --looks: 0, must be 1 to 1000"),
        (["--metrics", "8002"], "argument --metrics: '8002', must be a URL"),
    ],
)
def test_refuses_what_makes_no_sense(arguments: list[str], complaint: str) -> None:
    done = _run(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr
