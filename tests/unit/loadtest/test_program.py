"""The programs from their command line to their files, against a server that answers from a script."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from halimede.errors import InvalidArgument
from halimede.testing import FakeGrpcServer, FakeHttpServer, Step, answer
from loadtest import load, sweep
from loadtest.measure import sweep as sweeps
from loadtest.measure.record import Record, decode_lines
from loadtest.measure.result import Result, decode
from loadtest.measure.sweep import Rung
from loadtest.traffic.profile import load_profile
from loadtest.traffic.schedule import schedule
from tests.unit.loadtest.play import facts, played

ENTRY = "prompt_tokens = { constant = 24 }\noutput_tokens = { constant = 3 }\n"
PROFILE = """
name = "script"
duration_s = 0.5
warmup_s = 0.1
arrivals = { kind = "constant", rate_per_s = 20 }
slo = { error_ratio = 0 }
sweep = { start_per_s = 10, max_per_s = 20, step_s = 0.5 }
"""
# What the server is asked before a run: how many tokens some words are.
PROBES: tuple[tuple[Step, ...], ...] = (answer("x", num_input_tokens=50), answer("x", num_input_tokens=160))
ANSWER = answer("a", "b", "c", finish_reason="length", num_input_tokens=30)


@pytest.fixture
def streams() -> Iterator[FakeGrpcServer]:
    with FakeGrpcServer(answer("no card"), *PROBES, *[ANSWER] * 100) as server:
        yield server


@pytest.fixture
def web() -> Iterator[FakeHttpServer]:
    with FakeHttpServer(*PROBES, *[ANSWER] * 100) as server:
        yield server


def profile(folder: Path, *protocols: str, more: str = "") -> str:
    entries = [f'[[mix]]\nname = "{p}"\nprotocol = "{p}"\n{ENTRY}{more}' for p in protocols]
    (folder / "script.toml").write_text(PROFILE + "\n".join(entries))
    return str(folder / "script.toml")


def stored(folder: Path) -> tuple[Result, list[Record]]:
    with (folder / "records.jsonl").open() as lines:
        records = sorted(decode_lines(lines), key=lambda record: record.request)
    return decode((folder / "result.json").read_text()), records


def test_a_run_over_grpc_is_its_schedule_with_the_servers_counts(
    streams: FakeGrpcServer, tmp_path: Path
) -> None:
    path, out = profile(tmp_path, "grpc"), tmp_path / "out"
    options = ["--profile", path, "--url", streams.url, "--metrics-url", "none", "--out", str(out)]
    assert load.main([*options, "--processes", "2"]) == 0
    result, records = stored(out)
    planned = list(schedule(load_profile(Path(path))))
    assert [(r.request, r.intended_s) for r in records] == [(p.request, p.at_s) for p in planned]
    assert {(r.tokens_in, r.tokens_out, len(r.chunks), r.finish_reason) for r in records} == {
        (30, 3, 3, "length")
    }
    assert result.requests.total == result.requests.complete == sum(r.phase == "measure" for r in records)
    assert {path.suffix for path in out.iterdir()} == {".json", ".jsonl", ".html", ".png"}


def test_a_run_over_http_has_chunks_where_it_streams(web: FakeHttpServer, tmp_path: Path) -> None:
    path, out = profile(tmp_path, "http", "unary"), tmp_path / "out"
    options = ["--profile", path, "--url", web.url, "--metrics-url", f"{web.url}/metrics", "--out", str(out)]
    assert load.main(options) == 0
    _, records = stored(out)
    assert {(r.protocol, r.tokens_out, len(r.chunks)) for r in records} == {("http", 3, 3), ("unary", 3, 0)}
    assert all(r.first_s is None or r.sent_s <= r.first_s <= r.end_s for r in records)
    assert len(web.requests) == len(PROBES) + len(records)


def test_refusals_of_bad_requests_meet_the_slo_and_answers_to_them_do_not(tmp_path: Path) -> None:
    path = profile(tmp_path, "http", more='bad = "bad_temperature"\n')
    refusal = (InvalidArgument("temperature: -1"),)
    for turns, code in ((refusal, 0), (ANSWER, 1)):
        with FakeHttpServer(*PROBES, *[turns] * 100) as server:
            out = tmp_path / f"out-{code}"
            options = ["--profile", path, "--url", server.url, "--metrics-url", "none", "--out", str(out)]
            assert load.main(options) == code
        result, _ = stored(out)
        assert result.slo_met == (code == 0)


def test_a_sweep_probes_rates_up_to_the_highest(streams: FakeGrpcServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--profile", profile(tmp_path, "grpc"), "--url", streams.url, "--out", str(out)]
    with FakeHttpServer(metrics="halimede_num_requests_running 0\n") as metrics:
        assert sweep.main([*options, "--metrics-url", f"{metrics.url}/metrics"]) == 0
    found = sweeps.decode((out / "sweep.json").read_text())
    assert [rung.rate_per_s for rung in found.rungs] == [10, 20]
    assert (found.highest_rate_per_s, found.lowest_miss_per_s) == (20, None)
    assert (out / "report.html").is_file()
    assert (out / "rate-10" / "records.jsonl").is_file()


def test_a_soak_at_the_rate_of_a_sweep_is_too_short_to_tell(streams: FakeGrpcServer, tmp_path: Path) -> None:
    path, out = profile(tmp_path, "grpc"), tmp_path / "out"
    options = ["--profile", path, "--url", streams.url, "--metrics-url", "none", "--out", str(out)]
    (tmp_path / "sweep.json").write_text(
        sweeps.encode(sweeps.sweep_of(facts().profile, [Rung(20.0, played(1))]))
    )
    soak = ["--minutes", "0.01", "--sweep", str(tmp_path / "sweep.json")]
    assert load.main([*options, *soak, "--pid", str(os.getpid()), "--interval", "100"]) == 3
    content = json.loads((out / "soak.json").read_text())
    assert content["finding"]["rss_trend"] == "undecided"
    assert (content["finding"]["errors"], content["finding"]["rate_per_s"]) == (0, 20.0)
    assert content["memory"]["rss_bytes"]
    assert (out / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert stored(out)[0].profile["duration_s"] == pytest.approx(0.6)


def test_a_soak_ends_with_its_server_and_does_not_hold(streams: FakeGrpcServer, tmp_path: Path) -> None:
    path, out = profile(tmp_path, "grpc"), tmp_path / "out"
    options = ["--profile", path, "--url", streams.url, "--metrics-url", "none", "--out", str(out)]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:

        def die() -> None:
            while len(streams.requests) < 10:
                time.sleep(0.01)
            process.kill()
            process.wait()

        killer = Thread(target=die)
        killer.start()
        soak = ["--minutes", "10", "--rate", "20", "--pid", str(process.pid), "--interval", "0.05"]
        assert load.main([*options, *soak]) == 3
        killer.join()
    content = json.loads((out / "soak.json").read_text())
    assert (content["finding"]["ended"], content["interrupted"], content["holds"]) == (True, False, False)
    result, records = stored(out)
    assert result.window_s[1] < 60
    assert {record.is_complete for record in records} == {True}
