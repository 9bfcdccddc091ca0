"""An environment of its own for aiperf: its dependencies come to 1.2 GB and other versions than ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from pathlib import Path

from loadtest.artifacts import ROOT
from loadtest.errors import BenchError

AIPERF = "0.13.0"
FOLDER = ROOT / ".cache" / "aiperf"
_NICENESS = 10


def installed(folder: Path = FOLDER, version: str = AIPERF) -> Path:
    """The environment's `aiperf`, made where there is none of that version. BenchError when pip fails."""
    environment = folder / f"env-{version}"
    program = environment / "bin" / "aiperf"
    if not program.is_file():
        print(f"installing aiperf {version} into {environment}: some minutes, 1.2 GB", file=sys.stderr)
        shutil.rmtree(environment, ignore_errors=True)
        venv.create(environment, with_pip=True)
        _install(environment, version)
    return program


def _install(environment: Path, version: str) -> None:
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    done = subprocess.run(
        ["nice", f"-n{_NICENESS}", *pip, f"aiperf=={version}"], stdout=sys.stderr, check=False
    )
    if done.returncode != 0:
        shutil.rmtree(environment)
        raise BenchError(f"aiperf {version} could not be installed: pip says why above")
