"""What has been measured: manifests of the engines that are built, and the JSON of benchmarks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from build.errors import BadInput
from build.quantise import Precision
from build.recommend.roofline import Load

# `make bench` is of this engine and these of its rows, `make bench-models` of many in one precision.
_MODEL = "smollm2"
_PRECISION = Precision.INT8
_ROWS = {"engine": "in process", "grpc": "Triton gRPC"}

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """An engine in the repository; `ratio` is its perplexity over the reference's."""

    name: str
    precision: Precision
    disk_bytes: int
    ratio: float


@dataclass(frozen=True)
class Rate:
    """Tokens/s, medians of the repeats: of the `whole` run, prompts included, and while all `decode`."""

    name: str
    precision: Precision
    through: str
    requests: int
    beams: int
    load: Load
    whole: float
    decode: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes of the server and all its processes with every slot full."""

    name: str
    precision: Precision
    slots: int
    context: int
    size: int


@dataclass(frozen=True)
class Bench:
    machine: str
    date: str
    rates: tuple[Rate, ...]
    memory: Memory | None


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
    """BadInput when it is no JSON of `make bench` or `make bench-models`."""
    try:
        return _bench(json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}; `make bench` writes bench.json") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{path}: is no JSON of `make bench` or `make bench-models` ({error!r})") from error


def _bench(content: Json) -> Bench:
    machine, plan = content["machine"], content["plan"]
    of_models = "cases" in plan
    return Bench(
        machine=f"{machine['cpu']}, {machine['cores']} cores{_level(machine)}",
        date=str(machine["date"])[:10],
        rates=tuple(_of_models(content) if of_models else _of_streams(content)),
        memory=None if of_models else _memory(content),
    )


def _level(machine: Json) -> str:
    """Of the kernels, where the benchmark knew of any."""
    return f", kernels {machine['kernels']}" if machine.get("kernels") else ""


def _of_streams(content: Json) -> Iterator[Rate]:
    plan = content["plan"]
    load = Load(plan["tokens_in"], plan["tokens_out"])
    for (row, streams), samples in _grouped(content["samples"], ("row", "streams")):
        if row in _ROWS:
            whole = median(sample["tokens_per_s"] for sample in samples)
            decode = [s["decode_tokens_per_s"] for s in samples if s["decode_tokens_per_s"]]
            rate = median(decode) if decode else None
            yield Rate(_MODEL, _PRECISION, _ROWS[row], streams, 1, load, whole, rate)


def _of_models(content: Json) -> Iterator[Rate]:
    plan = content["plan"]
    tokens_in = {case["shape"]["name"]: case["tokens_in"] for case in plan["cases"]}
    triton = [{**s, **s["load"]} for s in content["samples"] if s["side"] == "triton"]
    for (name, beams, requests), samples in _grouped(triton, ("model", "beams", "requests")):
        load = Load(tokens_in[name], plan["tokens_out"])
        whole = median(sample["tokens_per_s"] for sample in samples)
        yield Rate(name, _PRECISION, _ROWS["grpc"], requests, beams, load, whole, None)


def _grouped(samples: Iterable[Json], keys: tuple[str, ...]) -> Iterable[tuple[tuple[Any, ...], list[Json]]]:
    found: dict[tuple[Any, ...], list[Json]] = {}
    for sample in samples:
        found.setdefault(tuple(sample[key] for key in keys), []).append(sample)
    return found.items()


def _memory(content: Json) -> Memory:
    plan = content["plan"]
    size = content["footprint"]["filled"]["pss"]
    return Memory(_MODEL, _PRECISION, plan["default_slots"], plan["max_context"], size)
