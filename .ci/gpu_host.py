"""Is this a host that `make gpu-check` can check on? Needs nothing but Python; says what is missing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path

NEEDED = """\
make gpu-check needs a host with an NVIDIA GPU:
  * a driver for CUDA 13 or newer: nvidia-smi shows the GPU and its version
  * in a container, the GPU given to it: docker run --gpus all
  * a Python package index, for onnxruntime-gpu, cuda-bindings and TensorRT
docs/gpu.md says how to build and serve there. Nothing was checked."""


def missing() -> list[str]:
    found = []
    if not Path("/dev/nvidiactl").exists():
        found.append("no /dev/nvidiactl: no NVIDIA driver is loaded, or this container was given no GPU")
    elif shutil.which("nvidia-smi") is None:
        found.append("no nvidia-smi on PATH")
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        found.append(f"the driver's library does not load ({error})")
    return found


def main() -> int:
    if found := missing():
        print("\n".join([*found, "", NEEDED]), file=sys.stderr)
        return 1
    query = "--query-gpu=index,name,compute_cap,memory.total,driver_version"
    subprocess.run(["nvidia-smi", query, "--format=csv"], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
