"""What this process may use of the machine. The server's own program says so: folders share no modules."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = Path(__file__).resolve().parents[1] / "server" / "engine" / "edge" / "container.py"


@dataclass(frozen=True, slots=True)
class Container:
    """The cores that this process may keep busy, and the bytes of memory that it can still get."""

    cores: int
    free_memory: int


def container() -> Container:
    done = subprocess.run([sys.executable, _PROGRAM], capture_output=True, text=True, check=True)
    return Container(**json.loads(done.stdout))
