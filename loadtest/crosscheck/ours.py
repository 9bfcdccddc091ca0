"""Our own load test: how it is called, and what it found."""

from __future__ import annotations

import sys
from pathlib import Path

from loadtest.crosscheck.figures import Figures, Timing
from loadtest.errors import BenchError
from loadtest.measure import result as results
from loadtest.measure.record import Record, decode_lines
from loadtest.measure.result import Result
from loadtest.served import Served

RECORDS, RESULT = "records.jsonl", "result.json"


def command(server: Served, tokenizer: Path, profile: Path, folder: Path) -> list[str]:
    """One run of the profile over HTTP. It writes its own prompts, other ones in each run."""
    options = {
        "--profile": f"{profile}",
        "--url": server.grpc,
        "--http-url": server.http,
        "--metrics-url": server.metrics,
        "--tokenizer": f"{tokenizer / 'tokenizer.json'}",
        "--out": f"{folder}",
    }
    return [sys.executable, "-m", "loadtest.load", *(word for option in options.items() for word in option)]


def timings_of(folder: Path) -> list[Timing]:
    """From the records of the measured requests. BenchError when one failed."""
    with (folder / RECORDS).open(encoding="utf-8") as lines:
        records = [record for record in decode_lines(lines) if record.phase == "measure"]
    if failed := [record for record in records if not record.is_complete]:
        raise BenchError(f"loadtest.load: {len(failed)} of {len(records)} requests failed: {failed[0].error}")
    return [_timing(record) for record in records]


def headline(folder: Path) -> Figures:
    """What loadtest.load itself reports."""
    result = _result(folder)
    ttft, itl, e2e = result.ttft_s, result.itl_s, result.e2e_s
    if ttft is None or itl is None or e2e is None:
        raise BenchError("loadtest.load: no request was answered")
    return Figures(ttft.p50, itl.mean, e2e.p50, result.tokens_per_s)


def cached(folder: Path) -> bool:
    """By the gauges of the run itself: what is asked before it, to learn of the server, may be cached."""
    ratios = _result(folder).gauges.get("prefix_hit_ratio", ())
    return any(ratio > 0 for _, ratio in ratios)


def _result(folder: Path) -> Result:
    return results.decode((folder / RESULT).read_text("utf-8"))


def _timing(record: Record) -> Timing:
    """From the moment the request should have been sent, as all our latencies are."""
    assert record.ttft_s is not None, "a complete stream without a token"
    return Timing(record.intended_s, record.ttft_s, record.end_s, record.tokens_out)
