"""The running tritonserver: started so that it cannot outlive this process, and stopped in bounded time."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import BinaryIO, Final

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.1
# For the last lines of a log after its writers have ended.
LOG_SECONDS = 2.0
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Triton was built for GPUs, and logs an error or a warning each time that it looks for one.
_NO_GPU: Final = re.compile(
    rb'[EW]\d{4} .*"(CudaDriverHelper has not been initialized\.'
    rb"|unable to create stream for .*: CUDA driver version is insufficient for CUDA runtime version"
    rb'|failed to allocate pinned system memory: no pinned memory pool, falling back .*)"\s*'
)


class Log:
    """A pipe for a child's stderr. It copies the lines to `target`, without Triton's complaints about a
    missing GPU. Lines that cannot be written are lost, and the child continues.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._reading, self.child = os.pipe()
        self._thread = threading.Thread(target=self._copy, name="log", daemon=True)

    def start(self) -> None:
        """Called once the child has its end of the pipe. Ours is closed, so that the log ends with the
        child.
        """
        os.close(self.child)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until all lines are written, but not longer than this for a process that keeps the pipe
        open.
        """
        self._thread.join(seconds)

    def _copy(self) -> None:
        with os.fdopen(self._reading, "rb") as lines:
            for line in lines:
                if not _NO_GPU.fullmatch(line):
                    with suppress(OSError, ValueError):
                        self._target.write(line)
                        self._target.flush()


class Server:
    """A server in a separate process group, so that a Ctrl-C reaches Triton only once, through us.

    It is stopped in three steps: `drain`, SIGTERM, and after `grace_seconds` SIGKILL for the group.
    If `drain` returns true, the stop counts as orderly whatever the exit code.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        grace_seconds: float,
        drain: Callable[[], bool] = lambda: False,
        inherited: Sequence[int] = (),
        output: int | None = None,
        log: Log | None = None,
    ) -> None:
        """`output` is the file descriptor for its stdout and stderr; `log` takes only its stderr. By default
        it inherits both from this process.
        """
        self._grace_seconds = grace_seconds
        self._drain = drain
        self._drained = False
        self._stopping = False
        self._child = subprocess.Popen(
            command,
            env=environment,
            pass_fds=inherited,
            stdout=output,
            stderr=log.child if log else output,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),  # noqa: PLW1509 (no thread runs yet)
        )
        self._log = log
        if log:
            log.start()

    @property
    def stopping(self) -> bool:
        return self._stopping

    def wait_ready(self, ready: Callable[[], bool]) -> bool:
        """False when it ended, or was told to stop, before it was ready."""
        while self._child.poll() is None and not self._stopping:
            if ready():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def wait(self) -> int:
        """Its exit code; as in a shell, 128 + N if it died of signal N. No step outlives it."""
        code = self._child.wait()
        # A step that waits for an answer of a killed server holds Python's lock, so it cannot end itself. The
        # group's number is not reused while the group has members.
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        if self._log:
            self._log.wait(LOG_SECONDS)
        if self._drained:
            return 0
        return code if code >= 0 else 128 - code

    def stop_on_signals(self) -> None:
        for number in STOPPING:
            signal.signal(number, lambda *_: self.stop())

    def stop(self) -> None:
        """Begins to stop it. A second call kills it and its steps."""
        if self._stopping:
            self._kill()
            return
        self._stopping = True
        threading.Thread(target=self._finish, daemon=True).start()

    def _finish(self) -> None:
        self._drained = self._drain()
        self._child.terminate()
        time.sleep(self._grace_seconds)
        self._kill()

    def _kill(self) -> None:
        if self._child.poll() is None:
            os.killpg(self._child.pid, signal.SIGKILL)


def _die_with(parent: int) -> Callable[[], None]:
    """Lets the kernel end the child when this process dies, even by SIGKILL."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
