"""A program that writes engines as they come out on the processor that its environment describes.

CHECKPOINTS TARGET WANTED: a folder of checkpoints, the folder for their engines, and as JSON the precisions
of each checkpoint. Prints a hash of what numpy's own functions make of some numbers.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from build.architecture import describe, view
from build.assemble_onnxruntime import DecoderAssembly
from build.quantise import Precision
from build.sources.folder import open_folder
from tests.models.kernel_engines import Quiet


def main(checkpoints: Path, target: Path, wanted: dict[str, list[str]]) -> None:
    for family, precisions in wanted.items():
        opened = view(open_folder(checkpoints / family))
        for precision in precisions:
            folder = target / family / precision
            folder.mkdir(parents=True)
            DecoderAssembly(opened, describe(opened.config), Precision(precision)).write(folder, Quiet())
    values = np.random.default_rng(0).standard_normal((200, 200)).astype(np.float32)
    print(hashlib.sha256(np.exp(values @ values / 20).tobytes()).hexdigest())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
