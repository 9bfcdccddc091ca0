"""httpx's exceptions as our errors, and its settings."""

from __future__ import annotations

import errno
import math
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import httpx

from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    ProtocolError,
    TlsFailed,
    TransportError,
)
from halimede.target import Target
from halimede.timeouts import CONNECT_S, milliseconds, with_grace
from halimede.tls import Tls

__all__ = ["LIMITS", "proxy_of", "raises_our_errors", "socket_options", "timeouts", "verified_by"]

LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=20)
_PROBES = 5
_MOST_S = 32767  # that Linux takes


def timeouts(timeout_s: float | None) -> httpx.Timeout:
    return httpx.Timeout(with_grace(timeout_s), connect=CONNECT_S)


def verified_by(tls: Tls | None) -> ssl.SSLContext | bool:
    return tls.context() if tls else True


def proxy_of(target: Target) -> str | None:
    """What the environment names for that server, as httpx itself does where it makes the connections."""
    if proxy_bypass(target.address):
        return None
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def socket_options(keepalive_s: float) -> list[tuple[int, int, int]]:
    """HTTP/1 has no ping, so TCP probes the other side after so much silence, and the connection breaks where
    nothing comes back in as much time again. A server's system answers, however slow the server is. Systems
    have these options by different names, or lack some.
    """
    if math.isinf(keepalive_s):
        return []
    silence_s = min(max(1, round(keepalive_s)), _MOST_S)
    values = {
        "TCP_KEEPIDLE": silence_s,
        "TCP_KEEPALIVE": silence_s,  # macOS
        "TCP_KEEPINTVL": max(1, silence_s // _PROBES),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": milliseconds(2 * silence_s),  # Linux: what was sent and is not acknowledged
    }
    found = [(getattr(socket, name), value) for name, value in values.items() if hasattr(socket, name)]
    options = [(socket.IPPROTO_TCP, option, value) for option, value in found]
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *options]


@contextmanager
def raises_our_errors(address: str) -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, ssl.SSLError) as error:
        raise _our_error(error, address) from error


def _our_error(error: Exception, address: str) -> HalimedeError:
    told = next((str(cause) for cause in _causes(error) if str(cause)), type(error).__name__)
    tls = next((str(cause) for cause in _causes(error) if isinstance(cause, ssl.SSLError)), "")
    if tls and ("ALERT" in tls or isinstance(error, httpx.ConnectError | ssl.SSLError)):
        return TlsFailed(f"TLS with {address} failed: {tls}")
    if told.startswith("illegal request line"):  # what gRPC sends first
        told = f"it does not speak HTTP; if that is the gRPC port, say grpc://{address}"
        error = httpx.ConnectError(told)
    if isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout) and any(map(_is_unanswered, _causes(error))):
        told = "nothing comes from there any more"
        error = httpx.ReadError(told)
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


def _is_unanswered(error: BaseException) -> bool:
    """The system gave the connection up; a timeout of httpx's own has no number."""
    return isinstance(error, OSError) and error.errno == errno.ETIMEDOUT


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what is behind it, which httpcore has as an argument. What it only came after is not:
    that may be the caller's.
    """
    while error is not None:
        yield error
        error = error.__cause__ or next((one for one in error.args if isinstance(one, Exception)), None)
