"""Requests that end Triton 2.51, sent by anybody who reaches its port: noticed here should that change.

What is ours about it: the launcher ends with a code that is no success, so that whoever watches over it
starts another, and neither a step nor a region of shared memory outlives it.
"""

from __future__ import annotations

import itertools
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from launcher.shared_memory import FOLDER, MARK
from tests.e2e.artifacts import MODEL, built
from tests.e2e.serving import Server, started
from tests.e2e.wire_grpc import GrpcWire

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ENOUGH = 3000  # some 5 streams of the first kind end it, some 100 of the second, one body of the third


def _mixed(server: Server) -> Iterator[object]:
    """On one stream, models that stream and names that are none: gRPC's writes meet."""
    with GrpcWire(server.address) as wire:
        bad, nobody = wire.request(text_input=""), service_pb2.ModelInferRequest(model_name="nobody")
        while True:
            yield list(wire.stub.ModelStreamInfer(iter([bad, nobody] * 50), timeout=60))


def _statuses(server: Server) -> Iterator[object]:
    """Early errors as the status of the call."""
    with GrpcWire(server.address) as wire:
        bad = wire.request(text_input="", stream=True)
        while True:
            call = wire.stub.ModelStreamInfer(
                iter([bad]), timeout=60, metadata=[("triton_grpc_error", "true")]
            )
            with suppress(grpc.RpcError):
                yield list(call)
            yield None


def _chunks(server: Server) -> Iterator[object]:
    """A body in so many chunks that a list of them, on the stack, is larger than the stack."""
    host, _, port = server.address.http.rpartition(":")
    head = f"POST /v2/models/{MODEL}/generate HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    while True:
        with suppress(OSError), socket.create_connection((host, int(port)), 60) as connection:
            connection.sendall(head.encode() + b"1\r\nA\r\n" * 600_000 + b"0\r\n\r\n")
            yield connection.recv(1)
        yield None


@pytest.mark.parametrize("kill", [_mixed, _statuses, _chunks])
def test_what_ends_triton_ends_the_launcher_with_a_fault(
    kill: Callable[[Server], Iterator[Any]], tmp_path: Path
) -> None:
    with started(built("int8"), tmp_path / "log") as server:
        server.wait_ready()
        regions = f"{MARK}{server.process.pid}_*"
        assert list(FOLDER.glob(regions))
        with suppress(grpc.RpcError, OSError):
            for _ in itertools.islice(kill(server), ENOUGH):
                if not server.running:
                    break
        assert server.wait_ended() in {128 + signal.SIGSEGV, 128 + signal.SIGABRT}
    assert not list(FOLDER.glob(regions))
