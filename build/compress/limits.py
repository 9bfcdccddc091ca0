"""The checks that options of passes share."""

from __future__ import annotations

from typing import Any

from build.errors import BadInput


def require_whole(option: str, value: Any, least: int, most: int | None = None, why: str = "") -> None:
    """BadInput unless the value of `PASS: FIELD` is a whole number from `least` to `most`."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    reason = f": {why}" if why else ""
    if not whole or value < least:
        raise BadInput(f"{option}: {value!r}, must be a whole number of at least {least}{reason}")
    if most is not None and value > most:
        raise BadInput(f"{option}: {value}, must be at most {most}{reason}")


def require_share(option: str, value: Any) -> None:
    """BadInput unless the value of `PASS: FIELD` is a number in [0, 1]."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 1:
        raise BadInput(f"{option}: {value!r}, must be a number in [0, 1]")


def require_flag(option: str, value: Any) -> None:
    """BadInput unless the value of `PASS: FIELD` is true or false."""
    if not isinstance(value, bool):
        raise BadInput(f"{option}: {value!r}, must be true or false")
