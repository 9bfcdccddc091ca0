"""A small real task for an encoder-decoder: dates as people write them to dates as ISO 8601 has them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import date, timedelta

_FIRST = date(1900, 1, 1)
_DAYS = (date(2099, 12, 31) - _FIRST).days
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_ENDINGS = {1: "st", 2: "nd", 3: "rd", 21: "st", 22: "nd", 23: "rd", 31: "st"}


@dataclass(frozen=True)
class Pair:
    written: str
    iso: str


def pairs(count: int, seed: int) -> list[Pair]:
    rng = random.Random(seed)
    return [_pair(_FIRST + timedelta(rng.randrange(_DAYS)), rng) for _ in range(count)]


def _pair(day: date, rng: random.Random) -> Pair:
    month = _MONTHS[day.month - 1]
    ordinal = f"{day.day}{_ENDINGS.get(day.day, 'th')}"
    written = rng.choice([
        f"{month} {day.day}, {day.year}",
        f"{day.day} {month} {day.year}",
        f"the {ordinal} of {month} {day.year}",
        f"{month[:3]} {ordinal}, {day.year}",
        f"{day.day}.{day.month}.{day.year}",
    ])  # fmt: skip
    return Pair(written, day.isoformat())
