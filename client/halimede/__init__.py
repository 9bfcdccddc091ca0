"""The Python client of Halimede: it sends text to a Triton ensemble and streams the answer back.

    from halimede import Client

    with Client("localhost:8001") as client:
        for chunk in client.stream("The capital of France is", max_tokens=16):
            print(chunk.text, end="", flush=True)

`AsyncClient` has the same methods as coroutines. `halimede.errors` lists all errors,
`halimede.testing` has fakes for tests, and `halimede.wire` is the wire format.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from halimede.api_key import ApiKey
from halimede.errors import (
    Cancelled,
    ConnectionFailed,
    ConnectionLost,
    DeadlineExceeded,
    HalimedeError,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ProtocolError,
    ServerError,
    TlsFailed,
    TransportError,
    Unavailable,
    Unsupported,
)
from halimede.results import (
    Alternative,
    Chunk,
    Generation,
    Health,
    Metrics,
    ModelCard,
    ModelInfo,
    Sample,
    Timing,
    TokenLogprob,
)
from halimede.sampling import Message, Sampling
from halimede.timeouts import RetryPolicy
from halimede.tls import Tls

if TYPE_CHECKING:
    from halimede._async.client import AsyncClient
    from halimede._async.stream import AsyncStream
    from halimede._async.transport import AsyncTransport
    from halimede._sync.client import Client
    from halimede._sync.stream import Stream
    from halimede._sync.transport import Transport

__all__ = [
    "Alternative",
    "ApiKey",
    "AsyncClient",
    "AsyncStream",
    "AsyncTransport",
    "Cancelled",
    "Chunk",
    "Client",
    "ConnectionFailed",
    "ConnectionLost",
    "DeadlineExceeded",
    "Generation",
    "HalimedeError",
    "Health",
    "Internal",
    "InvalidArgument",
    "Message",
    "Metrics",
    "ModelCard",
    "ModelInfo",
    "NotFound",
    "PermissionDenied",
    "ProtocolError",
    "RetryPolicy",
    "Sample",
    "Sampling",
    "ServerError",
    "Stream",
    "Timing",
    "Tls",
    "TlsFailed",
    "TokenLogprob",
    "Transport",
    "TransportError",
    "Unavailable",
    "Unsupported",
]

_LAZY = {  # importing asyncio alone doubles the time of this import
    "AsyncClient": "halimede._async.client",
    "AsyncStream": "halimede._async.stream",
    "AsyncTransport": "halimede._async.transport",
    "Client": "halimede._sync.client",
    "Stream": "halimede._sync.stream",
    "Transport": "halimede._sync.transport",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
