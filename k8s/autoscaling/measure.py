"""Calibration on the real server: cold starts, decoding, prefill, CPU; then all under load."""

from __future__ import annotations

import datetime
import math
import os
import platform
import random
import re
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

from halimede import Client, HalimedeError
from k8s.autoscaling.calibration import Calibration, fitted
from k8s.autoscaling.chunks import LONGEST, weight
from k8s.autoscaling.fit import SECONDS, fit
from k8s.autoscaling.play import prompt, together
from k8s.autoscaling.server import Server, Unmeasured, served

# Of the streams that are timed: about the profile chat's.
PROMPT_TOKENS: Final = 150
TOKENS: Final = 128
PREFILLED: Final = (16, 24, 32, 64, 100, 128, 240, 480, 720, 1000)


def calibrate(
    repository: Path,
    model: str,
    folder: Path,
    starts: int,
    say: Callable[[str], None],
    load_s: float = SECONDS,
) -> Calibration:
    """Five minutes, with loads of `load_s`. Raises Unmeasured."""
    config = (repository / f"{model}_engine" / "config.pbtxt").read_text()
    slots, cold = _parameter(config, "slots"), []
    for turn in range(1, starts + 1):
        with served(repository, model, folder / "server.log") as server:
            cold.append(server.ready_s)
            say(f"start {turn} of {starts}: ready after {server.ready_s:.2f} s")
            if turn == starts:
                return _calibrated(server, slots, config, tuple(cold), say, load_s)
    raise ValueError(f"starts {starts}: must be at least 1")


def _calibrated(
    server: Server,
    slots: int,
    config: str,
    cold: tuple[float, ...],
    say: Callable[[str], None],
    load_s: float,
) -> Calibration:
    try:
        with server.client() as client:
            return fit(client, _parts(server, client, slots, config, cold, say), say, load_s)
    except HalimedeError as problem:
        raise Unmeasured(f"the server did not answer: {problem}") from problem


def _parts(
    server: Server,
    client: Client,
    slots: int,
    config: str,
    cold: tuple[float, ...],
    say: Callable[[str], None],
) -> Calibration:
    client.generate(prompt(random.Random(0), 64), max_tokens=16)
    request_s, call_s, token_s = _prefill(client)
    say(f"prefill: {_ms(request_s)} a request, {_ms(call_s)} a chunk, {_ms(token_s)} a token")
    idle = _idle_cores(server)
    decode, cores = {}, {}
    for running in sorted({1, 2, 4, 8, slots}):
        if running <= slots:
            decode[running], cores[running] = _decode(server, client, running)
            say(f"{running} running: {_ms(decode[running])} a step, {cores[running]:.2f} cores")
    return Calibration(
        slots=slots,
        max_queue=_parameter(config, "max_queue"),
        max_context=_parameter(config, "max_context"),
        decode_s=decode,
        busy_cores=cores,
        idle_cores=idle,
        request_s=request_s,
        prefill_call_s=call_s,
        prefill_token_s=token_s,
        prefill_stall=_parameter(config, "prefill_stall_percent") / 100,
        cold_start_s=cold,
        slowdown=1.0,
        cores=os.cpu_count() or 1,
        machine=_processor(),
        measured=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _prefill(client: Client) -> tuple[float, float, float]:
    """Seconds of a request, a chunk, and a prompt token, from the times to one token of an idle server."""
    rng = random.Random(1)
    taken: dict[int, list[float]] = {size: [] for size in PREFILLED}
    for _ in range(7):
        for size, seconds in taken.items():
            began = time.monotonic()
            client.generate(prompt(rng, size), max_tokens=1)
            seconds.append(time.monotonic() - began)
    rows = [[1.0, math.ceil(size / LONGEST), weight(0, size)] for size in taken]
    return fitted(rows, [statistics.median(seconds) for seconds in taken.values()])


def _decode(server: Server, client: Client, running: int) -> tuple[float, float]:
    """Median seconds between two tokens of a stream, and cores used, with so many streams."""
    gaps: list[float] = []
    used, began = server.cpu_s(), time.monotonic()
    together(running, lambda turn: gaps.extend(_gaps(client, running * 100 + turn)))
    return statistics.median(gaps), (server.cpu_s() - used) / (time.monotonic() - began)


def _gaps(client: Client, seed: int) -> list[float]:
    """Between the later tokens of a stream: the prompts of those that began with it are through by then."""
    text = prompt(random.Random(seed), PROMPT_TOKENS)
    stream = client.stream(text, max_tokens=TOKENS, ignore_eos=True, temperature=0.0)
    chunks = [(time.monotonic(), chunk.num_output_tokens or 0) for chunk in stream]
    later = pairwise(chunks[len(chunks) // 2 :])
    return [(after - before) / tokens for (before, _), (after, tokens) in later if tokens]


def _idle_cores(server: Server) -> float:
    used, began = server.cpu_s(), time.monotonic()
    time.sleep(3.0)
    return (server.cpu_s() - used) / (time.monotonic() - began)


def _parameter(config: str, name: str) -> int:
    found = re.search(rf'key: "{name}" value {{ string_value: "(\d+)" }}', config)
    if not found:
        raise Unmeasured(f"config.pbtxt of the engine has no number for {name}")
    return int(found[1])


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"


def _processor() -> str:
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{found[1] if found else platform.processor()}, {os.cpu_count()} cores"
