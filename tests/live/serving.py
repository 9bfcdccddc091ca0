"""The real server as a process of the tests: started by server/launch.py, at most a few at a time."""

from __future__ import annotations

import re
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from loadtest.launched import Launched
from tests.live.artifacts import MODEL
from tests.live.wire import WAIT_SECONDS, Address

LOG_TAIL = 4000
QUIET_SECONDS = 1.5  # the engine tells its metrics twice a second, one after the other


class Server(Launched):
    """One launch.py with its tritonserver; both write to `log`."""

    def __init__(self, repository: Path, log: Path, *arguments: str) -> None:
        self.repository = repository
        self.model = MODEL
        super().__init__(log, "--model-repository", str(repository), *arguments)

    @property
    def address(self) -> Address:
        http, grpc, metrics = map(self.at, ("http", "grpc", "metrics"))
        return Address(http=http, grpc=grpc, metrics=f"http://{metrics}/metrics", model=self.model)

    @property
    def metrics(self) -> Metrics:
        assert self.address.metrics
        with urllib.request.urlopen(self.address.metrics, timeout=WAIT_SECONDS) as response:
            return Metrics(response.read().decode())

    def wait_ended(self, seconds: float = WAIT_SECONDS) -> int:
        """Its exit code."""
        return self.process.wait(seconds)

    def wait_idle(self) -> Metrics:
        """Metrics once nothing runs, waits or holds KV cache, and no metric changes any more."""
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
        code = super().stop()
        assert code != -signal.SIGKILL, "the server did not stop in time"
        return code


class Metrics:
    """A scrape; names without the prefix `halimede_`."""

    def __init__(self, text: str) -> None:
        self.text = text

    def total(self, name: str, **labels: str) -> float:
        """The sum over all series of that name that carry the labels."""
        return sum(value for found, value in self.series(name) if labels.items() <= found.items())

    def since(self, before: Metrics, name: str, **labels: str) -> float:
        """By how much that sum has grown."""
        return self.total(name, **labels) - before.total(name, **labels)

    def series(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        pattern = re.compile(rf"^halimede_{name}{{(.*)}} (\S+)$", re.MULTILINE)
        for labels, value in pattern.findall(self.text):
            yield dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)

    @property
    def ours(self) -> str:
        """The metrics of the steps. Triton's own grow with every scrape."""
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


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(condition: Callable[[], bool], seconds: float = WAIT_SECONDS) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True
