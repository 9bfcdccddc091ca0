"""A child process that answers JSON lines: what the benchmark must not, or cannot, have in its own process.

The protocol: after loading the child writes one line, then one line for each it reads; it ends when its
stdin does. Whatever else it says goes to its log.

Peers' environments import this module too: it needs the standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from loadtest.artifacts import ROOT
from loadtest.errors import BenchError

Answer = dict[str, Any]
_TAIL_LINES = 8
_SAY_EVERY_S = 20.0
Say = Callable[[str], None]


class Program:
    """Starts it, in the repository's root; `name` is for messages, `log` takes its stderr."""

    def __init__(
        self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
            )
        assert child.stdin is not None
        assert child.stdout is not None
        self._child, self._stdin, self._stdout = child, child.stdin, child.stdout
        self._ready = False

    def ask(self, **command: Any) -> Answer:
        """Raises BenchError with the end of the log when the program has ended."""
        if not self._ready:
            self._read()
            self._ready = True
        try:
            self._stdin.write(json.dumps(command) + "\n")
            self._stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None
        return self._read()

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
        self._child.communicate()

    def _read(self) -> Answer:
        line = self._stdout.readline()
        if not line:
            raise self._ended()
        answer: Answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self._name} answered {answer['error']}")
        return answer

    def _ended(self) -> BenchError:
        code = self._child.wait()
        return BenchError(f"{self._name} ended with code {code}; {end_of(self._log)}")


def run(
    what: str,
    command: Sequence[str],
    log: Path,
    say: Say | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Runs it to its end, its output in the log; `say` gets the log's last line every 20 seconds."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **(variables or {})}
        )
    try:
        while child.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_SAY_EVERY_S)
            if say and child.returncode is None:
                say(f"{what}: {end_of(log, 1).splitlines()[-1].strip()[:90]}")
    except BaseException:
        child.kill()
        child.wait()
        raise
    if child.returncode:
        raise BenchError(f"{what} failed with code {child.returncode}; {end_of(log)}")


def end_of(log: Path, lines: int = _TAIL_LINES) -> str:
    """For an error: where the log is, and its last lines."""
    found = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"the end of {log}:\n  " + "\n  ".join(found[-lines:])


def serve(load: Callable[[], Callable[[Answer], Answer]]) -> None:
    """The child's side of the protocol. `load` returns what answers; libraries may print, into the log."""
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        answer = load()
        print(json.dumps({"ready": True}), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=answers, flush=True)
