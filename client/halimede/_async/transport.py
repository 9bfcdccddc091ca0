"""What carries a request to a server: the one seam of the client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from halimede.api_key import ApiKey, checked_headers
from halimede.errors import InvalidArgument
from halimede.results import Chunk, Health, ModelCard, ModelInfo
from halimede.target import Target
from halimede.timeouts import checked_keepalive
from halimede.tls import Tls
from halimede.wire.request import GenerateRequest

__all__ = ["AsyncTransport", "connect"]


class AsyncTransport(Protocol):
    """Raises HalimedeError alone. Nothing is connected before the first call.

    `agenerate` sends one request and yields its chunks, heartbeats included; closing it before its
    end cancels the request on the server. `aindex` is `amodels` without what their configs tell. `aload`
    returns when that one model is ready, or raises with the reason; `aunload` returns before it is gone.
    """

    def agenerate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]: ...

    async def aindex(self, timeout_s: float | None) -> tuple[ModelInfo, ...]: ...

    async def amodels(self, timeout_s: float | None) -> tuple[ModelInfo, ...]: ...

    async def acard(self, model: str, timeout_s: float | None) -> ModelCard: ...

    async def aload(self, model: str, timeout_s: float | None) -> None: ...

    async def aunload(self, model: str, timeout_s: float | None) -> None: ...

    async def ahealth(self, model: str, timeout_s: float | None) -> Health: ...

    async def ametrics(self, timeout_s: float | None) -> str: ...

    async def aclose(self) -> None: ...


def connect(
    target: Target,
    headers: Mapping[str, str],
    metrics_url: str | None,
    tls: Tls | None,
    api_key: ApiKey | None,
    keepalive_s: float,
) -> AsyncTransport:
    """The transport for that scheme; grpc and httpx are imported only where they are needed."""
    metrics_url = metrics_url or target.metrics_url
    checked_keepalive(keepalive_s)
    headers = checked_headers(headers) | (api_key.headers(target) if api_key else {})
    if tls and not target.is_secure:
        raise InvalidArgument.of("url", target, "must begin with grpcs:// or https:// for TLS")
    if target.is_grpc:
        from halimede._async.grpc import AsyncGrpcTransport  # noqa: PLC0415

        return AsyncGrpcTransport(target, headers, metrics_url, tls, keepalive_s)
    from halimede._async.http import AsyncHttpTransport  # noqa: PLC0415

    return AsyncHttpTransport(target, headers, metrics_url, tls, keepalive_s)
