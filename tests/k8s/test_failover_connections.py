"""What idle connections get when a server leaves: those to a balancer, and those to Triton itself."""

from __future__ import annotations

import http.client
import socket
import struct
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.k8s.balancers import Balancer, balancing
from tests.k8s.failover_play import SMALL
from tests.live.artifacts import built, variant
from tests.live.serving import Server, eventually, started

pytestmark = pytest.mark.e2e
SETTINGS, PING, GOAWAY = 4, 6, 7
NO_ERROR = 0


class Idle:
    """An HTTP/2 connection without a stream, as a gRPC client keeps one."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition("/")[2].rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(SETTINGS))
        assert self.frame()[0] == SETTINGS
        self._socket.sendall(_frame(SETTINGS, flags=1))

    def frame(self) -> tuple[int, bytes]:
        """The type and payload of the next frame. Raises EOFError at the end."""
        head = self._read(9)
        return head[3], self._read(int.from_bytes(head[:3]))

    def until(self, wanted: int) -> bytes:
        while True:
            kind, payload = self.frame()
            if kind == wanted:
                return payload

    def ping(self) -> None:
        self._socket.sendall(_frame(PING, b"halimede"))
        assert self.until(PING) == b"halimede"

    def close(self) -> None:
        self._socket.close()

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            received = self._socket.recv(size - len(found))
            if not received:
                raise EOFError
            found += received
        return found


def _frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return len(payload).to_bytes(3) + bytes([kind, flags]) + bytes(4) + payload


def _code(goaway: bytes) -> int:
    return int(struct.unpack(">II", goaway[:8])[1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    repository = variant(built("int8"), tmp_path / "repository", SMALL)
    with started(repository, tmp_path / "server.log") as found:
        yield found.wait_ready()


def test_connections_to_the_balancers(tools: Path, server: Server, tmp_path: Path) -> None:
    """nginx sends them GOAWAY with each reload; Envoy keeps them."""
    with (
        balancing("nginx", tmp_path / "nginx", [server]) as nginx,
        balancing("envoy", tmp_path / "envoy", [server]) as envoy,
    ):
        with closing(Idle(nginx.grpc)) as idle:
            nginx.endpoints([server])
            assert _code(idle.until(GOAWAY)) == NO_ERROR
        with closing(Idle(envoy.grpc)) as idle, closing(_asked(envoy.http)) as web:
            before, updates = web.sock, _updates(envoy)
            envoy.endpoints([server])
            assert eventually(
                lambda: all(new > old for new, old in zip(_updates(envoy), updates, strict=True))
            )
            idle.ping()
            assert _status(web) == 200
            assert web.sock is before
        with closing(_asked(nginx.http)) as web:
            assert web.sock
            nginx.endpoints([server])
            assert web.sock.recv(1) == b""


def test_triton_drops_idle_connections_unannounced_and_ends_in_order(server: Server) -> None:
    """Triton 2.51 sends no GOAWAY, so clients must have stopped using a connection before."""
    with closing(Idle(server.at("grpc"))) as idle, closing(_asked(server.at("http"))):
        server.process.terminate()
        with pytest.raises(EOFError):
            idle.until(GOAWAY)
        assert server.wait_ended() == 0


def _updates(envoy: Balancer) -> list[int]:
    """How often it has taken endpoints, by cluster."""
    page = f"http://{envoy.admin}/stats?filter=%5Ecluster.*update_success"
    with urllib.request.urlopen(page, timeout=60) as answer:
        return [int(line.rpartition(": ")[2]) for line in answer.read().decode().splitlines()]


def _asked(address: str) -> http.client.HTTPConnection:
    """A connection that was used once and is kept alive."""
    connection = http.client.HTTPConnection(address.rpartition("/")[2], timeout=60)
    assert _status(connection) == 200
    return connection


def _status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", "/v2/health/ready")
    answer = connection.getresponse()
    answer.read()
    return answer.status
