"""flock as NFS has it, of files that are open for writing alone: flock(2), "NFS details"."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

int flock(int file, int operation) {
  if ((operation & LOCK_EX) && (fcntl(file, F_GETFL) & O_ACCMODE) == O_RDONLY) {
    errno = EBADF;
    return -1;
  }
  return ((int (*)(int, int))dlsym(RTLD_NEXT, "flock"))(file, operation);
}
"""


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process with such locks. What it needs is compiled into `folder`."""
    source, shim = folder / "flock.c", folder / "flock.so"
    source.write_text(_SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    return {"LD_PRELOAD": str(shim)}
