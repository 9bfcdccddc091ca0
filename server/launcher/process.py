"""The running tritonserver: started so that it cannot outlive us, and stopped in good time."""

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
# For the last lines of a log, whose writers have ended.
LOG_SECONDS = 2.0
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Triton was built for GPUs, and calls it an error or a warning each time that it looks for one.
_NO_GPU: Final = re.compile(
    rb'[EW]\d{4} .*"(CudaDriverHelper has not been initialized\.'
    rb"|unable to create stream for .*: CUDA driver version is insufficient for CUDA runtime version"
    rb'|failed to allocate pinned system memory: no pinned memory pool, falling back .*)"\s*'
)


class Log:
    """A pipe for the stderr of a child, whose lines come out at `target`, but for Triton's complaints about a
    GPU that is not there. What cannot be written is lost, and the child goes on.
    """

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._reading, self.child = os.pipe()
        self._thread = threading.Thread(target=self._copy, name="log", daemon=True)

    def start(self) -> None:
        """Once the child has its end: ours is closed, so that the log ends with the last who holds it."""
        os.close(self.child)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Until all has come out; a process that holds on to the pipe is not awaited longer than that."""
        self._thread.join(seconds)

    def _copy(self) -> None:
        with os.fdopen(self._reading, "rb") as lines:
            for line in lines:
                if not _NO_GPU.fullmatch(line):
                    with suppress(OSError, ValueError):
                        self._target.write(line)
                        self._target.flush()


class Server:
    """A process group of its own, so that a Ctrl-C reaches Triton once, through us.

    It is stopped in three steps: `drain`, SIGTERM, and after `grace_seconds` SIGKILL for the group.
    When `drain` says that nothing was left to do, the stop was in order whatever the exit code.
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
        """`output` is the file descriptor that takes its stdout and stderr, `log` takes its stderr alone;
        without either they are as ours are.
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
        """Its exit code; as a shell has it, 128 + N for one that died of signal N. No step outlives it."""
        code = self._child.wait()
        # A step that waits for an answer of a server that was killed holds Python's lock, so it cannot even
        # end itself. The number stays the group's as long as it has members.
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
        """Begins to stop it; called again, kills it with its steps."""
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
    """Has the kernel end the child when we die, be it by SIGKILL."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)

    return in_child
