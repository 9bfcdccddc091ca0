"""httpx's exceptions as our errors, and its settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    ProtocolError,
    TransportError,
)
from halimede.timeouts import CONNECT_S, with_grace

__all__ = ["LIMITS", "raises_our_errors", "timeouts"]

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)


def timeouts(timeout_s: float | None) -> httpx.Timeout:
    return httpx.Timeout(with_grace(timeout_s), connect=CONNECT_S)


@contextmanager
def raises_our_errors(address: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
        raise _our_error(error, address) from error


def _our_error(error: Exception, address: str) -> HalimedeError:
    told = str(error) or type(error).__name__
    if told.startswith("illegal request line"):  # what gRPC sends first
        told = f"it does not speak HTTP; if that is the gRPC port, say grpc://{address}"
        error = httpx.ConnectError(told)
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.InvalidURL():
            return ConnectionFailed(f"no server at {address}: {told}")
        case httpx.TimeoutException():
            return DeadlineExceeded.of("timeout", address, "did not answer in time")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return ConnectionLost(f"connection to {address} lost: {told}")
        case httpx.DecodingError():
            return ProtocolError(f"answer of {address}: {told}")
        case _:
            return TransportError(f"{address}: {told}")
