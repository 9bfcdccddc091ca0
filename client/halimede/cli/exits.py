"""The exit code of each error, and advice to the user."""

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
    (TlsFailed, "set the CA with --tls-ca, the client certificate with --tls-certificate and --tls-key"),
    (ConnectionFailed, "start a server with `make serve`, or set its address with --url or HALIMEDE_URL"),
    (ConnectionLost, "the server stopped (see its log) or requires a client certificate: --tls-certificate"),
    (Unavailable, "the server is busy or still loading: try again, or run `halimede health`"),
    (NotFound, "`halimede models` lists the models: choose one with --model or HALIMEDE_MODEL"),
    (
        PermissionDenied,
        "set the key with --api-key-file or HALIMEDE_API_KEY_FILE, its header with --api-key-header",
    ),
    (DeadlineExceeded, "allow more time with --timeout, or ask for fewer tokens with --max-tokens"),
    (ProtocolError, "the model may not be one of Halimede's: `halimede models` lists the models"),
)

_HINTS_BY_FIELD: dict[tuple[str, str | None], str] = {
    (
        "UNAVAILABLE",
        "model",
    ): "`halimede models` shows which models are loaded, `halimede load NAME` loads one",
    ("UNSUPPORTED", "model"): "`halimede models` shows the task of each model: choose one with --model",
}


def exit_code(error: HalimedeError) -> Exit:
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.SERVER)


def hint(error: HalimedeError) -> str | None:
    if isinstance(error, ServerError) and (error.code, error.field) in _HINTS_BY_FIELD:
        return _HINTS_BY_FIELD[error.code, error.field]
    return next((text for kind, text in _HINTS if isinstance(error, kind)), None)


def as_json(error: HalimedeError) -> dict[str, object]:
    fields: dict[str, object] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, ServerError):
        fields |= {"code": error.code, "field": error.field, "value": error.value, "limit": error.limit}
    return {"error": fields}
