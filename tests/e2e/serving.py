"""The real server as a process of the tests: started by server/launch.py, at most a few at a time."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.e2e.artifacts import ROOT
from tests.e2e.wire import WAIT_SECONDS, Address

LAUNCH = ROOT / "server" / "launch.py"
LOG_TAIL = 4000
QUIET_SECONDS = 1.5  # the engine tells its metrics twice a second, one after the other


class Server:
    """One launch.py with its tritonserver; both write to `log`."""

    def __init__(self, repository: Path, log: Path, *arguments: str) -> None:
        self.repository = repository
        self.log = log
        ports = free_ports("http", "grpc", "metrics")
        self.ports = ports
        self.address = Address(
            http=f"127.0.0.1:{ports['http']}",
            grpc=f"127.0.0.1:{ports['grpc']}",
            metrics=f"http://127.0.0.1:{ports['metrics']}/metrics",
        )
        self.command = [sys.executable, str(LAUNCH), "--model-repository", str(repository)]
        for service, port in ports.items():
            self.command += [f"--{service}-port", str(port)]
        self.command += arguments
        with log.open("wb") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def metrics(self) -> Metrics:
        assert self.address.metrics
        with urllib.request.urlopen(self.address.metrics, timeout=WAIT_SECONDS) as response:
            return Metrics(response.read().decode())

    def wait_ready(self) -> Server:
        ready = eventually(lambda: not self.running or is_ready(self.address.http))
        # Its banner comes last.
        ready = ready and eventually(lambda: not self.running or "ready in" in self.output)
        if not (ready and self.running):
            raise AssertionError(f"the server did not become ready\n{self.output[-LOG_TAIL:]}")
        return self

    def wait_ended(self, seconds: float = WAIT_SECONDS) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def wait_idle(self) -> Metrics:
        """Metrics once nothing runs, waits or holds KV cache, and all is told of what did."""
        busy, before = time.monotonic(), ""

        def is_quiet() -> bool:
            nonlocal busy, before
            found = self.metrics
            if not found.idle or found.ours != before:
                busy, before = time.monotonic(), found.ours
            return time.monotonic() - busy > QUIET_SECONDS

        assert eventually(is_quiet), f"requests are left over\n{self.metrics.text}"
        return self.metrics

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(60)
            raise


class Metrics:
    """A scrape; names without the prefix `halimede_`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of that name that carry the labels."""
        return sum(value for found, value in self.series(name) if labels.items() <= found.items())

    def series(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        pattern = re.compile(rf"^halimede_{name}{{(.*)}} (\S+)$", re.MULTILINE)
        for labels, value in pattern.findall(self.text):
            yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)

    @property
    def ours(self) -> str:
        """What the steps tell, without Triton's own, which grow by being looked at."""
        return "\n".join(line for line in self.text.splitlines() if line.startswith("halimede_"))

    @property
    def idle(self) -> bool:
        gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        return all(list(self.series(name)) and not self.total(name) for name in gauges)


class Pool:
    """Servers that start when they are asked for, and stop when too many others are."""

    def __init__(self, factories: Mapping[str, Callable[[], Server]], limit: int = 2) -> None:
        self._factories = factories
        self._limit = limit
        self._servers: dict[str, Server] = {}

    @property
    def running(self) -> Mapping[str, Server]:
        return self._servers

    def get(self, name: str) -> Server:
        server = self._servers.pop(name, None)
        if server is None or not server.running:
            self.make_room(1)
            server = self._factories[name]().wait_ready()
        self._servers[name] = server  # the last one is the one used last
        return server

    def make_room(self, wanted: int) -> None:
        """Stops the servers unused for longest, until so many more may start."""
        while len(self._servers) > self._limit - wanted:
            self._servers.pop(next(iter(self._servers))).stop()

    def close(self) -> None:
        self.make_room(self._limit)


@contextmanager
def started(repository: Path, log: Path, *arguments: str) -> Iterator[Server]:
    """A server of one test; it is stopped, if it has not ended, when the test is over."""
    server = Server(repository, log, *arguments)
    try:
        yield server
    finally:
        if server.running:
            server.stop()


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/health/ready", timeout=5) as response:
            return bool(response.status == http.client.OK)
    except OSError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def free_ports(*names: str) -> dict[str, int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: found.getsockname()[1] for name, found in zip(names, sockets, strict=True)}
