"""Runs a command on an emulated processor that has AVX2, FMA and F16C, and neither AVX-512 nor VNNI.

Where the processor itself has no more than that, its own tests have shown as much: this says so, and ends.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "server"))

from numpy.core._multiarray_umath import __cpu_features__ as features

from engine.runners.onnx_runner import sums_are_exact

EMULATOR = "qemu-x86_64"


def main(command: list[str]) -> None:
    if not (features["AVX512F"] or sums_are_exact()):
        print("this processor has AVX2 and no more: the exactness tests ran on it already")
        return
    if shutil.which(EMULATOR) is None:
        sys.exit(f"{EMULATOR} is not installed (Debian: apt-get install qemu-user)")
    # Its warnings name what the emulator lacks of that processor, none of which is used.
    os.execvp(EMULATOR, [EMULATOR, "-cpu", "EPYC-Rome", *command])


if __name__ == "__main__":
    main(sys.argv[1:])
