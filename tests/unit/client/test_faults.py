"""Exceptions of grpc and httpx as our errors."""

from __future__ import annotations

import errno
import ssl

import grpc
import httpx
import pytest

from halimede import grpc_faults, http_faults
from halimede.errors import (
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    NotFound,
    ProtocolError,
    ServerError,
    TlsFailed,
    TransportError,
    Unavailable,
    Unsupported,
)
from halimede.target import parse_target

TARGET = parse_target("localhost:8001")
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused"


class Failed(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str | None) -> None:
        self._code = code
        self._details = details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str | None:
        return self._details


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        ("UNAVAILABLE", REFUSED, ConnectionFailed),
        ("UNAVAILABLE", "Socket closed", ConnectionLost),
        ("UNAVAILABLE", "recvmsg:Connection reset by peer", ConnectionLost),
        ("INTERNAL", "Stream removed (RST_STREAM (Received RST_STREAM with error code 2))", ConnectionLost),
        ("UNAVAILABLE", "in ensemble 'a', UNAVAILABLE: queue: 64 waiting, limit 64", Unavailable),
        ("UNAVAILABLE", "", Unavailable),
        ("INVALID_ARGUMENT", "in ensemble 'a', INVALID_ARG: top_p: 2, must be in (0, 1]", InvalidArgument),
        ("CANCELLED", "DEADLINE_EXCEEDED: timeout: 1 us, has passed", DeadlineExceeded),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded),
        ("NOT_FOUND", "no such model", NotFound),
        ("UNIMPLEMENTED", "ModelInfer is not for decoupled models", Unsupported),
        ("UNKNOWN", None, Internal),
        ("INTERNAL", "in ensemble 'a', INTERNAL: the engine is broken", Internal),
        ("RESOURCE_EXHAUSTED", "message too large", ServerError),
    ],
)
def test_grpc(code: str, details: str | None, kind: type[HalimedeError]) -> None:
    error = Failed(grpc.StatusCode[code], details)
    with pytest.raises(kind) as caught, grpc_faults.raises_our_errors(TARGET):
        raise error
    assert type(caught.value) is kind
    assert caught.value.__cause__ is error


# Texts of grpcio 1.85.
UNTRUSTED = (
    "Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"
    "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: self signed certificate: OK"
)
ANOTHER_NAME = (
    "Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed."
)
NO_TLS = UNTRUSTED.replace("CERTIFICATE_VERIFY_FAILED: self signed certificate", "WRONG_VERSION_NUMBER")
WANTED = "it requires a client certificate or does not use TLS"
IN_PLAIN = "it does not speak plain gRPC: use http://x:1 for HTTP, grpcs://x:1 for TLS"


@pytest.mark.parametrize(
    ("url", "details", "message"),
    [
        ("grpcs://x:1", UNTRUSTED, "TLS with x:1 failed: self signed certificate"),
        ("grpcs://x:1", ANOTHER_NAME, "TLS with x:1 failed: Hostname Verification Check failed."),
        ("grpcs://x:1", NO_TLS, f"TLS with x:1 failed: {WANTED}"),
        ("grpcs://x:1", "Socket closed", f"TLS with x:1 failed: {WANTED}"),
        ("grpcs://x:1", "Unwrap failed (TSI_DATA_CORRUPTED)", f"TLS with x:1 failed: {WANTED}"),
        ("x:1", "Socket closed", f"no server at x:1: {IN_PLAIN}"),
    ],
)
def test_the_reason_for_a_failed_connection(url: str, details: str, message: str) -> None:
    error = Failed(grpc.StatusCode.UNAVAILABLE, REFUSED.replace("Connection refused", details))
    with pytest.raises(ConnectionFailed) as caught, grpc_faults.raises_our_errors(parse_target(url)):
        raise error
    assert (str(caught.value), type(caught.value) is TlsFailed) == (message, url.startswith("grpcs"))


@pytest.mark.parametrize(
    ("error", "reason", "kind"),
    [
        (httpx.ConnectError, "CERTIFICATE_VERIFY_FAILED", TlsFailed),
        (httpx.ReadError, "TLSV13_ALERT_CERTIFICATE_REQUIRED", TlsFailed),
        (httpx.ReadError, "UNEXPECTED_EOF_WHILE_READING", ConnectionLost),  # it broke later
    ],
)
def test_an_error_of_openssl_is_found_behind_one_of_asyncio(
    error: type[httpx.TransportError], reason: str, kind: type[HalimedeError]
) -> None:
    raised = error("")
    raised.__cause__ = ssl.SSLError(1, f"[SSL: {reason}] no")
    with pytest.raises(kind) as caught, http_faults.raises_our_errors("x:1"):
        raise raised
    assert type(caught.value) is kind
    assert reason in str(caught.value) or kind is ConnectionLost


def test_a_timeout_of_the_kernel_is_a_lost_connection() -> None:
    """httpx reports both as a timeout, because Python raises TimeoutError for the kernel's error too."""
    gone = httpx.ReadTimeout("")
    gone.__cause__ = OSError(errno.ETIMEDOUT, "Connection timed out")
    assert isinstance(gone.__cause__, TimeoutError)
    with pytest.raises(ConnectionLost), http_faults.raises_our_errors("x:1"):
        raise gone
    slow = httpx.ReadTimeout("")
    slow.__cause__ = TimeoutError("timed out")
    with pytest.raises(DeadlineExceeded), http_faults.raises_our_errors("x:1"):
        raise slow


def test_a_grpc_error_shows_the_last_of_its_causes() -> None:
    with (
        pytest.raises(ConnectionFailed, match=r"^no server at localhost:8001: Connection refused$"),
        grpc_faults.raises_our_errors(TARGET),
    ):
        raise Failed(grpc.StatusCode.UNAVAILABLE, REFUSED)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (httpx.ConnectError("refused"), ConnectionFailed),
        (httpx.ConnectTimeout("slow"), ConnectionFailed),
        (httpx.InvalidURL("no"), ConnectionFailed),
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.PoolTimeout("full"), DeadlineExceeded),
        (httpx.ReadError(""), ConnectionLost),
        (httpx.RemoteProtocolError("peer closed connection"), ConnectionLost),
        (httpx.DecodingError("not gzip"), ProtocolError),
        (httpx.TooManyRedirects("loop"), TransportError),
        (httpx.StreamConsumed(), TransportError),
    ],
    ids=lambda value: type(value).__name__,
)
def test_httpx(error: Exception, kind: type[HalimedeError]) -> None:
    with pytest.raises(kind) as caught, http_faults.raises_our_errors("localhost:8000"):
        raise error
    assert type(caught.value) is kind
    assert "localhost:8000" in str(caught.value)
