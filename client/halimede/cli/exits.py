"""Errors as exit codes, and what the user can do about them."""

from __future__ import annotations

from enum import IntEnum

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ProtocolError,
    ServerError,
    TlsFailed,
    TransportError,
    Unavailable,
    Unsupported,
)

__all__ = ["Exit", "as_json", "exit_code", "hint"]


class Exit(IntEnum):
    OK = 0
    USAGE = 2
    UNAVAILABLE = 3
    DEADLINE = 4
    SERVER = 5
    INTERRUPTED = 130


_CODES: tuple[tuple[type[HalimedeError], Exit], ...] = (
    (InvalidArgument, Exit.USAGE),
    (NotFound, Exit.USAGE),
    (PermissionDenied, Exit.USAGE),
    (Unsupported, Exit.USAGE),
    (Unavailable, Exit.UNAVAILABLE),
    (TransportError, Exit.UNAVAILABLE),
    (DeadlineExceeded, Exit.DEADLINE),
)

_HINTS: tuple[tuple[type[HalimedeError], str], ...] = (
    (
        TlsFailed,
        "--tls-ca names whom to trust, --tls-certificate and --tls-key what a server that asks is shown",
    ),
    (ConnectionFailed, "start one with `make serve`, or give its address in --url or HALIMEDE_URL"),
    (ConnectionLost, "the server has gone, as its log says, or wants a certificate: --tls-certificate"),
    (Unavailable, "it is busy or still loading: try again, or see `halimede health`"),
    (NotFound, "`halimede models` lists what it serves: choose with --model or HALIMEDE_MODEL"),
    (
        PermissionDenied,
        "name a file with the key in --api-key-file or HALIMEDE_API_KEY_FILE, its header in --api-key-header",
    ),
    (DeadlineExceeded, "give it longer with --timeout, or ask for less with --max-tokens"),
    (ProtocolError, "this may be no Halimede model: `halimede models` lists what is served"),
)

_HINTS_BY_FIELD: dict[tuple[str, str | None], str] = {
    ("UNAVAILABLE", "model"): "`halimede models` tells which are loaded, `halimede load NAME` loads one",
    ("UNSUPPORTED", "model"): "`halimede models` tells the task of each: choose with --model",
}


def exit_code(error: HalimedeError) -> Exit:
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.SERVER)


def hint(error: HalimedeError) -> str | None:
    if isinstance(error, ServerError) and (error.code, error.field) in _HINTS_BY_FIELD:
        return _HINTS_BY_FIELD[error.code, error.field]
    return next((text for kind, text in _HINTS if isinstance(error, kind)), None)


def as_json(error: HalimedeError) -> dict[str, object]:
    told: dict[str, object] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ServerError):
        told |= {"code": error.code, "field": error.field}
        told |= {"value": error.value, "limit": error.limit}
    return {"error": told}
