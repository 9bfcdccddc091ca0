"""httpx for both clients: its settings, and its exceptions as our errors."""

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
_MOST_S = 32767  # the limit of Linux


def timeouts(timeout_s: float | None) -> httpx.Timeout:
    return httpx.Timeout(with_grace(timeout_s), connect=CONNECT_S)


def verified_by(tls: Tls | None) -> ssl.SSLContext | bool:
    return tls.context() if tls else True


def proxy_of(target: Target) -> str | None:
    """The proxy that the environment names for the server. httpx ignores it when given a transport."""
    if proxy_bypass(target.address):
        return None
    proxies = getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def socket_options(keepalive_s: float) -> list[tuple[int, int, int]]:
    """Socket options with which TCP probes the server after `keepalive_s` seconds of silence. The connection
    breaks if no answer comes within as many seconds again.

    HTTP/1 has no ping of its own. The server's kernel answers a probe, so a slow server is not cut off.
    Operating systems name these options differently, or lack some of them.
    """
    if math.isinf(keepalive_s):
        return []
    silence_s = min(max(1, round(keepalive_s)), _MOST_S)
    values = {
        "TCP_KEEPIDLE": silence_s,
        "TCP_KEEPALIVE": silence_s,  # macOS
        "TCP_KEEPINTVL": max(1, silence_s // _PROBES),
        "TCP_KEEPCNT": _PROBES,
        "TCP_USER_TIMEOUT": milliseconds(2 * silence_s),  # Linux: for data that is not acknowledged
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
    causes = list(_causes(error))
    problem = next((str(cause) for cause in causes if str(cause)), type(error).__name__)
    tls = next((str(cause) for cause in causes if isinstance(cause, ssl.SSLError)), "")
    if tls and ("ALERT" in tls or isinstance(error, httpx.ConnectError | ssl.SSLError)):
        return TlsFailed(f"TLS with {address} failed: {tls}")
    if problem.startswith("illegal request line"):  # the first bytes of a gRPC server
        problem = f"it does not speak HTTP; for its gRPC port, use grpc://{address}"
        error = httpx.ConnectError(problem)
    # httpx reports a timeout of the kernel as its own. Only the kernel's has an errno.
    gone = any(isinstance(cause, OSError) and cause.errno == errno.ETIMEDOUT for cause in causes)
    if gone and isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout):
        problem = "the server has stopped answering"
        error = httpx.ReadError(problem)
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout() | httpx.InvalidURL():
            return ConnectionFailed(f"no server at {address}: {problem}")
        case httpx.TimeoutException():
            return DeadlineExceeded.of("timeout", address, "did not answer in time")
        case httpx.NetworkError() | httpx.RemoteProtocolError():
            return ConnectionLost(f"connection to {address} lost: {problem}")
        case httpx.DecodingError():
            return ProtocolError(f"answer of {address}: {problem}")
        case _:
            return TransportError(f"{address}: {problem}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and the errors behind it: its cause, or the argument in which httpcore keeps it.

    `__context__` is left out, because it may be an error of the caller.
    """
    while error is not None:
        yield error
        error = error.__cause__ or next((one for one in error.args if isinstance(one, Exception)), None)
