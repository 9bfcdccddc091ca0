"""What a run measures, how often, and what it hopes for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from loadtest.errors import BenchError

SIDES: Final = {"engine": "engine in process", "grpc": "Triton gRPC"}
CHUNK: Final = "prefill_chunk"
STALL: Final = "prefill_stall_percent"


@dataclass(frozen=True, slots=True)
class Variant:
    """The engine's parameters that it changes; `chunk` where that is the chunk's fixed size."""

    name: str
    parameters: Mapping[str, str]
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Tokens: `tokens_in` of each stream's prompt, `prompt_tokens` of the prompt that arrives once every
    stream has got `lead`; `max_tokens` are more than a stream gets by then. The aims are ratios to what each
    takes alone.
    """

    sides: tuple[str, ...] = ("engine",)
    chunks: tuple[int, ...] = (16, 32, 48, 64, 128, 256, 512)
    also: tuple[Variant, ...] = ()
    repeats: int = 3
    streams: int = 8
    tokens_in: int = 128
    prompt_tokens: int = 1500
    lead: int = 40
    max_tokens: int = 1024
    itl_aim: float = 4.0
    ttft_aim: float = 2.5
    quick: bool = False
    base: Mapping[str, str] = field(
        default_factory=lambda: {"slots": "16", "max_context": "2048", "stream_interval": "1"}
    )

    @property
    def variants(self) -> tuple[Variant, ...]:
        return (*(fixed(chunk) for chunk in self.chunks), *self.also)


def fixed(chunk: int) -> Variant:
    return Variant(f"{chunk}", {CHUNK: f"{chunk}", STALL: "0"}, chunk)


def by_time() -> Variant:
    """As the engine comes: chunks of a time, in decode steps."""
    return Variant("by time", {STALL: "250"})


def variant(text: str) -> Variant:
    """Of NAME=VALUE,…; ValueError for another form."""
    parameters = dict(_pair(part) for part in text.split(","))
    return Variant(text, parameters)


def _pair(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise ValueError(f"{text}, must be NAME=VALUE of the engine's parameters")
    return name, value


def check(plan: Plan, known: Iterable[str]) -> None:
    """BenchError for a parameter that the engine's config.pbtxt has not: it would be ignored."""
    names = sorted(known)
    for one in plan.variants:
        for name in one.parameters:
            if name not in names:
                raise BenchError(f"--also {one.name}: {name} is no parameter; there are {', '.join(names)}")


def quick(plan: Plan) -> Plan:
    """Shows that everything runs; its figures mean nothing."""
    return replace(
        plan,
        chunks=(32, 128),
        repeats=1,
        streams=2,
        tokens_in=32,
        prompt_tokens=200,
        lead=4,
        max_tokens=64,
        quick=True,
    )
