"""A peer's server, on a free port of the loopback interface."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx

from loadtest.artifacts import ROOT
from loadtest.errors import BenchError
from loadtest.peers.environment import tail
from loadtest.ports import HOST

READY_SECONDS = 420  # vLLM compiles before it is ready, the first time for minutes
_STOP_SECONDS = 20
_POLL_SECONDS = 0.2
_TAIL_LINES = 8


@contextmanager
def serving(
    name: str, command: Sequence[str], port: int, log: Path, variables: Mapping[str, str]
) -> Iterator[str]:
    """Its URL, once its /health answers; stopped at the end. BenchError when it does not start."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env={**os.environ, **variables},
            start_new_session=True,  # its workers are ended with it, and a Ctrl-C is for us
        )
    try:
        url = f"http://{HOST}:{port}"
        _wait_ready(name, child, url, log)
        yield url
    finally:
        _stop(child)


def _wait_ready(name: str, child: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(base_url=url, timeout=5, trust_env=False) as client:
        while child.poll() is None and time.monotonic() < deadline:
            try:
                if client.get("/health").is_success:
                    return
            except httpx.HTTPError:  # nobody answers yet
                pass
            time.sleep(_POLL_SECONDS)
    ended = child.poll()
    what = f"is not ready after {READY_SECONDS} s" if ended is None else f"ended with code {ended}"
    end = "\n  ".join(tail(log, _TAIL_LINES))
    raise BenchError(f"{name} {what}; the end of {log}:\n  {end}")


def _stop(child: subprocess.Popen[bytes]) -> None:
    """The whole group: a server that ends may leave its workers."""
    _signal(child, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        child.wait(_STOP_SECONDS)
    _signal(child, signal.SIGKILL)
    child.wait()


def _signal(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):  # all of them have ended
        os.killpg(child.pid, number)
