"""Workers on this machine, as processes of the master."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from loadtest.artifacts import ROOT
from loadtest.launched import die_with_us
from loadtest.ports import HOST

_STOP_S = 5


class Processes:
    def __init__(self, found: list[subprocess.Popen[bytes]]) -> None:
        self._found = found

    def alive(self) -> bool:
        """All of them."""
        return all(process.poll() is None for process in self._found)


@contextmanager
def processes(count: int, port: int) -> Iterator[Processes]:
    """So many workers of the master on that port; those that do not end by themselves are ended."""
    command = [sys.executable, "-m", "loadtest.load", "--worker"]
    command += ["--master-host", HOST, "--master-port", f"{port}"]
    # Sessions of their own: a Ctrl-C is for the master, who tells them.
    found = [
        subprocess.Popen(command, cwd=ROOT, start_new_session=True, preexec_fn=die_with_us)  # noqa: PLW1509
        for _ in range(count)
    ]
    try:
        yield Processes(found)
    finally:
        for process in found:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
