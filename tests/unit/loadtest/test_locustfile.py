"""What the locustfile makes of profiles, records and errors, and what it says of bad options.

Locust changes the process that imports it, so all of it runs in others.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import islice
from typing import Any

import pytest

from loadtest.ports import held_ports
from loadtest.traffic.profile import load_profile
from loadtest.traffic.schedule import schedule
from tests.paths import ROOT

RUN_S = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
PARTS = """
import io, json
from contextlib import redirect_stderr
from itertools import islice
from locust.argument_parser import get_parser
from locust.env import Environment
from halimede.errors import ConnectionFailed, Unavailable
from halimede.target import parse_target
from loadtest import locustfile as ours
from loadtest.measure.record import Record

def record(request, error=None, chunks=()):
    first = chunks[0][0] if chunks else None
    times = 10.0, 10.0, first, 12.5
    return Record(request, "chat", "grpc", "smollm2", *times, 30, 7, chunks, None, error, True, "measure")

def seen(shape, *times):
    found = []
    for shape.get_run_time in [lambda now=now: now for now in times]:
        found.append(shape.tick())
    return found

def refused(*arguments):
    with redirect_stderr(io.StringIO()) as said:
        try:
            get_parser(()).parse_args(arguments)
        except SystemExit as ended:
            return ended.code, said.getvalue()

environment, events = Environment(), []
environment.create_local_runner()
environment.events.request.add_listener(lambda **event: events.append(event))
ours.tell(environment, record(0, chunks=((10.5, 1), (10.75, 4), (11.75, 2))))
ours.tell(environment, record(1, error="UNAVAILABLE: queue"))
stats, burst, chat = environment.stats, ours.named("burst"), ours.named("chat")
print(json.dumps({
    "events": events,
    "rows": {row.method: [row.num_requests, row.total_response_time] for row in stats.entries.values()},
    "total": [stats.total.num_requests, stats.total.num_failures, stats.total.total_content_length],
    "errors": [[error.to_dict()["error"], error.occurrences] for error in stats.errors.values()],
    "failures": [ours.failure(Unavailable.of("queue", n, "must be at most 2")) for n in (3, 4)]
        + [ours.failure(ConnectionFailed("no server"))],
    "protocols": {url: [entry.protocol.value for entry in ours.over(chat, parse_target(url)).mix]
        for url in ("grpc://h:1", "grpcs://h:1", "http://h:1", "https://h:1")},
    "shape": seen(ours.ArrivalShape(burst), *range(0, 100, 10)),
    "ends": seen(ours.ArrivalShape(burst, 15), 14.9, 15) + seen(ours.ArrivalShape(burst), 99.9, 100),
    "refused": [refused(*a) for a in (["--profile", "nope"], ["--profile", "hostile"], ["--think", "-1"])],
    "options": vars(get_parser(()).parse_args([])),
    "planned": [[p.seed for p in islice(ours.planned(burst, worker), 200)] for worker in (0, 1)],
}))
"""


@pytest.fixture(scope="module")
def parts() -> Any:
    done = subprocess.run(
        [sys.executable, "-c", PARTS], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_request_is_one_event_with_its_tokens_and_its_latencies(parts: Any) -> None:
    answered, refused = parts["events"]
    assert answered["request_type"] == "grpc"
    assert answered["name"] == "chat"
    assert answered["response_time"] == 2500
    assert answered["response_length"] == 7
    assert answered["exception"] is None
    assert answered["context"] == {"TTFT": 500, "gap": 1000}
    assert refused["exception"] == "UNAVAILABLE: queue"
    assert refused["context"] == {}


def test_ttft_and_gaps_are_rows_and_no_requests_of_the_totals(parts: Any) -> None:
    assert parts["rows"] == {"TTFT": [1, 500], "gap": [1, 1000], "grpc": [2, 5000]}
    assert parts["total"] == [2, 1, 14]
    assert parts["errors"] == [["UNAVAILABLE: queue", 1]]


def test_failures_that_differ_in_the_value_alone_count_together(parts: Any) -> None:
    assert parts["failures"] == ["UNAVAILABLE: queue: must be at most 2"] * 2 + ["connection"]


def test_the_scheme_says_how_streams_are_sent(parts: Any) -> None:
    assert parts["protocols"] == {
        "grpc://h:1": ["grpc", "grpc", "unary"],
        "grpcs://h:1": ["grpc", "grpc", "unary"],
        "http://h:1": ["http", "http", "unary"],
        "https://h:1": ["http", "http", "unary"],
    }


def test_the_users_of_each_window_are_its_requests(parts: Any) -> None:
    profile = load_profile(ROOT / "loadtest" / "profiles" / "burst.toml")
    due = [request.at_s for request in schedule(profile)]
    assert len(due) > 50
    wanted = [sum(at <= (time or 0) < at + 10 for time in due) for at in range(0, 100, 10)]
    assert [users for users, _ in parts["shape"]] == wanted
    assert len(set(wanted)) > 3
    assert parts["ends"][0] == [wanted[1], 100]
    assert parts["ends"][1] is None
    assert parts["ends"][2] == [wanted[9], 100]
    assert parts["ends"][3] is None


def test_no_two_requests_are_the_same_on_any_worker(parts: Any) -> None:
    profile = load_profile(ROOT / "loadtest" / "profiles" / "burst.toml")
    first, second = parts["planned"]
    due = [request.seed for request in islice(schedule(profile), 200)]
    assert first[: len(due)] == due
    assert len(due) < 200  # then come those of the next seed
    assert len({*first, *second}) == 400


def test_a_bad_option_is_refused_in_one_line_that_says_what_it_must_be(parts: Any) -> None:
    assert [code for code, _ in parts["refused"]] == [2, 2, 2]
    unknown, bad, think = (said.splitlines() for _, said in parts["refused"])
    assert len(unknown) == len(bad) == len(think) == 1
    assert "argument --profile: nope: must be one of azure-conversations, burst" in unknown[0]
    assert "python -m loadtest.load --profile hostile sends it" in bad[0]
    assert "argument --think: -1, must be a number of seconds of at least 0" in think[0]


def test_the_page_is_on_the_loopback_and_users_end_their_requests(parts: Any) -> None:
    options = parts["options"]
    assert options["web_host"] == "127.0.0.1"
    assert options["host"] == "grpc://127.0.0.1:8001"
    assert options["profile"] == "chat"
    assert options["stop_timeout"] == 60


def test_an_unknown_scheme_ends_with_the_ones_that_it_knows() -> None:
    code, said = locust("--host", "ftp://127.0.0.1")
    assert code == 2, said
    assert said.count("--host ftp://127.0.0.1: must start with one of grpc, grpcs, http, https") == 1
    assert "Traceback" not in said


def test_without_a_server_it_says_what_to_start_and_ends_its_workers() -> None:
    with held_ports(1) as (port,):
        code, said = locust("--host", f"http://127.0.0.1:{port}", "--processes", "2")
    assert code == 1, said
    assert said.count(f"no server at 127.0.0.1:{port}") == 1
    assert said.count("make serve starts a server, --host and --model name another") == 1
    assert "Traceback" not in said
    assert said.count("Got quit message from master") == 2


def locust(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--headless", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=RUN_S, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout
