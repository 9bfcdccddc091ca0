"""The preStop hook with the real server: it ends when the stream has, and not before."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator, Iterator

import pytest

from tests.live.artifacts import built
from tests.live.serving import Server, started
from tests.live.wire import Reply
from tests.live.wire_http import HttpWire
from tests.paths import ROOT

pytestmark = pytest.mark.e2e
DRAIN = [sys.executable, "-I", "-S", str(ROOT / "server" / "drain.py"), "--settle-s", "0.2"]
LIMIT_S = 120.0  # for what hangs
TOKENS = 1000  # on their way until the hook has looked


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with started(built("int8"), tmp_path_factory.mktemp("drain") / "server.log") as found:
        yield found.wait_ready()


def _stream(server: Server) -> Generator[Reply, None, None]:
    inputs = {"text_input": "Once", "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    return HttpWire(server.address).open(**inputs, return_num_output_tokens=True)


def _drain(server: Server, *arguments: str) -> subprocess.Popen[str]:
    assert server.address.metrics
    command = [*DRAIN, "--metrics", server.address.metrics, *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_waits_for_a_stream_that_it_found(server: Server) -> None:
    stream = _stream(server)
    got = [next(stream)]
    with _drain(server) as hook:
        assert hook.stderr
        # The gauge may be a moment behind: the hook looks several times for that.
        seen = [hook.stderr.readline() for _ in range(2)]
        assert any(line.endswith("1 requests in flight\n") for line in seen), seen
        # We may be behind the server, but not by half of the answer.
        while sum(reply.output_tokens or 0 for reply in got) < TOKENS // 2:
            got.append(next(stream))
            assert hook.poll() is None
        got += stream
        said = hook.stderr.read()
        assert hook.wait(LIMIT_S) == 0, said
    assert sum(reply.output_tokens or 0 for reply in got) == TOKENS
    assert "drained after" in said


def test_says_that_its_time_was_up_and_leaves_the_stream_alone(server: Server) -> None:
    stream = _stream(server)
    first = next(stream)
    with _drain(server, "--timeout-s", "1.5") as hook:
        _, said = hook.communicate(timeout=LIMIT_S)
    assert hook.returncode == 4
    assert "timed out after 1.5 s: 1 requests in flight" in said
    assert sum(reply.output_tokens or 0 for reply in [first, *stream]) == TOKENS


def test_an_idle_server_and_one_that_is_gone_are_drained(server: Server) -> None:
    server.wait_idle()
    with _drain(server) as hook:
        assert hook.wait(LIMIT_S) == 0
    assert server.stop() == 0
    with _drain(server) as hook:
        _, said = hook.communicate(timeout=LIMIT_S)
    assert hook.returncode == 0
    assert "the server has ended" in said
