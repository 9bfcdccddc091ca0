"""Calibration on the real server: cold starts, steps by running requests, prefill, CPU.

The server is started by server/launch.py on free ports of the loopback, several times.
"""

from __future__ import annotations

import datetime
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Final

from halimede import Client, HalimedeError
from k8s.autoscaling.calibration import Calibration, line
from k8s.autoscaling.prometheus import free_port

ROOT: Final = Path(__file__).parents[2]
START_LIMIT_S: Final = 120.0
BESIDE: Final = 8
_WORDS: Final = ("time", "year", "people", "way", "day", "thing", "life", "world", "school", "state", "group")


class Unmeasured(Exception):
    """The server did not start or did not answer; says what it wrote."""


class Server:
    """One launch.py and what it started."""

    def __init__(self, repository: Path, model: str, log: Path) -> None:
        ports = {service: free_port() for service in ("http", "grpc", "metrics")}
        self.grpc, self.metrics = f"127.0.0.1:{ports['grpc']}", f"127.0.0.1:{ports['metrics']}"
        self._log, self._model = log, model
        command = [sys.executable, str(ROOT / "server" / "launch.py"), "--model-repository", str(repository)]
        command += ["--model", model]
        for service, port in ports.items():
            command += [f"--{service}-port", str(port)]
        began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        self.ready_s = self._wait_ready(began)

    def client(self) -> Client:
        return Client(self.grpc, model=self._model)

    def cpu_s(self) -> float:
        """CPU seconds of the processes so far."""
        ticks = sum(map(_ticks, _family(self._process.pid)))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _wait_ready(self, began: float) -> float:
        while time.monotonic() < began + START_LIMIT_S and self._process.poll() is None:
            if b"ready in" in self._log.read_bytes():
                return time.monotonic() - began
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()
        raise Unmeasured(f"the server did not become ready:\n{self._log.read_text()[-2000:]}")


@contextmanager
def served(repository: Path, model: str, log: Path) -> Iterator[Server]:
    server = Server(repository, model, log)
    try:
        yield server
    finally:
        server.stop()


def calibrate(
    repository: Path, model: str, folder: Path, starts: int, say: Callable[[str], None]
) -> Calibration:
    """A few minutes. Raises Unmeasured."""
    config = (repository / f"{model}_engine" / "config.pbtxt").read_text()
    slots, cold = _parameter(config, "slots"), []
    for turn in range(starts - 1):
        with served(repository, model, folder / "server.log") as server:
            cold.append(server.ready_s)
            say(f"start {turn + 1} of {starts}: ready after {server.ready_s:.2f} s")
    with served(repository, model, folder / "server.log") as server:
        cold.append(server.ready_s)
        say(f"start {starts} of {starts}: ready after {server.ready_s:.2f} s")
        try:
            return _measured(server, slots, config, tuple(cold), say)
        except HalimedeError as problem:
            raise Unmeasured(f"the server did not answer: {problem}") from problem


def _measured(
    server: Server, slots: int, config: str, cold: tuple[float, ...], say: Callable[[str], None]
) -> Calibration:
    with server.client() as client:
        client.generate(_prompt(random.Random(0), 64), max_tokens=16)
        call_s, token_s = _prefill(client)
        say(f"prefill: {call_s * 1000:.0f} ms and {token_s * 1000:.2f} ms a token")
        idle = _idle_cores(server)
        decode, cores = {}, {}
        for running in sorted({1, 2, 4, 8, slots}):
            if running <= slots:
                decode[running], cores[running] = _decode(server, client, running)
                say(f"{running} running: {decode[running] * 1000:.1f} ms a step, {cores[running]:.2f} cores")
        share = _share(client, min(BESIDE, slots), decode[min(BESIDE, slots)], token_s)
        say(f"a chunk beside {BESIDE} streams takes {share:.2f} of their step")
    return Calibration(
        slots=slots,
        max_queue=_parameter(config, "max_queue"),
        max_context=_parameter(config, "max_context"),
        decode_s=decode,
        busy_cores=cores,
        idle_cores=idle,
        prefill_call_s=call_s,
        prefill_token_s=token_s,
        prefill_share=share,
        cold_start_s=cold,
        cores=os.cpu_count() or 1,
        machine=_processor(),
        measured=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _prefill(client: Client) -> tuple[float, float]:
    """Seconds of a call, and of a prompt token, with nothing else running."""
    rng, points = random.Random(1), []
    for words in (32, 128, 320, 640, 960) * 2:
        began = time.monotonic()
        answer = client.generate(_prompt(rng, words), max_tokens=1)
        points.append((float(answer.num_input_tokens or words), time.monotonic() - began))
    intercept, slope = line(points)
    return max(0.0, intercept), slope


def _decode(server: Server, client: Client, running: int) -> tuple[float, float]:
    """Median seconds between two tokens of a stream, and cores used, with so many streams."""
    gaps: list[float] = []
    used, began = server.cpu_s(), time.monotonic()
    _together(running, lambda turn: gaps.extend(_gaps(client, running * 100 + turn, 64)))
    return statistics.median(gaps), (server.cpu_s() - used) / (time.monotonic() - began)


def _share(client: Client, running: int, decode_s: float, token_s: float) -> float:
    """How long a chunk may take beside streams, by the step: from what a long prompt waits for among them."""
    taken: list[tuple[float, int]] = []

    def stream_or_prompt(turn: int) -> None:
        if turn < running:
            _gaps(client, 9000 + turn, 256)
            return
        time.sleep(1.0)
        began = time.monotonic()
        answer = client.generate(_prompt(random.Random(5), 800), max_tokens=1)
        taken.append((time.monotonic() - began, answer.num_input_tokens or 800))

    _together(running + 1, stream_or_prompt)
    seconds, tokens = taken[0]
    chunk = decode_s / max(seconds / tokens - token_s, 1e-6)
    return min(10.0, chunk * token_s / decode_s)


def _gaps(client: Client, seed: int, tokens: int) -> list[float]:
    prompt = _prompt(random.Random(seed), 24)
    times = [
        time.monotonic() for _ in client.stream(prompt, max_tokens=tokens, ignore_eos=True, temperature=0.0)
    ]
    return [after - before for before, after in pairwise(times)]


def _together(count: int, work: Callable[[int], None]) -> None:
    """Raises what one of them did."""
    faults: list[HalimedeError] = []

    def guarded(turn: int) -> None:
        try:
            work(turn)
        except HalimedeError as fault:
            faults.append(fault)

    threads = [threading.Thread(target=guarded, args=(turn,)) for turn in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if faults:
        raise faults[0]


def _idle_cores(server: Server) -> float:
    used, began = server.cpu_s(), time.monotonic()
    time.sleep(3.0)
    return (server.cpu_s() - used) / (time.monotonic() - began)


def _prompt(rng: random.Random, words: int) -> str:
    """No two begin alike, so the prefix cache has none of them."""
    return f"{rng.randrange(10**9)} " + " ".join(rng.choice(_WORDS) for _ in range(words))


def _parameter(config: str, name: str) -> int:
    found = re.search(rf'key: "{name}" value {{ string_value: "(\d+)" }}', config)
    if not found:
        raise Unmeasured(f"config.pbtxt of the engine has no number for {name}")
    return int(found[1])


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[11]) + int(fields[12])


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"
