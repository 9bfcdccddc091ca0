"""Runs a program that a model wrote, in a process of its own with limits.

Limits of the kernel bound time, memory, files and processes; a hook refuses to open, connect, start or delete
anything. That keeps accidents in, and is no wall against a program made to break out.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_SECONDS, _MEMORY, _OUTPUT, _FILES = 2, 512 << 20, 1 << 16, 16
# What no function of the problems needs; `open` for reading is what `import` does.
_HOOK = """
import sys
def _refuse(event, arguments):
    if event == "open":
        mode = arguments[1]
        if mode is None or set(str(mode)) & set("wax+"):
            raise PermissionError(event)
    elif event.startswith(("socket.", "subprocess.", "os.", "shutil.", "ctypes.", "signal.")):
        if event not in ("os.listdir", "os.scandir"):
            raise PermissionError(event)
sys.addaudithook(_refuse)
"""


def passes(program: str, checks: Sequence[str]) -> bool:
    """Whether the program ends, and each check is true after it."""
    asserted = "\n".join(f"assert {check}" for check in checks)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "program.py")
        script.write_text(f"{_HOOK}\n{program}\n{asserted}\nprint('all hold')\n", encoding="utf-8")
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", str(script)],
                cwd=folder,
                env={},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=2 * _SECONDS,
                preexec_fn=_limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0 and done.stdout.endswith(b"all hold\n")


def _limit() -> None:
    for kind, most in (
        (resource.RLIMIT_CPU, _SECONDS),
        (resource.RLIMIT_AS, _MEMORY),
        (resource.RLIMIT_FSIZE, _OUTPUT),
        (resource.RLIMIT_NOFILE, _FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
