"""Whether this machine can run tritonserver at all."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from launcher.refusal import Refusal

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
    """Raises Refusal unless it is one that the tritonserver in the wheel was linked for."""
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
