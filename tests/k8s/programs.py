"""A program that runs as long as a block does."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.live.serving import eventually

START_LIMIT_S = 120.0
STOP_LIMIT_S = 60.0


@contextmanager
def program(command: Sequence[str], folder: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """It runs in `folder`, which gets its log, and is given out once the URL `ready` answers 200. It ends in
    order: what is in its files then is whole.
    """
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        eventually(lambda: process.poll() is not None or answers(ready), START_LIMIT_S)
        assert process.poll() is None, f"{command[0]} ended:\n{log.read_text(errors='replace')[-2000:]}"
        assert answers(ready), f"{ready} does not answer:\n{log.read_text(errors='replace')[-2000:]}"
        yield process
    finally:
        process.terminate()
        process.wait(STOP_LIMIT_S)


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
