"""The servers of the end-to-end tests.

With HALIMEDE_URL (host:port of gRPC) the contract tests run against that server and start none; its HTTP is
at HALIMEDE_HTTP_URL, by default one port below, and its model is HALIMEDE_MODEL.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.live.artifacts import CACHE, MODEL, built, instances, variant
from tests.live.serving import LOG_TAIL, Pool, Server
from tests.live.wire import Address, Wire
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

# The small server: few slots and a short queue, so that a test can fill them, and so much context that an
# answer which fills it is still on its way when a test has looked at all it wants.
SLOTS, QUEUE, CONTEXT = 2, 2, 2048
SMALL = {"slots": f"{SLOTS}", "max_queue": f"{QUEUE}", "max_context": f"{CONTEXT}", "heartbeat_ms": "100"}
# Two instances of a small engine each.
INSTANCES, TWIN_SLOTS = 2, 4
TWIN = SMALL | {"slots": f"{TWIN_SLOTS}", "max_queue": "8", "threads": "1"}

_pools: list[Pool] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows the end of the log of every server that runs."""
    report = yield
    if report.failed:
        for pool in _pools:
            for name, server in pool.running.items():
                report.sections.append((f"log of server {name}", server.output[-LOG_TAIL:]))
    return report


@pytest.fixture(scope="session")
def workshop() -> Iterator[Path]:
    """A folder on the file system of the engines, which are linked from there."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def pool(workshop: Path) -> Iterator[Pool]:
    def server(precision: str) -> Callable[[], Server]:
        return lambda: Server(built(precision), workshop / f"{precision}.log")

    def small() -> Server:
        repository = workshop / "small"
        if not repository.exists():
            variant(built("int8"), repository, SMALL)
        return Server(repository, workshop / "small.log")

    def twins() -> Server:
        repository = workshop / "twins"
        if not repository.exists():
            instances(variant(built("int8"), repository, TWIN), INSTANCES)
        return Server(repository, workshop / "twins.log")

    factories = {"int8": server("int8"), "fp32": server("fp32"), "small": small, "twins": twins}
    servers = Pool(factories)
    _pools.append(servers)
    yield servers
    _pools.remove(servers)
    servers.close()


@pytest.fixture
def int8(pool: Pool) -> Server:
    """Default settings, the default precision."""
    return pool.get("int8")


@pytest.fixture
def fp32(pool: Pool) -> Server:
    return pool.get("fp32")


@pytest.fixture
def small(pool: Pool) -> Server:
    return pool.get("small")


@pytest.fixture
def twins(pool: Pool) -> Server:
    """Two instances of the engine."""
    return pool.get("twins")


@pytest.fixture
def target(request: pytest.FixtureRequest) -> Address:
    """The server of the contract tests: the one that HALIMEDE_URL names, else our own."""
    url = os.environ.get("HALIMEDE_URL")
    if not url:
        server: Server = request.getfixturevalue("int8")
        return server.address
    host, _, port = url.rpartition("://")[2].rpartition(":")
    web = os.environ.get("HALIMEDE_HTTP_URL", f"{host}:{int(port) - 1}").rpartition("://")[2]
    return Address(web, f"{host}:{port}", model=os.environ.get("HALIMEDE_MODEL", MODEL))


@pytest.fixture
def http_wire(target: Address) -> HttpWire:
    return HttpWire(target)


@pytest.fixture
def grpc_wire(target: Address) -> Iterator[GrpcWire]:
    with GrpcWire(target) as wire:
        yield wire


@pytest.fixture(params=["http", "grpc"])
def wire(request: pytest.FixtureRequest) -> Wire:
    """Both protocols, one after the other."""
    found: Wire = request.getfixturevalue(f"{request.param}_wire")
    return found
