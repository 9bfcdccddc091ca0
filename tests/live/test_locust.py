"""Locust with loadtest/locustfile.py against the real server, compared with the server's own metrics."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loadtest.ports import held_ports
from tests.live.serving import Metrics, Server, eventually
from tests.paths import ROOT

pytestmark = pytest.mark.e2e

RUN_S = 120  # for a run that hangs
LOCUST = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"}
PROBES = 2  # before a run the server is asked for two tokens, to see how long words are


def locust(
    folder: Path, server: Server, scheme: str, until: Callable[[], bool], *arguments: str
) -> tuple[int, str]:
    """A run that is ended then: its exit code and its words."""
    host = server.address.grpc if scheme == "grpc" else server.address.http
    command = [*LOCUST, "--headless", "--host", f"{scheme}://{host}", "-r", "9", "--only-summary", *arguments]
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=said)
        try:
            reached = eventually(lambda: process.poll() is not None or until(), seconds=RUN_S)
            process.terminate()
            code = process.wait(RUN_S)
        finally:
            process.kill()
            process.wait()
    assert reached, (folder / "said").read_text()
    return code, (folder / "said").read_text()


def profile(folder: Path, tokens: int, *kinds: str) -> str:
    """The file of one whose every answer has so many tokens."""
    lengths = f"prompt_tokens = {{ constant = 24 }}\noutput_tokens = {{ constant = {tokens} }}\n"
    entries = [f'[[mix]]\nname = "{kind}"\nprotocol = "{kind}"\n{lengths}' for kind in kinds]
    (folder / "profile.toml").write_text("\n".join(entries))
    return str(folder / "profile.toml")


def rows(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The statistics by what Locust calls their method: a protocol, TTFT, gap."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(path.read_text()):
        found.setdefault(row["method"], []).append(row)
    return found


def total(found: list[dict[str, Any]], name: str) -> float:
    return float(sum(row[name] for row in found))


def grown(before: Metrics, after: Metrics, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


@pytest.mark.parametrize(("scheme", "processes"), [("grpc", ()), ("http", ("--processes", "2"))])
def test_its_requests_and_tokens_are_those_that_the_server_counted(
    int8: Server, tmp_path: Path, scheme: str, processes: tuple[str, ...]
) -> None:
    """Those too that end after the load."""
    before, began = int8.wait_idle(), time.monotonic()
    run = ["--profile", profile(tmp_path, 40, "grpc", "unary"), "-u", "4"]
    run += ["--json-file", str(tmp_path / "run"), *processes]

    def enough() -> bool:
        return grown(before, int8.metrics, "request_success_total") >= PROBES + 4

    code, said = locust(tmp_path, int8, scheme, enough, *run)
    seconds = time.monotonic() - began
    assert code == 0, said
    assert said.count("reported as ready") == (2 if processes else 0)
    after, found = int8.wait_idle(), rows(tmp_path / "run.json")
    assert set(found) <= {scheme, "unary", "TTFT", "gap"}
    streams, whole = found.get(scheme, []), found.get("unary", [])
    requests = total(streams + whole, "num_requests")
    assert requests >= 4
    assert requests == grown(before, after, "request_success_total") - PROBES
    tokens = total(streams + whole, "total_content_length")
    assert tokens == grown(before, after, "generation_tokens_total") - PROBES == 40 * requests
    assert total(found["TTFT"], "num_requests") == total(streams, "num_requests") > 0
    times = [total(found[name], "total_response_time") / 1e3 for name in ("TTFT", scheme)]
    assert 0 < times[0] < times[1] < 4 * seconds
    assert not grown(before, after, "requests_rejected_total")


def test_a_refused_request_is_a_failure_with_its_code(small: Server, tmp_path: Path) -> None:
    """Of eight users at most two are served and two wait."""
    before = small.wait_idle()
    run = ["--profile", profile(tmp_path, 40, "grpc"), "-u", "8", "--think", "60"]

    def enough() -> bool:
        return grown(before, small.metrics, "requests_rejected_total", reason="unavailable") >= 4

    code, said = locust(tmp_path, small, "grpc", enough, *run)
    assert code == 1, said
    after = small.wait_idle()
    refused = grown(before, after, "requests_rejected_total", reason="unavailable")
    assert refused >= 4
    failures = re.findall(r"^(\d+) +grpc grpc: +UNAVAILABLE\b", said, re.MULTILINE)
    assert sum(map(int, failures)) == refused
    counted = re.search(r"^grpc +grpc +(\d+) +(\d+)\(", said, re.MULTILINE)
    assert counted is not None, said
    served = grown(before, after, "request_success_total") - PROBES
    assert [int(count) for count in counted.groups()] == [served + refused, refused]


def test_the_page_starts_users_and_a_request_whose_user_is_stopped_is_no_failure(
    int8: Server, tmp_path: Path
) -> None:
    before = int8.wait_idle()
    run = ["--profile", profile(tmp_path, 4000, "grpc"), "-s", "0", "--host", f"grpc://{int8.address.grpc}"]
    with held_ports(1) as (port,), (tmp_path / "said").open("w") as said:
        command = [*LOCUST, *run, "--web-port", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=said, stderr=said)
        try:
            assert eventually(lambda: "ProfileUser" in (page(port) or ""))
            page(port, "swarm", b"user_count=3&spawn_rate=9")
            assert eventually(lambda: int8.metrics.total("num_requests_running") == 3)
            page(port, "stop", b"")
            shown = json.loads(page(port, "stats/requests") or "")
            process.terminate()
            assert process.wait(RUN_S) == 0, (tmp_path / "said").read_text()
        finally:
            process.kill()
            process.wait()
    assert shown["errors"] == []
    assert [row["num_requests"] for row in shown["stats"] if row["name"] == "Aggregated"] == [0]
    assert grown(before, int8.wait_idle(), "requests_rejected_total", reason="cancelled") == 3


def page(port: int, path: str = "", form: bytes | None = None) -> str | None:
    """None as long as it does not answer; with a form it is posted."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", form, timeout=RUN_S) as answer:
            text: str = answer.read().decode()
            return text
    except urllib.error.URLError:
        return None
