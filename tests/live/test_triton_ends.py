"""A request that ends Triton 2.51, from anybody who reaches its port. A Triton that survives it fails here.

What is ours about it: the launcher ends with a code that is no success, so that whoever watches over it
starts another, and neither a step nor a region of shared memory outlives it. Two others end it only where
threads meet (docs/design.md), which no test can count on.
"""

from __future__ import annotations

import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from launcher.shared_memory import FOLDER, MARK
from tests.live.artifacts import MODEL, built
from tests.live.serving import Server, started

pytestmark = pytest.mark.e2e

CHUNKS = 600_000  # a list of them, on the stack, is larger than the stack


def test_what_ends_triton_ends_the_launcher_with_a_fault(tmp_path: Path) -> None:
    with started(built("int8"), tmp_path / "log") as server:
        server.wait_ready()
        regions = f"{MARK}{server.process.pid}_*"
        assert list(FOLDER.glob(regions))
        send_in_chunks(server)
        assert server.wait_ended() in {128 + signal.SIGSEGV, 128 + signal.SIGABRT}
    assert not list(FOLDER.glob(regions))


def send_in_chunks(server: Server) -> None:
    host, _, port = server.address.http.rpartition(":")
    head = f"POST /v2/models/{MODEL}/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with suppress(OSError), socket.create_connection((host, int(port)), 60) as connection:
        connection.sendall(head.encode() + b"1\r\nA\r\n" * CHUNKS + b"0\r\n\r\n")
        connection.recv(1)
