"""Ports that are held for a program: nobody else is given one, and the program can take it."""

from __future__ import annotations

import errno
import re
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import pytest

from launcher.ports import held
from loadtest.ports import HOST, held_ports
from tests.paths import ROOT

# Linux 6.3: from which ports a free one is taken, for one socket. Older kernels do not know it.
IP_LOCAL_PORT_RANGE = 51
REUSE = {
    "nothing": (),
    "addresses": (socket.SO_REUSEADDR,),
    "ports": (socket.SO_REUSEPORT,),
    "both": (socket.SO_REUSEADDR, socket.SO_REUSEPORT),
}
Hold = Callable[[], AbstractContextManager[int]]


@contextmanager
def by_launcher() -> Iterator[int]:
    with held(HOST, {"http": 0}) as ports:
        yield ports["http"]


@contextmanager
def by_helper() -> Iterator[int]:
    with held_ports(1) as (port,):
        yield port


holds = pytest.mark.parametrize("hold", [by_launcher, by_helper])
reuses = pytest.mark.parametrize("reuse", REUSE.values(), ids=REUSE)


def asking(reuse: Sequence[int], port: int | None = None) -> socket.socket:
    """A socket that asks for a free port is given this one, or none."""
    found = socket.socket()
    for option in reuse:
        found.setsockopt(socket.SOL_SOCKET, option, 1)
    if port is not None:
        try:
            found.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("=I", port << 16 | port))
        except OSError:
            found.close()
            pytest.skip("this kernel does not let a socket narrow the range of free ports")
    return found


@holds
@reuses
def test_a_held_port_is_given_to_nobody_who_asks_for_a_free_one(hold: Hold, reuse: Sequence[int]) -> None:
    with hold() as port, asking(reuse, port) as other:
        with pytest.raises(OSError, match="Address already in use") as refused:
            other.bind((HOST, 0))
        assert refused.value.errno == errno.EADDRINUSE
    with asking(reuse, port) as other:
        other.bind((HOST, 0))
        assert other.getsockname()[1] == port


@holds
def test_no_connection_begins_at_a_held_port(hold: Hold) -> None:
    with socket.create_server((HOST, 0)) as server:
        with hold() as port, asking((), port) as other:
            assert other.connect_ex(server.getsockname()) == errno.EADDRNOTAVAIL
        with asking((), port) as other:
            assert other.connect_ex(server.getsockname()) == 0


@pytest.mark.parametrize(
    ("hold", "reuse"),
    [
        (by_launcher, REUSE["addresses"]),  # Triton's three services
        (by_helper, REUSE["addresses"]),
        (by_helper, REUSE["ports"]),  # llama-server
        (by_helper, REUSE["both"]),  # Envoy
    ],
)
def test_the_program_that_gets_a_held_port_can_listen_on_it(hold: Hold, reuse: Sequence[int]) -> None:
    with hold() as port, asking(()) as early, asking(()) as client, asking(reuse) as server:
        assert early.connect_ex((HOST, port)) == errno.ECONNREFUSED
        server.bind((HOST, port))
        server.listen()
        assert client.connect_ex((HOST, port)) == 0
        accepted, _ = server.accept()
        accepted.close()


def test_several_that_are_held_differ() -> None:
    with held_ports(3) as first, held_ports(3) as second:
        assert len({*first, *second}) == 6


def test_a_port_that_is_named_stays_and_the_order_too() -> None:
    with held_ports(1) as (port,), held(HOST, {"http": 0, "grpc": port, "metrics": 0}) as ports:
        assert list(ports) == ["http", "grpc", "metrics"]
        assert ports["grpc"] == port
        assert len(set(ports.values())) == 3


def test_nobody_looks_for_a_free_port_and_lets_it_go_before_it_is_used() -> None:
    """Another program could be given it in between: hold it."""
    folders = ("build", "client", "k8s", "loadtest", "server", "tests")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert len(found) > 500
    named = re.compile(r"def _*(?:find_|get_)?(?:free|unused)_ports?\(")
    assert [str(path) for path in found if named.search(path.read_text("utf-8"))] == []
