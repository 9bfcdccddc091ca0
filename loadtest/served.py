"""A server of the benchmark's own, on free ports of the loopback interface."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from halimede import Client, HalimedeError
from loadtest.artifacts import MODEL, ROOT
from loadtest.errors import BenchError

HOST = "127.0.0.1"
READY_SECONDS = 180
STOP_SECONDS = 30
POLL_SECONDS = 0.05
_TAIL_LINES = 15
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a child of a process with threads must take no lock


@dataclass(frozen=True, slots=True)
class Served:
    """`ready_s` is from the start of the launcher's process to the first answer that says so."""

    pid: int
    ready_s: float
    version: str
    http: str
    grpc: str
    metrics: str

    def prefix_cache_hits(self) -> float:
        """Prompt tokens that were not computed, so far."""
        with Client(self.http, metrics_url=self.metrics) as client:
            return client.metrics().total("halimede_prefix_cache_hits_total") or 0.0


@contextmanager
def served(repository: Path, log: Path, model: str = MODEL) -> Iterator[Served]:
    """The server, ready; stopped at the end. BenchError with the end of its log when it does not start."""
    ports = free_ports(3)
    began = time.monotonic()
    process = _launch(repository, log, ports, model)
    try:
        urls = [f"http://{HOST}:{ports[0]}", f"grpc://{HOST}:{ports[1]}", f"http://{HOST}:{ports[2]}/metrics"]
        version = _wait_ready(process, urls[0], log, model)
        yield Served(process.pid, time.monotonic() - began, version, *urls)
    finally:
        _stop(process)


def _launch(repository: Path, log: Path, ports: list[int], model: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "server" / "launch.py"), "--model", model]
    command += ["--model-repository", str(repository), "--host", HOST, "--exit-timeout", "5"]
    for service, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{service}-port", str(port)]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        # A session of its own: a Ctrl-C is for us, who then stop it once.
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_us,  # noqa: PLW1509  one system call, whatever threads do
        )


def _wait_ready(process: subprocess.Popen[bytes], url: str, log: Path, model: str) -> str:
    """The server's version, once it is ready."""
    deadline = time.monotonic() + READY_SECONDS
    with Client(url, model=model) as client:
        while process.poll() is None and time.monotonic() < deadline:
            try:
                health = client.health()
                if health.ok:
                    return health.server_version
            except HalimedeError:  # nobody answers yet
                pass
            time.sleep(POLL_SECONDS)
    ended = process.poll()
    what = f"is not ready after {READY_SECONDS} s" if ended is None else f"ended with code {ended}"
    tail = "\n  ".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
    raise BenchError(f"the server {what}; the end of {log}:\n  {tail}")


def die_with_us() -> None:
    """In the child: the kernel ends it when we die, be it by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(found.getsockname()[1]) for found in sockets]
