"""The load generator against the real server: what it sends, what it records, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from loadtest.measure import sweep as sweeps
from loadtest.measure.record import Record, decode_lines
from loadtest.measure.result import Result, decode
from loadtest.ports import held_ports
from loadtest.traffic.profile import load_profile, profile_of, with_overrides
from loadtest.traffic.schedule import schedule
from tests.live.artifacts import MODEL, built
from tests.live.serving import Server, eventually, started
from tests.paths import PYTHONPATH, ROOT

pytestmark = pytest.mark.e2e

PROFILES = ROOT / "loadtest" / "profiles"
RUN_S = 240  # for a run that hangs
CLOCKS_S = 0.1  # the run has a monotonic clock, set by the wall's once

STREAM: dict[str, object] = {
    "name": "stream",
    "prompt_tokens": {"constant": 24},
    "output_tokens": {"constant": 4},
}
HOSTILE: list[dict[str, object]] = [
    STREAM,
    {**STREAM, "name": "leaves", "output_tokens": {"constant": 200}, "disconnect_after_tokens": 6},
    {**STREAM, "name": "leaves-http", "protocol": "http", "output_tokens": {"constant": 200},
     "disconnect_after_tokens": 6},
    {**STREAM, "name": "too-long", "prompt_tokens": {"constant": 5000}, "bad": "too_long"},
    {**STREAM, "name": "hot", "protocol": "http", "bad": "bad_temperature"},
    {**STREAM, "name": "empty", "protocol": "unary", "bad": "empty"},
    {**STREAM, "name": "not-json", "protocol": "http", "bad": "not_json"},
    {**STREAM, "name": "not-json-grpc", "bad": "not_json"},
]  # fmt: skip


@contextmanager
def program(*arguments: str, module: str = "loadtest.load") -> Iterator[subprocess.Popen[str]]:
    """Its stdout and stderr are one pipe; it is killed when the test ends."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def load(*arguments: str, module: str = "loadtest.load") -> tuple[int, str]:
    """Its exit code and its output."""
    with program(*arguments, module=module) as process:
        said, _ = process.communicate(timeout=RUN_S)
        return process.returncode, said


def wait_until(process: subprocess.Popen[str], phase: str = "", begun: int = 0, ended: int = 0) -> int:
    """Reads on until it says that it is in that phase and that so many requests have begun and ended;
    returns how many have begun."""
    assert process.stdout is not None
    for line in process.stdout:
        told = re.search(r": (.+): (\d+) begun, \d+ open, (\d+) ended", line)
        if told and phase in told[1] and int(told[2]) >= begun and int(told[3]) >= ended:
            return int(told[2])
    raise AssertionError(
        f"it ended before {begun} requests had begun and {ended} ended, {phase or 'any time'}"
    )


def on_its_clock(result: Result, epoch_s: float) -> float:
    """Seconds since the start of the run, at the most: the result has the start to the second before it."""
    return epoch_s - datetime.fromisoformat(result.started).timestamp()


def at(server: Server) -> list[str]:
    assert server.address.metrics
    urls = ["--url", server.address.grpc, "--http-url", f"http://{server.address.http}"]
    return [*urls, "--metrics-url", server.address.metrics]


def with_its_tokenizer() -> list[str]:
    """For prompts of exactly the planned length, whether or not the model is built in the repository."""
    return ["--tokenizer", str(built("int8") / f"{MODEL}_engine" / "1" / "tokenizer.json")]


def records_of(folder: Path) -> list[Record]:
    with (folder / "records.jsonl").open() as lines:
        return sorted(decode_lines(lines), key=lambda record: record.request)


def result_of(folder: Path) -> Result:
    return decode((folder / "result.json").read_text())


def toml(folder: Path, mix: list[dict[str, object]], **fields: object) -> str:
    """A profile's file: scalars and lists look the same in TOML and JSON, tables do not."""

    def value(found: object) -> str:
        if isinstance(found, dict):
            return "{" + ", ".join(f"{name} = {value(item)}" for name, item in found.items()) + "}"
        return json.dumps(found)

    lines = [f"{name} = {value(found)}" for name, found in fields.items()]
    lines += ["mix = [" + ", ".join(map(value, mix)) + "]"]
    path = folder / "profile.toml"
    path.write_text("\n".join(lines))
    return str(path)


def test_a_smoke_run_has_a_right_record_of_every_request_over_each_protocol(
    int8: Server, tmp_path: Path
) -> None:
    code, said = load("--profile", "smoke", *at(int8), *with_its_tokenizer(), "--out", str(tmp_path))
    assert code == 0, said
    found = records_of(tmp_path)
    planned = list(schedule(load_profile(PROFILES / "smoke.toml")))
    assert [r.request for r in found] == [p.request for p in planned]
    assert [r.tokens_out for r in found] == [p.tokens_out for p in planned]
    assert all(r.expected and r.is_complete for r in found)
    for record, plan in zip(found, planned, strict=True):
        assert record.intended_s == plan.at_s
        assert record.intended_s <= record.sent_s <= record.end_s
        template = record.tokens_in - plan.tokens_in
        assert template == 0 if record.protocol == "unary" else 0 < template < 48
        assert sum(tokens for _, tokens in record.chunks) == (plan.tokens_out if record.chunks else 0)
        assert bool(record.chunks) == (record.protocol != "unary")
    assert {r.protocol for r in found} == {"grpc", "http", "unary"}
    result = result_of(tmp_path)
    assert result.requests.total == sum(r.phase == "measure" for r in found)
    assert {"running", "waiting"} <= set(result.gauges)
    assert list(tmp_path.glob("*.html"))


def test_planned_disconnects_and_refused_requests_are_expected(int8: Server, tmp_path: Path) -> None:
    arrivals = {"kind": "constant", "rate_per_s": 4}
    profile = toml(tmp_path, HOSTILE, arrivals=arrivals, duration_s=10, warmup_s=0)
    code, said = load("--profile", profile, *at(int8), "--out", str(tmp_path / "out"))
    assert code == 0, said
    found = records_of(tmp_path / "out")
    assert all(record.expected for record in found)
    kinds = Counter((r.kind, r.error, r.finish_reason) for r in found)
    refused = {"too-long", "hot", "empty", "not-json", "not-json-grpc"}
    wanted: set[tuple[str, str | None, str | None]] = {(kind, "INVALID_ARG", None) for kind in refused}
    wanted |= {("leaves", None, None), ("leaves-http", None, None), ("stream", None, "length")}
    assert set(kinds) == wanted
    assert all(6 <= r.tokens_out < 200 for r in found if r.kind.startswith("leaves"))
    int8.wait_idle()  # those who left hold nothing


def test_a_stall_of_the_server_shows_in_the_ttft_of_all_that_were_due_in_it(
    int8: Server, tmp_path: Path
) -> None:
    """The regression test of coordinated omission: a closed loop would have sent one request into it."""
    arrivals = {"kind": "constant", "rate_per_s": 5}
    slo = {"ttft_p99_s": RUN_S}
    profile = toml(tmp_path, [STREAM], arrivals=arrivals, duration_s=16, warmup_s=0, slo=slo)
    run = ["--profile", profile, *at(int8), "--drain", str(RUN_S), "--out", str(tmp_path / "out")]
    with program(*run) as process:
        before = wait_until(process, begun=1)
        pids = tritons(int8)
        stop(pids, signal.SIGSTOP)
        stopped = time.time()
        try:
            into = wait_until(process, begun=before + 30)  # they begin all the same
        finally:
            resumed = time.time()
            stop(pids, signal.SIGCONT)
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    found = records_of(tmp_path / "out")
    assert len(found) == 80
    result = result_of(tmp_path / "out")
    # The stall on the run's clock, at the least: the start is known to the second.
    begin_s, end_s = on_its_clock(result, stopped), on_its_clock(result, resumed) - 1
    stalled = [r for r in found[:into] if begin_s < r.intended_s]
    assert len(stalled) >= 5
    for record in stalled:
        assert record.ttft_s is not None
        assert record.ttft_s >= end_s - record.intended_s - CLOCKS_S
        assert record.sent_s <= end_s + 1 + CLOCKS_S  # into the stall, not after it


@pytest.fixture
def port() -> Iterator[int]:
    """For a master."""
    with held_ports(1) as (found,):
        yield found


def test_two_workers_send_the_schedule_of_one_between_them(int8: Server, tmp_path: Path, port: int) -> None:
    run = ["--profile", "smoke", *at(int8), "--out", str(tmp_path), "--duration", "4"]
    master = ["--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1"]
    come = ["--worker", "--master-port", str(port)]
    with program(*come), program(*come), program(*run, *master, "--master-port", str(port)) as process:
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    planned = list(schedule(with_overrides(load_profile(PROFILES / "smoke.toml"), duration_s=4)))
    found = records_of(tmp_path)
    assert [(r.request, r.intended_s, r.kind) for r in found] == [
        (p.request, p.at_s, p.kind.name) for p in planned
    ]
    assert {r.expected for r in found} == {True}


def test_a_worker_that_dies_is_reported_and_what_it_owed_counts_as_errors(
    int8: Server, tmp_path: Path, port: int
) -> None:
    run = ["--profile", "smoke", *at(int8), "--out", str(tmp_path), "--duration", "13"]
    master = ["--master", "--expect-workers", "2", "--master-bind-host", "127.0.0.1"]
    come = ["--worker", "--master-port", str(port)]
    with (
        program(*come) as victim,
        program(*come),
        program(*run, *master, "--master-port", str(port)) as process,
    ):
        wait_until(process, begun=4)
        victim.kill()
        killed = time.time()
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 3, said
    assert "was lost" in said
    found = records_of(tmp_path)
    assert [r.request for r in found] == list(range(28))
    lost = {r.request for r in found if r.error == "worker_lost"}
    (share,) = {number % 2 for number in lost}
    killed_s = on_its_clock(result_of(tmp_path), killed)
    # What it could not have sent, and of its share no more than all.
    owed = {r.request for r in found if r.request % 2 == share and r.intended_s > killed_s}
    assert owed
    assert owed <= lost
    assert not any(r.expected for r in found if r.request in lost)


def test_ctrl_c_ends_the_run_and_what_was_measured_is_written(int8: Server, tmp_path: Path) -> None:
    with program("--profile", "smoke", *at(int8), "--out", str(tmp_path), "--duration", "600") as process:
        wait_until(process, "measuring", begun=4)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=RUN_S)
        over = time.time()
    assert process.returncode == 130, said
    result = result_of(tmp_path)
    assert "interrupted after" in said
    assert result.window_s[1] <= on_its_clock(result, over) + CLOCKS_S  # not the 601 s that were planned
    assert len(records_of(tmp_path)) >= result.requests.total > 0
    assert all(record.expected for record in records_of(tmp_path))


def test_users_of_a_closed_loop_wait_for_their_answers(int8: Server, tmp_path: Path) -> None:
    profile = toml(tmp_path, [STREAM], arrivals={"kind": "closed", "users": 3}, duration_s=6, warmup_s=0)
    code, said = load("--profile", profile, *at(int8), "--processes", "2", "--out", str(tmp_path / "out"))
    assert code == 0, said
    found = records_of(tmp_path / "out")
    assert len(found) > 3  # some have asked again
    for record in found:
        assert record.intended_s <= record.sent_s
        under_way = [o for o in found if o.sent_s <= record.sent_s < o.end_s]
        assert len(under_way) <= 3


def test_a_server_that_dies_midway_leaves_errors_and_a_result(workshop: Path, tmp_path: Path) -> None:
    with started(built("int8"), workshop / "dies.log") as server:
        server.wait_ready()
        run = ["--profile", "smoke", *at(server), "--out", str(tmp_path), "--duration", "12", "--drain", "5"]
        with program(*run) as process:
            wait_until(process, "measuring", ended=4)  # two of them are the warm-up's
            stop([server.process.pid, *tritons(server)], signal.SIGKILL)
            said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 3, said
    errors = result_of(tmp_path).requests.errors
    assert set(errors) <= {"connection", "connection_lost", "UNAVAILABLE", "unfinished"}, said
    assert errors
    assert len(records_of(tmp_path)) == 26


def test_without_a_server_it_says_what_to_start(tmp_path: Path) -> None:
    with held_ports(1) as (port,):
        code, said = load("--url", f"127.0.0.1:{port}", "--out", str(tmp_path))
    assert code == 1
    assert f"no server at 127.0.0.1:{port}" in said
    assert "make serve" in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_model_is_named_with_those_there_are(int8: Server, tmp_path: Path) -> None:
    code, said = load(*at(int8), "--model", "gpt5", "--out", str(tmp_path))
    assert code == 1
    assert "gpt5" in said
    assert "smollm2" in said


def test_the_plan_of_a_worker_is_the_profile_of_the_master(int8: Server, tmp_path: Path) -> None:
    code, said = load("--profile", "smoke", *at(int8), "--out", str(tmp_path), "--rate", "3", "--seed", "7")
    assert code == 0, said
    profile = profile_of(result_of(tmp_path).profile)
    assert profile == with_overrides(load_profile(PROFILES / "smoke.toml"), rate_per_s=3, seed=7)


def tritons(server: Server) -> list[int]:
    """The processes of the server's group that answer: tritonserver and its Python backends."""
    found: list[int] = []

    def children() -> bool:
        found[:] = _descendants(server.process.pid)
        return bool(found)

    assert eventually(children)
    return found


def _descendants(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    children = [int(child) for child in text.split()]
    return [*children, *(grand for child in children for grand in _descendants(child))]


def stop(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def test_a_trace_of_a_file_is_replayed_in_its_times_and_lengths_and_what_was_cut_is_reported(
    int8: Server, tmp_path: Path
) -> None:
    rows = [
        ("2023-11-16 18:15:46.0", 20, 3),
        ("2023-11-16 18:15:48.0", 30, 5),
        ("2023-11-16 18:15:52.0", 900, 4),
    ]
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", *(",".join(map(str, row)) for row in rows)]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(lines))
    arrivals = {"kind": "trace", "file": str(trace), "speed": 2.0}
    mix: list[dict[str, object]] = [{"name": "told", "protocol": "unary", "task": "complete"}]
    profile = toml(tmp_path, mix, arrivals=arrivals, duration_s=4, warmup_s=0, max_context=128)
    run = ["--profile", profile, *at(int8), *with_its_tokenizer(), "--out", str(tmp_path / "out")]
    code, said = load(*run)
    assert code == 0, said
    found = records_of(tmp_path / "out")
    assert [record.intended_s for record in found] == [0, 1, 3]
    assert [record.tokens_out for record in found] == [3, 5, 4]
    assert [record.tokens_in for record in found][:2] == [20, 30]
    assert found[2].tokens_in <= 124
    assert any(
        doubt.startswith("1 of 3 requests were longer") for doubt in result_of(tmp_path / "out").doubts
    )


def test_a_sweep_finds_the_rate_at_which_the_slo_holds(small: Server, tmp_path: Path) -> None:
    """The small server has two slots and a queue of two. At the lowest rate one request is due, which it
    cannot refuse; at the highest 164 are, of 200 tokens each in four seconds: some must be refused."""
    mix: list[dict[str, object]] = [{**STREAM, "output_tokens": {"constant": 200}}]
    sweep = {"start_per_s": 0.5, "max_per_s": 40, "step_s": 4, "resolution": 0.9}
    arrivals = {"kind": "poisson", "rate_per_s": 1}
    slo = {"ttft_p99_s": RUN_S, "error_ratio": 0}
    profile = toml(tmp_path, mix, arrivals=arrivals, duration_s=4, warmup_s=0, slo=slo, sweep=sweep)
    out = tmp_path / "out"
    code, said = load("--profile", profile, *at(small), "--out", str(out), module="loadtest.sweep")
    assert code == 0, said
    found = sweeps.decode((out / "sweep.json").read_text())
    assert found.highest_rate_per_s is not None
    assert found.lowest_miss_per_s is not None
    assert 0.5 <= found.highest_rate_per_s < found.lowest_miss_per_s <= 40
    for rung in found.rungs:
        assert rung.result.slo_met == (rung.rate_per_s <= found.highest_rate_per_s)
        assert len(records_of(out / f"rate-{rung.rate_per_s:.4g}")) >= rung.result.requests.total
    assert list(out.glob("*.html"))
