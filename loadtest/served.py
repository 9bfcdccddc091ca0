"""A server of the benchmark's own, on free ports of the loopback interface."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from halimede import Client
from loadtest.artifacts import MODEL
from loadtest.launched import Launched


@dataclass(frozen=True, slots=True)
class Served:
    """`ready_s` is from the start of the launcher's process until it says so."""

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
    arguments = ["--model-repository", str(repository), "--model", model, "--exit-timeout", "5"]
    server = Launched(log, *arguments)
    try:
        http, grpc, metrics = map(server.wait_ready().at, ("http", "grpc", "metrics"))
        with Client(http := f"http://{http}", model=model) as client:
            version = client.health().server_version
        yield Served(
            server.process.pid,
            server.ready_s,
            version,
            http,
            f"grpc://{grpc}",
            f"http://{metrics}/metrics",
        )
    finally:
        server.stop()
