"""What has been measured: manifests of the engines that are built, and a benchmark's JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from build.errors import BadInput
from build.quantise import Precision

# What the benchmark is of where its JSON does not say.
_BENCH_MODEL = "smollm2"
_BENCH_PRECISION = "int8"


@dataclass(frozen=True)
class Built:
    """An engine in the repository; `ratio` is its perplexity over the reference's."""

    name: str
    precision: Precision
    disk_bytes: int
    ratio: float


@dataclass(frozen=True)
class Bench:
    """One run: tokens/s while all streams decode, by number of streams; memory of the server, slots full."""

    name: str
    precision: Precision
    machine: str
    date: str
    slots: int
    context: int
    tokens_in: int
    tokens_out: int
    decode: Mapping[int, float]
    memory: int | None


def read_built(repository: Path) -> list[Built]:
    """Those whose manifest can be read: one of another version says nothing here."""
    found = (_built(path) for path in sorted(repository.glob("*_engine/*/manifest.json")))
    return [engine for engine in found if engine is not None]


def _built(path: Path) -> Built | None:
    try:
        content = json.loads(path.read_text("utf-8"))
        quality = content["quality"]
        return Built(
            name=content["name"],
            precision=Precision(content["precision"]),
            disk_bytes=int(content["size_bytes"]),
            ratio=float(quality["perplexity"]) / float(quality["reference_perplexity"]),
        )
    except (OSError, ValueError, LookupError, TypeError, ZeroDivisionError):
        return None


def read_bench(path: Path) -> Bench:
    """BadInput when it is no benchmark's JSON."""
    try:
        content = json.loads(path.read_text("utf-8"))
        return _bench(content)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; `make bench` writes it") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no JSON of `make bench` ({error!r})") from error


def _bench(content: Mapping[str, Any]) -> Bench:
    machine, plan = content["machine"], content["plan"]
    filled = (content.get("footprint") or {}).get("filled") or {}
    return Bench(
        name=content.get("model", _BENCH_MODEL),
        precision=Precision(content.get("precision", _BENCH_PRECISION)),
        machine=f"{machine['cpu']}, {machine['cores']} cores",
        date=str(machine["date"])[:10],
        slots=plan["default_slots"],
        context=plan["max_context"],
        tokens_in=plan["tokens_in"],
        tokens_out=plan["tokens_out"],
        decode=_decode(content["samples"]),
        memory=filled.get("pss"),
    )


def _decode(samples: Iterable[Mapping[str, Any]]) -> dict[int, float]:
    """Of the engine in process: medians over the repeats."""
    rates: dict[int, list[float]] = {}
    for sample in samples:
        if sample["row"] == "engine" and sample["decode_tokens_per_s"]:
            rates.setdefault(sample["streams"], []).append(sample["decode_tokens_per_s"])
    return {streams: median(found) for streams, found in sorted(rates.items())}
