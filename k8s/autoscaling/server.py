"""The real server: server/launch.py on free ports of the loopback, and the CPU time that it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from halimede import Client
from loadtest.launched import Launched, NotReady

START_LIMIT_S: Final = 120.0


class Unmeasured(Exception):
    """The server did not start or did not answer; says what it wrote."""


class Server(Launched):
    """One launch.py and what it started."""

    def __init__(self, repository: Path, model: str, log: Path) -> None:
        super().__init__(log, "--model-repository", str(repository), "--model", model)
        self._model = model

    def client(self) -> Client:
        return Client(self.at("grpc"), model=self._model)

    def cpu_s(self) -> float:
        """CPU seconds of the processes so far."""
        ticks = sum(map(_ticks, _family(self.process.pid)))
        return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(repository: Path, model: str, log: Path) -> Iterator[Server]:
    """The server, ready; stopped at the end. Raises Unmeasured when it does not start."""
    server = Server(repository, model, log)
    try:
        server.wait_ready(START_LIMIT_S)
        yield server
    except NotReady as problem:
        raise Unmeasured(str(problem)) from problem
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
