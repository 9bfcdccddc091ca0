# Generated from halimede/_async by client/unasync.py: change the source and run it again.
"""The interface between the client and the network; a test replaces it by halimede.testing.FakeTransport."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Protocol

from halimede.api_key import ApiKey, checked_headers
from halimede.errors import InvalidArgument
from halimede.results import Chunk, Health, ModelCard, ModelInfo
from halimede.target import Target
from halimede.timeouts import checked_keepalive
from halimede.tls import Tls
from halimede.wire.request import GenerateRequest

__all__ = ["Transport", "connect"]


class Transport(Protocol):
    """A connection to one server, made by the first call. Its methods raise no error but HalimedeError.

    `generate` sends one request and yields its chunks with heartbeats; closing it before the end cancels
    the request on the server. `index` returns what `models` does, without the fields of the models'
    configs. `load` returns when that one model is ready, or raises the reason; `unload` returns before
    the model is unloaded.
    """

    def generate(self, request: GenerateRequest) -> Generator[Chunk, None]: ...

    def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]: ...

    def models(self, timeout_s: float | None) -> tuple[ModelInfo, ...]: ...

    def card(self, model: str, timeout_s: float | None) -> ModelCard: ...

    def load(self, model: str, timeout_s: float | None) -> None: ...

    def unload(self, model: str, timeout_s: float | None) -> None: ...

    def health(self, model: str, timeout_s: float | None) -> Health: ...

    def metrics(self, timeout_s: float | None) -> str: ...

    def close(self) -> None: ...


def connect(
    target: Target,
    headers: Mapping[str, str],
    metrics_url: str | None,
    tls: Tls | None,
    api_key: ApiKey | None,
    keepalive_s: float,
) -> Transport:
    """The transport for the scheme of the target. Only that one imports its library, grpc or httpx."""
    metrics_url = metrics_url or target.metrics_url
    checked_keepalive(keepalive_s)
    headers = checked_headers(headers) | (api_key.headers(target) if api_key else {})
    if tls and not target.is_secure:
        raise InvalidArgument.of("url", target, "must start with grpcs:// or https:// for TLS")
    if target.is_grpc:
        from halimede._sync.grpc import GrpcTransport  # noqa: PLC0415

        return GrpcTransport(target, headers, metrics_url, tls, keepalive_s)
    from halimede._sync.http import HttpTransport  # noqa: PLC0415

    return HttpTransport(target, headers, metrics_url, tls, keepalive_s)
