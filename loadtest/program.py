"""A child process that answers JSON lines: what the benchmark must not, or cannot, have in its own process.

The protocol: after loading the child writes one line, then one line for each it reads; it ends when its
stdin does. Whatever else it says goes to its log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from loadtest.errors import BenchError

Answer = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
_TAIL_LINES = 8


class Program:
    """Starts it, in the repository's root; `name` is for messages, `log` takes its stderr."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )
        self._ready = False

    def ask(self, **command: Any) -> Answer:
        """Raises BenchError with the end of the log when the program has ended."""
        if not self._ready:
            self._read()
            self._ready = True
        try:
            stdin = _open(self._child.stdin)
            stdin.write(json.dumps(command) + "\n")
            stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._read()

    def close(self) -> None:
        self._child.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._child.terminate()
        self.close()

    def _read(self) -> Answer:
        line = _open(self._child.stdout).readline()
        if not line:
            raise self._ended()
        answer: Answer = json.loads(line)
        return answer

    def _ended(self) -> BenchError:
        code = self._child.wait()
        tail = "\n  ".join(self._log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])
        return BenchError(f"{self._name} ended with code {code}; the end of {self._log}:\n  {tail}")


def serve(load: Callable[[], Callable[[Answer], Answer]]) -> None:
    """The child's side of the protocol. `load` returns what answers; libraries may print, into the log."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        answer = load()
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe
