"""Classes of errors, as a Record names them. The server's own are its codes: UNAVAILABLE, INVALID_ARG, ..."""

from __future__ import annotations

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    HalimedeError,
    InvalidArgument,
    ProtocolError,
    ServerError,
)

CONNECTION = "connection"  # nobody answered at the address
CONNECTION_LOST = "connection_lost"  # it broke before the answer was whole
PROTOCOL = "protocol"  # the answer is not in the wire format
TIMEOUT = "timeout"  # we waited for the request's timeout, and a moment for the server to say so
INCOMPLETE = "incomplete"  # the stream ended without a finish reason
UNFINISHED = "unfinished"  # still open when the drain ended
INTERRUPTED = "interrupted"  # still open when the run was cut off
NOT_SENT = "not_sent"  # as many requests were in flight as the generator may have
WORKER_LOST = "worker_lost"  # the worker that was to send it died

# A bad request is refused by this class; any other error of it is a fault.
REFUSED = InvalidArgument.CODE


def error_class(error: HalimedeError) -> str:
    match error:
        case ServerError():
            return error.code
        case ConnectionFailed():
            return CONNECTION
        case ConnectionLost():
            return CONNECTION_LOST
        case ProtocolError():
            return PROTOCOL
    return CONNECTION_LOST
