from __future__ import annotations

from collections.abc import Callable

import pytest

from halimede.testing import FakeGrpcServer, FakeHttpServer


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=[FakeGrpcServer, FakeHttpServer], ids=["grpc", "http"])
def serve(request: pytest.FixtureRequest) -> Callable[..., FakeGrpcServer | FakeHttpServer]:
    kind: Callable[..., FakeGrpcServer | FakeHttpServer] = request.param
    return kind
