"""Every error that the client raises, as one tree.

HalimedeError
├── TransportError          the network failed before the answer was whole
│   ├── ConnectionFailed    no server answers at that address
│   │   └── TlsFailed       a server does, but TLS failed: a certificate is refused or missing
│   └── ConnectionLost      the connection broke during the request
├── ServerError             the server answered with an error: code, field, value, limit
│   ├── InvalidArgument     a field of the request is wrong (the client may find that before it sends)
│   ├── NotFound            the server has no such model
│   ├── PermissionDenied    the API key is missing or wrong
│   ├── Unsupported         this model or server cannot do that
│   ├── Unavailable         the queue is full or the model is not ready
│   ├── DeadlineExceeded    the timeout ended the request (in the client if the server did not)
│   ├── Cancelled           the server cancelled the request
│   └── Internal            the server failed
└── ProtocolError           the answer is not in the wire format

`retryable` says that the same request may succeed a moment later: the client repeats it unless a token
has arrived. Exceptions of grpc, httpx or json never leak: each is the `__cause__` of one of these.

Four modules make errors of what others report: `wire.faults` of the server's text, `wire.rest` of an HTTP
status, `grpc_faults` of a gRPC status, and `http_faults` of an exception of httpx. `cli.exits` maps each
error to an exit code and to advice.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "Cancelled",
    "ConnectionFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "HalimedeError",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "PermissionDenied",
    "ProtocolError",
    "ServerError",
    "TlsFailed",
    "TransportError",
    "Unavailable",
    "Unsupported",
]


class HalimedeError(Exception):
    retryable: ClassVar[bool] = False


class TransportError(HalimedeError):
    retryable = True


class ConnectionFailed(TransportError):
    pass


class TlsFailed(ConnectionFailed):
    pass


class ConnectionLost(TransportError):
    pass


class ProtocolError(HalimedeError):
    pass


class ServerError(HalimedeError):
    """An error of the form `CODE: field: value, limit`. A part that the server did not send is None.

    `str(error)` is the server's text without the prefixes that an ensemble adds.
    """

    CODE: ClassVar[str] = "UNKNOWN"

    def __init__(
        self,
        message: str,
        code: str | None = None,
        field: str | None = None,
        value: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(message, code, field, value, limit)  # as args, so that it pickles
        self.message = message
        self.code = code or self.CODE
        self.field = field
        self.value = value
        self.limit = limit

    @classmethod
    def of(cls, field: str, value: object, limit: str) -> Self:
        return cls(f"{cls.CODE}: {field}: {value}, {limit}", cls.CODE, field, str(value), limit)

    def __str__(self) -> str:
        return self.message


class InvalidArgument(ServerError):
    CODE = "INVALID_ARG"


class NotFound(ServerError):
    CODE = "NOT_FOUND"


class PermissionDenied(ServerError):
    CODE = "PERMISSION_DENIED"


class Unsupported(ServerError):
    CODE = "UNSUPPORTED"


class Unavailable(ServerError):
    CODE = "UNAVAILABLE"
    retryable = True


class DeadlineExceeded(ServerError):
    CODE = "DEADLINE_EXCEEDED"


class Cancelled(ServerError):
    CODE = "CANCELLED"


class Internal(ServerError):
    CODE = "INTERNAL"
