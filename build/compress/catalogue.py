"""The passes by the names that recipes give them."""

from __future__ import annotations

from build.compress.passes import (
    carry,
    compensate,
    gptq,
    prune_depth,
    prune_vocabulary,
    prune_width,
    rotate,
    sensitivity,
    smooth,
)
from build.compress.step import Pass

PASSES: dict[str, Pass] = {
    "carry": carry,
    "compensate": compensate,
    "gptq": gptq,
    "prune-depth": prune_depth,
    "prune-vocabulary": prune_vocabulary,
    "prune-width": prune_width,
    "rotate": rotate,
    "sensitivity": sensitivity,
    "smooth": smooth,
}
