"""Sizes as people write them."""

from __future__ import annotations

import re

_UNITS: dict[str, int] = {"": 1, "b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", 1)
    for suffix, base in (("", 1000), ("b", 1000), ("i", 1024), ("ib", 1024))
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")
GIB = 2**30


def parse_bytes(text: str) -> int:
    """8GiB or 8Gi is 8 * 2^30, 8GB or 8G is 8 * 10^9; ValueError says how to write it."""
    found = _SIZE.fullmatch(text.strip().lower())
    size = round(float(found[1]) * _UNITS.get(found[2], 0)) if found else 0
    if size < 1:
        raise ValueError(f"{text!r}, must be a size such as 8GiB, 16GB or 512MiB")
    return size


def gib(size: float) -> str:
    """`1.9 GiB`, `8 GiB`; two digits below one."""
    amount = size / GIB
    if amount < 1:
        return f"{amount:.2f} GiB"
    return f"{amount:.1f}".removesuffix(".0") + " GiB"
