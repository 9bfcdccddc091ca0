"""The sizes of a plan: they are compiled in, and the server's settings must stay within them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import gcd

from build.architecture import Model
from build.architecture.parts import Architecture
from build.dialects.tensorrt.check import ALIGNMENT


@dataclass(frozen=True)
class Room:
    """The requested sizes, by the names of the server's settings; a model may have less."""

    slots: int = 16
    max_context: int = 2048
    max_source: int = 1024
    prefill_chunk: int = 128


@dataclass(frozen=True)
class Sizes:
    """What a plan has: rows of a step, tokens of a prefill, positions of a row and of its source, if any."""

    rows: int
    prefill: int
    capacity: int
    source_capacity: int

    def as_json(self) -> dict[str, int]:
        return asdict(self)

    def settings(self) -> dict[str, int]:
        """The settings of a server that fill the plan."""
        source = {"max_source": self.source_capacity} if self.source_capacity else {}
        context = {"slots": self.rows, "max_context": self.capacity, "prefill_chunk": self.prefill}
        return context | source


def sizes(model: Model, room: Room, item_bytes: int) -> Sizes:
    """The sizes of a plan with the room that is asked for; a number of a cache takes `item_bytes`."""
    if isinstance(model, Architecture):
        heads, head_dim, source = model.kv_heads, model.head_dim, 0
    else:
        heads, head_dim, source = model.decoder.heads, model.decoder.head_dim, model.encoder.max_positions
    step = ALIGNMENT // gcd(ALIGNMENT, heads * head_dim * item_bytes)
    capacity = _whole(min(room.max_context, model.max_positions), step)
    return Sizes(
        rows=room.slots,
        prefill=min(room.prefill_chunk, capacity),
        capacity=capacity,
        source_capacity=_whole(min(room.max_source, source), step) if source else 0,
    )


def _whole(most: int, step: int) -> int:
    """The largest multiple of `step` that is not above `most`, at least one step.

    So every row of a cache begins at an address that TensorRT takes.
    """
    return max(step, most // step * step)
