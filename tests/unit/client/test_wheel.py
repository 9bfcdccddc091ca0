"""The wheel in an environment that has nothing else of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.paths import ROOT

pytestmark = pytest.mark.slow


def _run(*command: object, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_alone_has_the_command_and_every_input(tmp_path: Path) -> None:
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "alone", with_pip=False)
    python = tmp_path / "alone" / "bin" / "python"
    _run(*pip, "--python", python, "install", "-c", ROOT / "requirements.lock", wheel, cwd=tmp_path)
    assert "generate" in _run(python.with_name("halimede"), "--help", cwd=tmp_path)
    assert "--bad-words" in _run(python.with_name("halimede"), "generate", "--help", cwd=tmp_path)
    assert str(tmp_path) in _run(python, "-c", "import halimede; print(halimede.__file__)", cwd=tmp_path)
