"""The Python that runs the launcher, which Triton's stub embeds a second time."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from launcher.refusal import Refusal


@dataclass(frozen=True, slots=True)
class Interpreter:
    version: str  # "3.11"
    programs: Path  # the folder of `python`, in a virtual environment its bin
    packages: tuple[Path, ...]  # its site-packages
    library: str  # "libpython3.11.so.1.0"
    library_folders: tuple[Path, ...]  # where that may be
    numpy_version: str | None


def this_interpreter() -> Interpreter:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    return Interpreter(
        version=version,
        programs=Path(sys.executable).parent,
        packages=tuple(dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))),
        library=f"libpython{version}.so.1.0",
        library_folders=(folder, folder / multiarch, Path(sys.base_prefix, "lib")),
        numpy_version=_installed_version("numpy"),
    )


def _installed_version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def library_folder(python: Interpreter) -> Path:
    """Where the shared libpython is. Raises Refusal that says how to get it when it is nowhere."""
    candidates = [*python.library_folders, *_known_to_loader(python.library)]
    for folder in candidates:
        if (folder / python.library).is_file():
            return folder
    version = python.version
    raise Refusal(
        f"{python.library} is missing, which Triton's Python stub loads.\n"
        f"  Debian, Ubuntu: apt-get install libpython{version}\n"
        f"  Fedora, RHEL:   dnf install python{version}-libs (or python3-libs)\n"
        f"  pyenv:          PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {version}\n"
        "then remove .venv and make setup again, if the interpreter changed"
    )


def _known_to_loader(library: str) -> list[Path]:
    """Folders of that name in the dynamic loader's cache."""
    try:
        cache = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return []
    lines = [line.strip() for line in cache.splitlines()]
    return [Path(line.split(" => ")[1]).parent for line in lines if line.startswith(f"{library} ")]
