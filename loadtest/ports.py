"""Ports of the loopback interface that stay ours until a program of ours listens on them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

HOST = "127.0.0.1"


@contextmanager
def held_ports(count: int) -> Iterator[list[int]]:
    """`count` free ports. A connection to one is refused until the program that gets it listens.

    A socket is bound to each and does not listen, so Linux does not give the port to a program that asks
    for a free one, but to one that names it and reuses addresses (SO_REUSEADDR), as servers do, or ports
    (SO_REUSEPORT), as llama-server does. Hold them until the program answers.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            found.bind((HOST, 0))
        yield [int(found.getsockname()[1]) for found in sockets]
