"""What grpc and httpx raise, as our errors."""

from __future__ import annotations

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


def test_grpcs_chain_of_causes_is_told_by_its_last() -> None:
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
