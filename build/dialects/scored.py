from __future__ import annotations

from enum import Enum


class Scored(Enum):
    """Which positions get logits: serving samples from the last, verification scores all."""

    LAST = "last"
    ALL = "all"
