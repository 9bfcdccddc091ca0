"""gRPC for both clients: the options of a channel, and the status of a failed call as one of our errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from halimede.errors import ConnectionFailed, ConnectionLost, HalimedeError, Internal, TlsFailed
from halimede.target import Target
from halimede.timeouts import CONNECT_S, milliseconds
from halimede.wire.faults import server_error

__all__ = ["channel_options", "raises_our_errors"]


def channel_options(keepalive_s: float) -> tuple[tuple[str, int | str], ...]:
    """Options of a channel that pings the server after `keepalive_s` seconds of silence during a request, and
    breaks if no answer comes within as many seconds again.

    By default a tritonserver allows three such pings and closes the connection at the fourth.
    server/launch.py sets it to allow them.
    """
    return (
        # The addresses of one name, such as a headless Service, are several servers: they take turns.
        ("grpc.lb_policy_name", "round_robin"),
        # Without subchannels of its own, a client shares its connection and its backoff with all others of
        # the process. The reconnect backoff starts below ours: otherwise a retry would not connect again, and
        # would get the previous failure.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.min_reconnect_backoff_ms", milliseconds(CONNECT_S)),  # the time a connect may take
        ("grpc.keepalive_time_ms", milliseconds(keepalive_s)),
        ("grpc.keepalive_timeout_ms", milliseconds(keepalive_s)),
        ("grpc.http2.ping_timeout_ms", milliseconds(keepalive_s)),  # else a minute, despite the line above
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a quiet request sends nothing else
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    )


_NEVER_CONNECTED = ("failed to connect", "backends failing", "errors resolving", "dns resolution")
# How a connection fails that never was one of gRPC: the server does not speak it, or refuses the client.
_NOT_GRPC = ("socket closed", "http1.x", "failed parsing http/2", "wrong_version_number", "unwrap failed")
_TLS = ("certificate", "handshake failed", "verification check")
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
    "too many pings",
)
# When a server dies behind a proxy, its stream is reset and the connection to the proxy stays.
_RESET = "rst_stream"

_CODE_OF_STATUS = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "OUT_OF_RANGE": "INVALID_ARG",
    "NOT_FOUND": "NOT_FOUND",
    "PERMISSION_DENIED": "PERMISSION_DENIED",
    "UNAUTHENTICATED": "PERMISSION_DENIED",
    "UNIMPLEMENTED": "UNSUPPORTED",
    "UNAVAILABLE": "UNAVAILABLE",
    "DEADLINE_EXCEEDED": "DEADLINE_EXCEEDED",
    "CANCELLED": "CANCELLED",
    "INTERNAL": "INTERNAL",
}


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
    return server_error(details or status, _CODE_OF_STATUS.get(status, status))


def _transport_error(details: str, target: Target) -> HalimedeError | None:
    text = details.lower()
    if any(phrase in text for phrase in _NEVER_CONNECTED):
        no_server, no_tls = f"no server at {target.address}", f"TLS with {target.address} failed"
        if any(phrase in text for phrase in _NOT_GRPC):
            if target.is_secure:
                return TlsFailed(f"{no_tls}: it requires a client certificate or does not use TLS")
            urls = f"http://{target.address} for HTTP, grpcs://{target.address} for TLS"
            return ConnectionFailed(f"{no_server}: it does not speak plain gRPC: use {urls}")
        reason = details.removesuffix(": OK").rsplit(": ", 1)[-1].rstrip("]")  # the last of the causes
        if any(phrase in text for phrase in _TLS):
            return TlsFailed(f"{no_tls}: {reason}")
        return ConnectionFailed(f"{no_server}: {reason}")
    if "too many pings" in text:
        details = "the server allows fewer pings: use a longer keepalive, or start it with server/launch.py"
    if any(phrase in text for phrase in _BROKEN):
        return ConnectionLost(f"connection to {target.address} lost: {details}")
    return None
