"""A load test played out on paper: a server of so many slots, Poisson arrivals, a queue."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator

from loadtest.measure.gauges import Gauges
from loadtest.measure.record import Chunk, Record
from loadtest.measure.result import Facts, Result, ServerFacts, summarise

WARMUP_S, MEASURED_S = 10.0, 50.0
SLO = {"error_ratio": 0.1, "ttft_p99_s": 1.0, "gap_p99_s": 0.2, "request_ttft_s": 1.0, "request_tpot_s": 0.1}


def facts(name: str = "chat", gauges: Gauges | None = None) -> Facts:
    return Facts(
        profile={"name": name, "description": "an assistant's traffic", "slo": SLO},
        started="2026-11-01T10:00:00+00:00",
        machine={"cpu": "AMD EPYC 9R14", "cores": 2, "commit": "abcdef", "uncommitted_changes": False},
        server=ServerFacts("127.0.0.1:8001", "2.51.0", ("smollm2",)),
        window_s=(WARMUP_S, WARMUP_S + MEASURED_S),
        gauges=readings() if gauges is None else gauges,
    )


def readings() -> Gauges:
    noise = random.Random(3)
    times = [float(second) for second in range(65)]
    return {
        "running": tuple((t, float(noise.randint(2, 8))) for t in times),
        "waiting": tuple((t, float(noise.randint(0, 3))) for t in times),
        "kv_usage": tuple((t, min(1.0, 0.2 + t / 100)) for t in times),
        "prefix_hit_ratio": tuple((t, 0.4 + 0.1 * noise.random()) for t in times),
        "generation_tokens_per_s": tuple((t, 180 + 40 * noise.random()) for t in times),
        "prompt_tokens_per_s": tuple((t, 300 + 200 * noise.random()) for t in times),
        "cpu_utilization": tuple((t, 0.9 + 0.1 * noise.random()) for t in times),
        "memory_used_bytes": tuple((t, 3e9 + 1e6 * t) for t in times),
    }


def play(seed: int, rate_per_s: float = 2.0, slots: int = 8, step_s: float = 0.03) -> list[Record]:
    """The records of one run; some of its requests fail, are refused as planned, or are left early."""
    chance = random.Random(seed)
    free = [0.0] * slots
    return list(_records(chance, rate_per_s, free, step_s))


def played(seed: int, rate_per_s: float = 2.0, step_s: float = 0.03) -> Result:
    return summarise(play(seed, rate_per_s, step_s=step_s), facts())


def _records(chance: random.Random, rate_per_s: float, free: list[float], step_s: float) -> Iterator[Record]:
    at_s, number = 0.0, 0
    while (at_s := at_s + chance.expovariate(rate_per_s)) < WARMUP_S + MEASURED_S:
        kind = chance.choices(("chat", "long", "unary", "bad"), (6, 2, 1, 0.4))[0]
        begin_s = max(heapq.heappop(free), at_s)
        first_s = begin_s + (0.3 if kind == "long" else 0.1) * chance.uniform(0.8, 1.6)
        chunks = tuple(_chunks(chance, first_s, step_s, chance.randint(8, 60)))
        heapq.heappush(free, at_s if kind == "bad" else chunks[-1][0])
        yield _record(chance, number, kind, at_s, chunks)
        number += 1


def _chunks(chance: random.Random, at_s: float, step_s: float, count: int) -> Iterator[Chunk]:
    for _ in range(count):
        yield at_s, 1
        at_s += step_s * chance.lognormvariate(0, 0.25)


def _record(chance: random.Random, number: int, kind: str, at_s: float, chunks: tuple[Chunk, ...]) -> Record:
    failed = chance.random() < 0.02
    error = "INVALID_ARG" if kind == "bad" else chance.choice(("UNAVAILABLE", "timeout")) if failed else None
    shown = () if error or kind == "unary" else chunks
    return Record(
        request=number,
        kind=kind,
        protocol="unary" if kind == "unary" else "grpc",
        model="smollm2",
        intended_s=at_s,
        sent_s=at_s + chance.expovariate(500),
        first_s=shown[0][0] if shown else None,
        end_s=at_s + 0.05 if error else chunks[-1][0],
        tokens_in=chance.randint(20, 200),
        tokens_out=0 if error else len(chunks),
        chunks=shown,
        finish_reason=None if error else "length",
        error=error,
        expected=error is None or kind == "bad",
        phase="warmup" if at_s < WARMUP_S else "measure",
    )
