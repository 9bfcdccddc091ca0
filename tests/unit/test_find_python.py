"""Which Python the project's environment is made with. What is on PATH plays a machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.paths import ROOT

FIND = ROOT / ".ci" / "find_python"


class Machine:
    """`bin` is all of its PATH. A Python of another version is this one, which says so."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.cache = folder / "bin", folder / "cache"
        self.bin.mkdir()
        for name in ("bash", "env", "head"):
            (self.bin / name).symlink_to(str(shutil.which(name)))

    def has(self, name: str, script: str) -> Path:
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return path

    def python(self, name: str, version: str, venv: bool = True) -> Path:
        return self.has(
            name,
            f"""case "$*" in
              -V) echo "Python {version}.0" ;;
              *version_info*) echo {version} ;;
              *ensurepip*) exit {int(not venv)} ;;
              *) exec {sys.executable} "$@" ;;
            esac""",
        )

    def find(self, *named: str, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {k: v for k, v in os.environ.items() if k.startswith(("PIP_", "SSL_", "HTTP", "HOME"))}
        env |= {"PATH": str(self.bin), **environ}
        command = [str(FIND), str(self.cache), *named]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("pythons", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12", "python3": "3.13"}, "python3.11"),
        ({"python3.12": "3.12", "python3": "3.14"}, "python3.12"),
        ({"python3": "3.12"}, "python3"),
    ],
)
def test_what_is_there_is_taken(machine: Machine, pythons: dict[str, str], taken: str) -> None:
    for name, version in pythons.items():
        machine.python(name, version)
    done = machine.find()
    assert (done.stdout, done.stderr, done.returncode) == (f"{machine.bin / taken}\n", "", 0)


def test_a_named_python_is_taken_or_none(machine: Machine) -> None:
    machine.python("python3.11", "3.11")
    mine = machine.python("mine", "3.12")
    machine.python("newer", "3.14")
    assert machine.find("mine").stdout == f"{mine}\n"
    newer = machine.find("newer")
    assert (newer.returncode, newer.stdout) == (1, "")
    assert newer.stderr == "PYTHON=newer is Python 3.14.0: Python 3.11 or 3.12 is needed\n"
    assert machine.find("none").stderr == "PYTHON=none: there is no such program\n"


def test_a_python_without_venv_names_the_package(machine: Machine) -> None:
    machine.python("python3.12", "3.12", venv=False)
    done = machine.find()
    assert done.returncode == 1
    assert "apt-get install python3.12-venv" in done.stderr


def test_a_uv_that_is_there_fetches_one_which_is_found_the_next_time(machine: Machine) -> None:
    machine.python("python3", "3.14")
    place = machine.cache / "python" / "cpython-3.12.9-linux-x86_64-gnu" / "bin" / "python3.12"
    asked = machine.bin / "asked"
    machine.has("uv", f'echo "$@" >> {asked}; /bin/mkdir -p {place.parent}; echo > {place}')
    for _ in range(2):
        done = machine.find()
        assert (done.stdout, done.returncode) == (f"{place}\n", 0)
    folder = machine.cache / "python"
    wanted = f"python install 3.12 --managed-python --no-bin --install-dir {folder}\n"
    assert asked.read_text() == wanted


def test_without_any_python_the_error_has_the_commands_that_get_one(machine: Machine) -> None:
    done = machine.find()
    assert (done.returncode, done.stdout) == (1, "")
    assert "uv python install 3.12" in done.stderr
    assert 'make demo PYTHON="$(uv python find 3.12)"' in done.stderr


def test_a_fetch_that_fails_tells_the_command(machine: Machine) -> None:
    machine.python("python3", "3.13")
    machine.has("uv", "echo no network >&2; exit 2")
    done = machine.find()
    assert (done.returncode, done.stdout) == (1, "")
    assert "no network" in done.stderr
    assert "uv python install 3.12" in done.stderr


def test_the_real_uv_is_installed_and_takes_the_command(machine: Machine, tmp_path: Path) -> None:
    """From an archive on this machine, with a script in place of Python, and what uv rewrites."""
    machine.python("python3", "3.14")
    script = tmp_path / "python3.12"
    script.write_text("#!/bin/bash\n")
    script.chmod(0o755)
    built = tmp_path / "sysconfigdata.py"
    about = "# system configuration generated and used by the sysconfig module"
    built.write_text(f"{about}\nbuild_time_vars = {{}}\n")
    archive = tmp_path / "cpython.tar.gz"
    with tarfile.open(archive, "w:gz") as members:
        members.add(script, "python/bin/python3.12")
        members.add(built, f"python/lib/python3.12/_sysconfigdata__linux_{os.uname().machine}-linux-gnu.py")
    one = {"name": "cpython", "os": "linux", "libc": "gnu", "major": 3, "minor": 12, "patch": 1, "build": "1"}
    one |= {"prerelease": "", "url": archive.as_uri(), "sha256": None, "variant": None}
    one |= {"arch": {"family": os.uname().machine, "variant": None}}
    downloads = tmp_path / "downloads.json"
    downloads.write_text(json.dumps({f"cpython-3.12.1-linux-{os.uname().machine}-gnu": one}))
    done = machine.find(UV_PYTHON_DOWNLOADS_JSON_URL=str(downloads))
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_text() == "#!/bin/bash\n"
    assert Path(done.stdout.strip()).is_relative_to(machine.cache / "python")
