"""Which models are compared, under which loads, and what each must reach."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

TITLES: Final = {"transformers": "transformers fp32", "triton": "Triton gRPC int8"}
PRECISION: Final = "int8"
BEAMS: Final = 4
GB: Final = 1e9


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a model. `family` is transformers' model_type; `layers` are of each stack."""

    name: str
    family: str
    layers: int
    hidden: int
    heads: int
    inner: int
    vocab: int
    positions: int = 1024


@dataclass(frozen=True, slots=True)
class Load:
    """So many requests at once: one batch of transformers, as many requests of the server."""

    beams: int
    requests: int

    def __str__(self) -> str:
        decoding = "greedy" if self.beams == 1 else f"{self.beams} beams"
        return f"{decoding}, {self.requests} at once"


@dataclass(frozen=True, slots=True)
class Case:
    """`target` is the tokens/s through Triton over those of transformers, at every load."""

    shape: Shape
    tokens_in: int
    loads: tuple[Load, ...]
    target: float


@dataclass(frozen=True, slots=True)
class BuildLimit:
    shape: Shape
    seconds: float
    peak_bytes: float | None = None


_GPT2 = Shape("gpt2", "gpt2", 12, 768, 12, 3072, 50257)
_BART_BASE = Shape("bart-base", "bart", 6, 768, 12, 3072, 50265)
_BART_LARGE = Shape("bart-large", "bart", 12, 1024, 16, 4096, 50265)

CASES: Final = (
    Case(_GPT2, 128, (Load(1, 1), Load(1, 8)), 4),
    Case(_BART_BASE, 256, (Load(1, 1), Load(1, 8), Load(BEAMS, 1), Load(BEAMS, 4)), 3),
)
BUILDS: Final = (BuildLimit(_GPT2, 60), BuildLimit(_BART_LARGE, 240, 8 * GB))


@dataclass(frozen=True, slots=True)
class Plan:
    """`builds` are timed, from a checkpoint on disk; `tokens_out` is of one answer."""

    cases: tuple[Case, ...] = CASES
    builds: tuple[BuildLimit, ...] = BUILDS[:1]
    repeats: int = 5
    tokens_out: int = 64
    quick: bool = False

    @property
    def measurements(self) -> int:
        """Samples in all, warm-ups included."""
        return len(TITLES) * sum(len(case.loads) for case in self.cases) * (self.repeats + 1)


def quick(plan: Plan) -> Plan:
    """Shows that everything runs, with models of a few kilobytes; its figures mean nothing."""
    return replace(
        plan,
        cases=tuple(replace(case, shape=_tiny(case.shape), tokens_in=48) for case in plan.cases),
        builds=tuple(replace(limit, shape=_tiny(limit.shape)) for limit in plan.builds),
        repeats=1,
        tokens_out=8,
        quick=True,
    )


def _tiny(shape: Shape) -> Shape:
    return replace(
        shape, name=f"tiny-{shape.name}", layers=2, hidden=64, heads=4, inner=128, vocab=600, positions=256
    )
