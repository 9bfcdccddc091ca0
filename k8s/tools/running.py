"""Run a program of the setup, and say what went wrong in one message."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from k8s.tools.failure import SetupFailure

TAIL = 6  # lines of a failed program's output that are shown


def run(
    command: Sequence[str],
    doing: str,
    remedy: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """The output of `command`.

    Raises SetupFailure with the end of what it said where it fails or is not installed.
    """
    try:
        ended = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError as missing:
        raise SetupFailure(f"{doing}: no {command[0]} on this machine; {remedy}") from missing
    if ended.returncode:
        said = "\n  ".join((ended.stdout + ended.stderr).strip().splitlines()[-TAIL:])
        raise SetupFailure(f"{doing} failed; {remedy}\n  {said}")
    return ended.stdout
