"""gRPC's status as our errors, and the channel settings that our retries rest upon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from halimede.errors import ConnectionFailed, ConnectionLost, HalimedeError, Internal
from halimede.target import Target
from halimede.timeouts import CONNECT_S
from halimede.wire.faults import server_error
from halimede.wire.proto import STATUS_CODES

__all__ = ["CHANNEL_OPTIONS", "raises_our_errors"]

# Own subchannels: else every client of the process shares a connection and its backoff. The
# reconnect backoff starts below ours, or a retry would only be told of the last failure again.
CHANNEL_OPTIONS = (
    # A name with several addresses, as a headless Service has, means several servers: each is asked in turn.
    ("grpc.lb_policy_name", "round_robin"),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),  # the time a connect may take
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

_NEVER_CONNECTED = ("failed to connect", "backends failing", "errors resolving", "dns resolution")
_NOT_GRPC = ("socket closed", "http1.x", "failed parsing http/2")
_BROKEN = (
    "socket closed",
    "connection reset",
    "broken pipe",
    "goaway",
    "transport closed",
    "endpoint closing",
    "stream removed",
    "connection dropped",
    "ping timeout",
)
# What a proxy leaves of a stream whose server died: the stream is reset, the connection to the proxy lives.
_RESET = "rst_stream"


@contextmanager
def raises_our_errors(target: Target) -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise _our_error(error, target) from error


def _our_error(error: Any, target: Target) -> HalimedeError:
    status: str = error.code().name
    details: str = error.details() or ""
    if status == "UNAVAILABLE":
        lost = _transport_error(details, target)
        if lost is not None:
            return lost
    if status in {"INTERNAL", "UNKNOWN"} and _RESET in details.lower():
        return ConnectionLost(f"connection to {target.address} lost: {details}")
    if status == "UNKNOWN":
        return Internal(details)
    return server_error(details or status, STATUS_CODES.get(status, status))


def _transport_error(details: str, target: Target) -> HalimedeError | None:
    text = details.lower()
    if any(phrase in text for phrase in _NEVER_CONNECTED):
        if any(phrase in text for phrase in _NOT_GRPC):
            details = f"it does not speak gRPC; if that is the HTTP port, say http://{target.address}"
            return ConnectionFailed(f"no server at {target.address}: {details}")
        return ConnectionFailed(f"no server at {target.address}: {_reason(details)}")
    if any(phrase in text for phrase in _BROKEN):
        return ConnectionLost(f"connection to {target.address} lost: {details}")
    return None


def _reason(details: str) -> str:
    """The last of the causes that gRPC strings together."""
    return details.rsplit(": ", 1)[-1].rstrip("]")
