"""Triton's log without its errors and warnings about a GPU, on a machine that has none."""

from __future__ import annotations

import os
import re
import threading
from contextlib import suppress
from typing import BinaryIO, Final

# Triton was built for GPUs, and calls it an error or a warning each time that it looks for one.
_NO_GPU: Final = re.compile(
    rb'[EW]\d{4} .*"(CudaDriverHelper has not been initialized\.'
    rb"|unable to create stream for .*: CUDA driver version is insufficient for CUDA runtime version"
    rb'|failed to allocate pinned system memory: no pinned memory pool, falling back .*)"\s*'
)


class Log:
    """A pipe for the stderr of a child, whose lines come out at `target`.

    What cannot be written is lost, and the child goes on.
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
