"""Quantities of Kubernetes as numbers."""

from __future__ import annotations

import re
from decimal import Decimal

FACTORS = {"": Decimal(1), "m": Decimal("0.001"), "n": Decimal("1e-9"), "u": Decimal("1e-6")} | {
    letter + ("i" if base == 1024 else ""): Decimal(base) ** power
    for base, letters in ((1000, "kMGTPE"), (1024, "KMGTPE"))
    for power, letter in enumerate(letters, 1)
}


def amount(text: str | float) -> Decimal:
    """What "500m", "1.5Gi", "1e3" or 4 stands for. Raises ValueError."""
    parts = re.fullmatch(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)([a-zA-Z]*)", str(text))
    if parts is None or parts[2] not in FACTORS:
        raise ValueError(f"{text!r} is no quantity, such as 500m or 2Gi")
    return Decimal(parts[1]) * FACTORS[parts[2]]
