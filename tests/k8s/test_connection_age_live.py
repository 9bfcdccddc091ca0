"""A gRPC connection reaches its greatest age at the real server: streams go on, new calls open a new one."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from halimede import Client
from tests.live.artifacts import MODEL, built
from tests.live.serving import eventually, started

pytestmark = pytest.mark.e2e
AGE_MS = 500
TOKENS = 1000  # four times as long on their way, on a fast processor


def connections(port: int) -> set[int]:
    """The local ports of what is connected to it."""
    tables = [Path("/proc/self/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
    rows = [row.split() for table in tables for row in table]
    return {_port(row[1]) for row in rows if row[3] == "01" and _port(row[2]) == port}


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def test_a_stream_outlives_its_connections_age_and_the_next_call_has_a_new_one(tmp_path: Path) -> None:
    age = f"--grpc-max-connection-age={AGE_MS}"
    with started(built("int8"), tmp_path / "server.log", "--", age) as server:
        server.wait_ready()
        with Client(server.address.grpc, model=MODEL) as client:
            began = time.monotonic()
            stream = client.stream("Once upon a time", max_tokens=TOKENS, ignore_eos=True)
            got = [next(stream).num_output_tokens or 0]
            first = connections(server.ports["grpc"])
            got += [chunk.num_output_tokens or 0 for chunk in stream]
            assert sum(got) == TOKENS
            assert time.monotonic() - began > 2 * AGE_MS / 1000, "it was to outlive its connection"
            assert first
            with client.stream("Once", max_tokens=TOKENS, ignore_eos=True) as another:
                next(another)  # as long as it goes on, its connection is there
                assert eventually(lambda: not first & connections(server.ports["grpc"]))
                assert connections(server.ports["grpc"])
