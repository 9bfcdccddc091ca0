"""Whether this machine can run tritonserver, and the facts of its Python, which Triton's stub embeds too."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from launcher import Refusal

MIB = 2**20
GLIBC = (2, 35)
# Each model has three steps with a region of REGION_BYTES each, and room for one of them to grow.
REGION_BYTES = 4 * MIB
MODEL_BYTES = 4 * REGION_BYTES
SPARE_BYTES = 16 * MIB


@dataclass(frozen=True, slots=True)
class Platform:
    system: str  # "Linux"
    machine: str  # "x86_64"
    libc: str  # "glibc", or "" for musl and others
    libc_version: str  # "2.36"


def this_platform() -> Platform:
    return Platform(platform.system(), platform.machine(), *platform.libc_ver())


def check_platform(found: Platform) -> None:
    """Raises Refusal unless the tritonserver of the wheel runs on this platform."""
    needed = f"Linux x86-64 with glibc {GLIBC[0]}.{GLIBC[1]} or newer"
    if (found.system, found.machine) != ("Linux", "x86_64"):
        raise Refusal(f"tritonserver needs {needed}; this is {found.system} {found.machine}")
    if found.libc != "glibc":
        raise Refusal(f"tritonserver needs {needed}; this system's C library is another one")
    if tuple(int(part) for part in found.libc_version.split(".")[:2]) < GLIBC:
        raise Refusal(
            f"tritonserver needs {needed}; this is glibc {found.libc_version} "
            "(Debian 12 and Ubuntu 22.04 are new enough)"
        )


def check_shared_memory(folder: Path, models: int = 1) -> None:
    """Raises Refusal unless Triton and the steps of so many models can exchange tensors in `folder`."""
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise Refusal(f"{folder} is not a folder that this user can write to: Triton needs it")
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    needed = SPARE_BYTES + models * MODEL_BYTES
    if free < needed:
        raise Refusal(
            f"{folder} has {free // MIB} MiB free, {needed // MIB} MiB are needed; "
            "in a container, --shm-size sets its size"
        )


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the launcher."""

    version: str  # "3.11"
    programs: Path  # the folder of `python`, in a virtual environment its bin
    packages: tuple[Path, ...]  # its site-packages
    library: str  # "libpython3.11.so.1.0"
    library_folders: tuple[Path, ...]  # where the library may be
    numpy_version: str | None


def this_interpreter() -> Interpreter:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib")
    try:
        numpy = importlib.metadata.version("numpy")
    except importlib.metadata.PackageNotFoundError:
        numpy = None
    multiarch = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    return Interpreter(
        version=version,
        programs=Path(sys.executable).parent,
        packages=tuple(dict.fromkeys(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))),
        library=f"libpython{version}.so.1.0",
        library_folders=(folder, folder / multiarch, Path(sys.base_prefix, "lib")),
        numpy_version=numpy,
    )


def library_folder(python: Interpreter) -> Path:
    """The folder of the shared libpython. If there is none, raises Refusal that says how to install it."""
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
