"""The interface between the client and the network; a test replaces it by halimede.testing.FakeTransport."""

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
    """A connection to one server, made by the first call. Its methods raise no error but HalimedeError.

    `agenerate` sends one request and yields its chunks with heartbeats; closing it before the end cancels
    the request on the server. `aindex` returns what `amodels` does, without the fields of the models'
    configs. `aload` returns when that one model is ready, or raises the reason; `aunload` returns before
    the model is unloaded.
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
    """The transport for the scheme of the target. Only that one imports its library, grpc or httpx."""
    metrics_url = metrics_url or target.metrics_url
    checked_keepalive(keepalive_s)
    headers = checked_headers(headers) | (api_key.headers(target) if api_key else {})
    if tls and not target.is_secure:
        raise InvalidArgument.of("url", target, "must start with grpcs:// or https:// for TLS")
    if target.is_grpc:
        from halimede._async.grpc import AsyncGrpcTransport  # noqa: PLC0415

        return AsyncGrpcTransport(target, headers, metrics_url, tls, keepalive_s)
    from halimede._async.http import AsyncHttpTransport  # noqa: PLC0415

    return AsyncHttpTransport(target, headers, metrics_url, tls, keepalive_s)
