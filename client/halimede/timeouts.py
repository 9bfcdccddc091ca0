"""How long a transport waits, beside the request's own timeout."""

from __future__ import annotations

__all__ = ["CONNECT_S", "GRACE_S", "with_grace"]

CONNECT_S = 5.0
GRACE_S = 2.0


def with_grace(timeout_s: float | None) -> float | None:
    """The server ends a request at its timeout; a transport gives it a moment more to say so."""
    return None if timeout_s is None else timeout_s + GRACE_S
