"""Everything the client raises, as one tree.

HalimedeError
├── TransportError          the network failed; the server has not answered
│   ├── ConnectionFailed    nobody answers at that address
│   │   └── TlsFailed       somebody does, but one side does not take the other's certificate
│   └── ConnectionLost      the connection broke before the answer was whole
├── ServerError             the request was answered with an error: code, field, value, limit
│   ├── InvalidArgument     a field of the request is wrong (also raised before sending it)
│   ├── NotFound            no such model
│   ├── PermissionDenied    the server asks for a key that was not given, or is another
│   ├── Unsupported         this model or server cannot do that
│   ├── Unavailable         the queue is full or the model is not ready
│   ├── DeadlineExceeded    the timeout ended the request (also when the server did not in time)
│   ├── Cancelled           the server cancelled the request
│   └── Internal            a fault of the server
└── ProtocolError           the answer is not in the wire format

Exceptions of grpc, httpx or json never leak: they are the `__cause__` of one of these.
`retryable` says that the same request may succeed a moment later, so a client that has not yet
received a token tries again.
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
    """An error in the form `CODE: field: value, limit`; parts that are not told are None.

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
