"""The command as a process on a terminal, with Ctrl-C and Ctrl-D."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from halimede.cli.exits import Exit
from halimede.testing import Event, FakeGrpcServer, FakeHttpServer, Step, answer
from tests.paths import ROOT

CLIENT = ROOT / "client"
PATIENCE_S = 120.0
CTRL_C, CTRL_D = "\x03", "\x04"

# The leader of a new session gets the terminal that it opens, and Ctrl-C as a signal. The child opens it
# itself, because code between fork and exec is unsafe while gRPC's threads run.
TAKE_TERMINAL_AND_RUN = """
import os, runpy
os.close(os.open(os.ttyname(0), os.O_RDWR))
runpy.run_module("halimede", run_name="__main__", alter_sys=True)
"""


class Terminal:
    """A process on its own pseudo terminal."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self._master = master
        self._shown = b""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: str) -> None:
        """Reads until the text appears, and forgets everything up to its end."""
        until = time.monotonic() + PATIENCE_S
        while text.encode() not in self._shown:
            read = self._read(until)
            assert read, f"{text!r} is not in {self._shown!r}"
            self._shown += read
        _, _, self._shown = self._shown.partition(text.encode())

    def _read(self, until: float) -> bytes:
        """The next output; empty after a timeout or when the process has ended."""
        ready, _, _ = select.select([self._master], [], [], max(0, until - time.monotonic()))
        try:
            return os.read(self._master, 4096) if ready else b""
        except OSError:  # Linux raises it when no process has the other side open
            return b""

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


@contextmanager
def _on_terminal(*arguments: str) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL_AND_RUN, *arguments],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=CLIENT,
        env=os.environ | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "200"},
        start_new_session=True,
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def _run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "halimede", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=CLIENT,
        timeout=PATIENCE_S,
        check=False,
    )


def test_chat_streams_cancels_and_continues() -> None:
    story: list[Step] = ["Once upon", Event.HANG]
    turns = FakeGrpcServer(answer("Hello", " Bob"), story, answer("Bye"))
    with turns as server, _on_terminal("chat", "--url", server.url) as terminal:
        terminal.wait_for("> ")
        terminal.type("I am Bob\n")
        terminal.wait_for("Hello Bob")
        terminal.wait_for("stop")
        terminal.wait_for("> ")
        terminal.type("Tell me a story\n")
        terminal.wait_for("Once upon")
        terminal.type(CTRL_C)
        assert server.cancelled.wait(PATIENCE_S)
        terminal.wait_for("cancelled")
        terminal.wait_for("> ")
        terminal.type("Thanks\n")
        terminal.wait_for("Bye")
        terminal.wait_for("> ")
        terminal.type(CTRL_D)
        assert terminal.exit_code() == Exit.OK
    assert len(server.requests) == 3


def test_generate_streams_to_a_terminal_without_escape_sequences() -> None:
    fake = FakeGrpcServer(answer("a\x1b[31m\x9b2Jb"))
    with fake as server, _on_terminal("generate", "?", "--url", server.url) as terminal:
        terminal.wait_for("a[31m2Jb")
        assert terminal.exit_code() == Exit.OK
    assert server.requests[0].inputs[-1].contents.bool_contents == [True]  # stream


def test_generate_with_beams_does_not_stream_to_a_terminal() -> None:
    fake = FakeGrpcServer(answer("a"))
    with fake as server, _on_terminal("generate", "?", "--num-beams", "2", "--url", server.url) as terminal:
        terminal.wait_for("a")
        assert terminal.exit_code() == Exit.OK
    assert server.requests[0].inputs[-1].contents.bool_contents == [False]  # stream


def test_ctrl_c_ends_generate_and_cancels_the_request() -> None:
    with FakeGrpcServer(["Once upon", Event.HANG]) as server:
        with _on_terminal("generate", "?", "--url", server.url) as terminal:
            terminal.wait_for("Once upon")
            terminal.type(CTRL_C)
            assert terminal.exit_code() == Exit.INTERRUPTED
        assert server.cancelled.wait(PATIENCE_S)


def test_ctrl_c_cancels_an_http_request() -> None:
    with FakeHttpServer(["Once upon", Event.HANG]) as server:
        with _on_terminal("generate", "?", "--url", server.url) as terminal:
            terminal.wait_for("Once upon")
            terminal.process.send_signal(signal.SIGINT)
            assert terminal.exit_code() == Exit.INTERRUPTED
        assert server.cancelled.wait(PATIENCE_S)


def test_a_pipe_gets_only_the_answer() -> None:
    with FakeGrpcServer(answer("\x1b[31mParis")) as server:
        result = _run("generate", "-", "--url", server.url, stdin="?")
    assert (result.returncode, result.stdout, result.stderr) == (0, "\x1b[31mParis\n", "")


def test_no_server() -> None:
    with FakeGrpcServer() as server:
        pass
    result = _run("health", "--url", server.url)
    assert result.returncode == Exit.UNAVAILABLE
    assert result.stderr == (
        f"error: no server at {server.url}: Connection refused\n"
        "  start a server with `make serve`, or set its address with --url or HALIMEDE_URL\n"
    )
