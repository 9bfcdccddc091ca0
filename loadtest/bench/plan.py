"""What a run measures, and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

TITLES: Final = {
    "transformers": "transformers fp32",
    "engine": "engine in process",
    "grpc": "Triton gRPC",
    "http": "Triton HTTP",
    "url": "running server",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """`slots` is the throughput server's, `default_*` what the memory target speaks of. Token counts are of
    one stream; `fill_tokens` is prompt and answer together.
    """

    rows: tuple[str, ...] = ("transformers", "engine", "grpc", "http")
    streams: tuple[int, ...] = (1, 4, 8, 16, 32)
    reference_streams: tuple[int, ...] = (1, 8)
    step_batches: tuple[int, ...] = (1, 8, 16)
    repeats: int = 3
    tokens_in: int = 128
    tokens_out: int = 64
    slots: int = 32
    default_slots: int = 16
    max_context: int = 2048
    prefix_tokens: int = 400
    prefix_pairs: int = 5
    fill_tokens: int = 2048
    quick: bool = False

    def runs(self, row: str, streams: int) -> bool:
        return row in self.rows and (row != "transformers" or streams in self.reference_streams)

    @property
    def measurements(self) -> int:
        """Samples of throughput in all, warm-ups included."""
        each = sum(self.runs(row, streams) for row in self.rows for streams in self.streams)
        return each * (self.repeats + 1)


def quick(plan: Plan) -> Plan:
    """Shows that everything runs; its figures mean nothing."""
    return replace(
        plan,
        rows=tuple(row for row in plan.rows if row != "transformers"),
        streams=(1, 8),
        step_batches=(1, 8),
        repeats=1,
        tokens_in=32,
        tokens_out=24,
        prefix_pairs=1,
        fill_tokens=96,
        quick=True,
    )
