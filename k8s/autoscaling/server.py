"""The real server: server/launch.py on free ports of the loopback, and the CPU time that it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from halimede import Client
from k8s.autoscaling.prometheus import free_port

ROOT: Final = Path(__file__).parents[2]
START_LIMIT_S: Final = 120.0


class Unmeasured(Exception):
    """The server did not start or did not answer; says what it wrote."""


class Server:
    """One launch.py and what it started."""

    def __init__(self, repository: Path, model: str, log: Path) -> None:
        ports = {service: free_port() for service in ("http", "grpc", "metrics")}
        self.grpc, self.metrics = f"127.0.0.1:{ports['grpc']}", f"127.0.0.1:{ports['metrics']}"
        self._log, self._model = log, model
        command = [sys.executable, str(ROOT / "server" / "launch.py"), "--model-repository", str(repository)]
        command += ["--model", model]
        for service, port in ports.items():
            command += [f"--{service}-port", str(port)]
        began = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            self.ready_s = self._wait_ready(began)
        except BaseException:  # a Ctrl-C or a kill while it starts
            self.stop()
            raise

    def client(self) -> Client:
        return Client(self.grpc, model=self._model)

    def cpu_s(self) -> float:
        """CPU seconds of the processes so far."""
        ticks = sum(map(_ticks, _family(self._process.pid)))
        return ticks / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)

    def _wait_ready(self, began: float) -> float:
        while time.monotonic() < began + START_LIMIT_S and self._process.poll() is None:
            if b"ready in" in self._log.read_bytes():
                return time.monotonic() - began
            time.sleep(0.02)
        self._process.kill()
        self._process.wait()
        raise Unmeasured(f"the server did not become ready:\n{self._log.read_text()[-2000:]}")


@contextmanager
def served(repository: Path, model: str, log: Path) -> Iterator[Server]:
    server = Server(repository, model, log)
    try:
        yield server
    finally:
        server.stop()


def _family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield from _family(int(child))


def _ticks(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0
    return int(fields[11]) + int(fields[12])
