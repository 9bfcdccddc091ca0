"""server/launch.py as a child process, on free ports of the loopback interface that it takes for itself."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from loadtest.artifacts import MODEL, ROOT
from loadtest.errors import BenchError
from loadtest.ports import HOST

LAUNCH = ROOT / "server" / "launch.py"
READY = re.compile(r"^READY (\{.*\})$", re.MULTILINE)
READY_SECONDS = 180.0
STOP_SECONDS = 60.0
POLL_SECONDS = 0.02
_FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
_TAIL_LINES = 30
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded here: a child of a process with threads must take no lock


class NotReady(BenchError):
    """The server ended or hung before it was ready; says what it wrote."""


class Launched:
    """One launch.py with its tritonserver, which write to `log`; begun by its making.

    They outlive neither this process nor the thread that makes them, and a Ctrl-C is not for them.
    """

    def __init__(
        self,
        log: Path,
        *arguments: str,
        program: Path = LAUNCH,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Among the `arguments` a port other than a free one may be named; `folder` is where it runs."""
        self.log = log
        self.command = [sys.executable, str(program), *_FREE_PORTS, *arguments]
        self._told: dict[str, float] = {}
        self.ready_s = 0.0  # from the start of its process until the line was read
        self._began = time.monotonic()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                self.command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder,
                start_new_session=True,
                preexec_fn=die_with_us,  # noqa: PLW1509  one system call, whatever threads do
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", errors="replace")

    @property
    def ports(self) -> dict[str, int]:
        """Of "http", "grpc" and "metrics". NotReady before `wait_ready` has returned."""
        if not self._told:
            raise NotReady(f"{self.log}: the ports of a server are known once it is ready")
        return {service: int(self._told[service]) for service in ("http", "grpc", "metrics")}

    def at(self, service: str) -> str:
        return f"{HOST}:{self.ports[service]}"

    @property
    def urls(self) -> dict[str, str]:
        """As `ports`; that of "metrics" has its path."""
        http, grpc, metrics = map(self.at, ("http", "grpc", "metrics"))
        return {"http": f"http://{http}", "grpc": f"grpc://{grpc}", "metrics": f"http://{metrics}/metrics"}

    def wait_ready(self, seconds: float = READY_SECONDS) -> Self:
        """Raises NotReady with the end of its log."""
        deadline = time.monotonic() + seconds
        while not (told := READY.search(self.output)):
            if not self.running or time.monotonic() > deadline:
                code = self.process.returncode
                why = f"in {seconds:g} s" if code is None else f"and ended with code {code}"
                tail = "\n  ".join(self.output.splitlines()[-_TAIL_LINES:])
                raise NotReady(f"the server did not become ready {why}; the end of {self.log}:\n  {tail}")
            time.sleep(POLL_SECONDS)
        self.ready_s = time.monotonic() - self._began
        self._told = json.loads(told[1])
        return self

    def stop(self) -> int:
        """Its exit code, that of SIGKILL when it took too long."""
        if self.running:
            self.process.terminate()
        try:
            return self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def kill(self) -> None:
        """SIGKILL for tritonserver, its steps and the launcher, as when the kernel is out of memory."""
        if not self.running:
            return
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for child in map(int, children):
            with suppress(ProcessLookupError):  # it leads a group of its own, unless it is not Triton
                os.killpg(child, signal.SIGKILL)
        self.process.kill()
        self.process.wait(STOP_SECONDS)


@contextmanager
def served(repository: Path, log: Path, model: str = MODEL) -> Iterator[Launched]:
    """A server of that model, ready; stopped at the end. NotReady with the end of its log."""
    server = Launched(log, "--model-repository", str(repository), "--model", model, "--exit-timeout", "5")
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def die_with_us() -> None:
    """In the child: the kernel ends it when we die, be it by SIGKILL."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
