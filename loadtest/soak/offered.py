"""The load of a soak test: our own load test as a child, ended early where somebody asks for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtest.artifacts import ROOT
from loadtest.users.stopping import Stopping

POLL_S = 0.2
# The load's own: the SLO was met, missed, or it was interrupted; each with a result.
_MEASURED = frozenset({0, 3, 130})


@dataclass(frozen=True, slots=True)
class Addresses:
    """URLs of the server. Where one is None it is on the port beside, as Triton has them."""

    url: str
    http: str | None = None
    metrics: str | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What is offered: a profile by name or file, at that rate, for so many seconds after the warm-up."""

    profile: str
    rate_per_s: float
    duration_s: float
    model: str | None = None

    def command(self, addresses: Addresses, folder: Path) -> list[str]:
        options = {
            "--profile": self.profile,
            "--rate": f"{self.rate_per_s:g}",
            "--duration": f"{self.duration_s:g}",
            "--model": self.model,
            "--url": addresses.url,
            "--http-url": addresses.http,
            "--metrics-url": addresses.metrics,
            "--out": f"{folder}",
        }
        given = [word for name, value in options.items() if value is not None for word in (name, value)]
        return [sys.executable, "-m", "loadtest.load", *given]


def put(command: list[str], stopping: Stopping, goes_on: Callable[[], bool]) -> int:
    """The load's exit code. Each wish to stop, and the first time that nothing `goes_on`, is passed on as a
    Ctrl-C, upon which it writes what it has."""
    # A session of its own: a Ctrl-C of the terminal comes to us alone, and goes on once.
    child = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    told = 0
    while child.poll() is None:
        wishes = max(stopping.wishes, int(not goes_on()))
        while told < wishes:
            child.send_signal(signal.SIGINT)
            told += 1
        time.sleep(POLL_S)
    return child.returncode


def has_result(code: int) -> bool:
    return code in _MEASURED
