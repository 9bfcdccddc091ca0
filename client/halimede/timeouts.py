"""How long a transport waits, beside the request's own timeout."""

from __future__ import annotations

from halimede.errors import InvalidArgument

__all__ = ["CONNECT_S", "GRACE_S", "KEEPALIVE_S", "checked_keepalive", "milliseconds", "with_grace"]

CONNECT_S = 5.0
GRACE_S = 2.0
KEEPALIVE_S = 10.0


def checked_keepalive(keepalive_s: float) -> None:
    """Seconds of silence before the other side is probed, and as many for its answer; infinity for never."""
    if not keepalive_s > 0:
        raise InvalidArgument.of("keepalive", keepalive_s, "must be more than 0 seconds, or inf for never")


def milliseconds(duration_s: float) -> int:
    """At least 1, at most what 32 bits hold, which means never."""
    return round(min(max(1.0, duration_s * 1000), 2.0**31 - 1))


def with_grace(timeout_s: float | None) -> float | None:
    """The server ends a request at its timeout; a transport gives it a moment more to say so."""
    return None if timeout_s is None else timeout_s + GRACE_S
