"""Faults of live servers: processes killed, or halted now and then, and more requests than slots."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from halimede import Client, HalimedeError, RetryPolicy
from tests.live.serving import Server, eventually

ONCE = RetryPolicy(attempts=1)
PAUSE_S = 0.5  # after a refusal
PATIENCE_S = 600.0  # of those who ask, with a server that is slow or halted


def triton_pid(server: Server) -> int:
    (child,) = _children(server.process.pid)
    return child


def step_pid(server: Server, step: str) -> int:
    """The process of a model such as smollm2_engine."""
    pids = _children(triton_pid(server))
    (found,) = [pid for pid in pids if step.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in found for child in path.read_text().split()]


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/exe").readlink().name
    except OSError:  # it ended a moment ago
        return ""


def kill(server: Server) -> None:
    """SIGKILL for tritonserver, its steps and the launcher."""
    os.killpg(triton_pid(server), signal.SIGKILL)
    with suppress(ProcessLookupError):
        server.process.kill()
    server.process.wait()


def halt_at_start(server: Server) -> int:
    """Its tritonserver is stopped before it has loaded a model. Yields the process, for SIGCONT."""
    # Before it, the launcher may ask another program for a library.
    assert eventually(lambda: [_program(pid) for pid in _children(server.process.pid)] == ["tritonserver"])
    pid = triton_pid(server)
    os.kill(pid, signal.SIGSTOP)
    return pid


@contextmanager
def halted(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def halting(pid: int, halted_s: float, runs_s: float) -> Iterator[None]:
    """By turns the process is halted for `halted_s` and runs for `runs_s`."""
    over = threading.Event()

    def halt() -> None:
        while not over.is_set():
            with halted(pid):
                over.wait(halted_s)
            over.wait(runs_s)

    thread = threading.Thread(target=halt, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def crowd(
    server: Server,
    model: str,
    size: int,
    prompt: Callable[[], str],
    tokens: int,
    every_s: float = 0.0,
    stream: bool = False,
) -> Iterator[list[str]]:
    """`size` users ask again and again. Yields the growing list of what became of their requests. What
    they have asked for goes on behind the end of the block.

    They must not stream from an engine that is halted: Triton 2.51 aborts where it waits long for a lock that
    one holds, and an engine takes it for each chunk.
    """
    over = threading.Event()
    endings: list[str] = []

    def ask() -> None:
        with Client(f"http://{server.address.http}", model=model, retry=ONCE, timeout=PATIENCE_S) as client:
            while not over.is_set():
                try:
                    if stream:
                        list(client.stream(prompt(), max_tokens=tokens, ignore_eos=True))
                    else:
                        client.generate(prompt(), max_tokens=tokens, ignore_eos=True)
                    endings.append("done")
                    over.wait(every_s)
                except HalimedeError as fault:
                    endings.append(type(fault).__name__)
                    over.wait(PAUSE_S)

    for _ in range(size):
        threading.Thread(target=ask, daemon=True).start()
    try:
        yield endings
    finally:
        over.set()
