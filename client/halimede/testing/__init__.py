"""Fakes of the network and of the server, for tests without a server.

    from halimede import Client
    from halimede.testing import FakeTransport, answer

    fake = FakeTransport(answer("Hel", "lo"))
    assert Client(transport=fake).generate("Hi").text == "Hello"
    assert fake.requests[0].prompt == "Hi"

`FakeTransport` replaces the network of a Client or an AsyncClient. `FakeGrpcServer` and
`FakeHttpServer` answer on a local port like Triton, for tests that need real bytes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from halimede.testing.script import Event, Step, answer
from halimede.testing.transport import FakeTransport

if TYPE_CHECKING:
    from halimede.testing.grpc_server import FakeGrpcServer
    from halimede.testing.http_server import FakeHttpServer

__all__ = ["Event", "FakeGrpcServer", "FakeHttpServer", "FakeTransport", "Step", "answer"]

_LAZY = {
    "FakeGrpcServer": "halimede.testing.grpc_server",
    "FakeHttpServer": "halimede.testing.http_server",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
