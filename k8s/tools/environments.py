"""Python programs: checkov in an environment of its own, the others from the one that runs this."""

from __future__ import annotations

import sys
import venv
from pathlib import Path

from k8s.tools.failure import SetupFailure
from k8s.tools.running import run

LOCK = Path(__file__).with_name("checkov.lock")
REMEDY = "check that this machine reaches a package index that pip is configured for"


def place_checkov(folder: Path) -> None:
    """Install checkov and all that it needs into `folder`; begun before, it goes on from there."""
    venv.create(folder, with_pip=True, symlinks=True)
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--requirement", str(LOCK)]
    run(command, "installing checkov", REMEDY)


def installed(name: str) -> Path:
    """The program `name` of this interpreter's environment.

    Raises SetupFailure where it is missing.
    """
    program = Path(sys.executable).parent / name
    if not program.is_file():
        raise SetupFailure(
            f"no {name} beside {sys.executable}: run `make setup-k8s`, which installs the extra k8s"
        )
    return program
