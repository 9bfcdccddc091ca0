"""gRPC's status as our errors, and the channel settings that our retries rest upon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from halimede.errors import ConnectionFailed, ConnectionLost, HalimedeError, Internal, TlsFailed
from halimede.target import Target
from halimede.timeouts import CONNECT_S, KEEPALIVE_S, milliseconds
from halimede.wire.faults import server_error
from halimede.wire.proto import STATUS_CODES

__all__ = ["CHANNEL_OPTIONS", "channel_options", "raises_our_errors"]


def channel_options(keepalive_s: float) -> tuple[tuple[str, int | str], ...]:
    """Of a channel that pings where a request has been quiet for so long, and breaks where no answer to that
    comes in as much time again. A tritonserver allows three such pings and ends the connection at the fourth,
    unless its flags allow more, as those of server/launch.py do.
    """
    return (
        # A name with several addresses, as a headless Service has, means several servers, asked in turn.
        ("grpc.lb_policy_name", "round_robin"),
        # Own subchannels: else every client of the process shares a connection and its backoff. The
        # reconnect backoff starts below ours, or a retry would only get the last failure again.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.min_reconnect_backoff_ms", milliseconds(CONNECT_S)),  # the time a connect may take
        ("grpc.keepalive_time_ms", milliseconds(keepalive_s)),
        ("grpc.keepalive_timeout_ms", milliseconds(keepalive_s)),
        ("grpc.http2.ping_timeout_ms", milliseconds(keepalive_s)),  # a minute else, in spite of the above
        ("grpc.http2.max_pings_without_data", 0),  # no limit: a quiet request sends nothing else
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    )


CHANNEL_OPTIONS = channel_options(KEEPALIVE_S)

_NEVER_CONNECTED = ("failed to connect", "backends failing", "errors resolving", "dns resolution")
# How a connection ends that was never one of gRPC: nobody speaks it there, or nobody speaks it with us.
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
            return _not_grpc(target)
        if any(phrase in text for phrase in _TLS):
            return TlsFailed(f"TLS with {target.address} failed: {_reason(details)}")
        return ConnectionFailed(f"no server at {target.address}: {_reason(details)}")
    if "too many pings" in text:
        details = "the server allows fewer pings: take a longer keepalive, or start it with server/launch.py"
    if any(phrase in text for phrase in _BROKEN):
        return ConnectionLost(f"connection to {target.address} lost: {details}")
    return None


def _not_grpc(target: Target) -> ConnectionFailed:
    address = target.address
    if target.is_secure:
        problem = "it wants a certificate of the client, or has no TLS"
        return TlsFailed(f"TLS with {address} failed: {problem}")
    problem = f"it does not speak gRPC in plain: say http://{address} for HTTP, grpcs://{address} for TLS"
    return ConnectionFailed(f"no server at {address}: {problem}")


def _reason(details: str) -> str:
    """The last of the causes that gRPC strings together."""
    return details.removesuffix(": OK").rsplit(": ", 1)[-1].rstrip("]")
