"""The one place where the engine opens ONNX Runtime, and where products of bytes are made exact."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from engine.errors import ArtifactError

Provider = str | tuple[str, Mapping[str, str]]
CPU: Final = "CPUExecutionProvider"
# An ONNX file of one node, y INT32 [m, n] = MatMulInteger(x UINT8 [m, k], w INT8 [k, n]): the engine has no
# package that could write it.
_PRODUCT: Final = bytes.fromhex(
    "08083a620a180a01780a0177120179220d4d61744d756c496e74656765721201705a150a017812100a0e0802120a0a03"
    "12016d0a0312016b5a150a017712100a0e0803120a0a0312016b0a0312016e62150a017912100a0e0806120a0a031201"
    "6d0a0312016e42040a00100d"
)


def open_session(path: Path, threads: int = 0, provider: Provider = CPU) -> ort.InferenceSession:
    """`threads` 0 is one for each core. Raises ArtifactError when ONNX Runtime cannot load the graph."""
    options = _options(threads)
    if not sums_are_exact():
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return ort.InferenceSession(str(path), options, providers=[provider])
    except Exception as error:  # ONNX Runtime raises many types for a bad file
        raise ArtifactError(path.name, f"ONNX Runtime cannot load it: {error}") from error


@cache
def sums_are_exact() -> bool:
    """Whether this processor sums products of unsigned by signed bytes in 32 bits without being asked to.

    An x86 processor without VNNI sums pairs in 16 bits, which saturate. A product of the largest numbers
    shows it. A list of processors would lack the next one, and /proc/cpuinfo may describe another machine's.
    """
    session = ort.InferenceSession(_PRODUCT, _options(1), providers=[CPU])
    inputs, weights = np.full((4, 64), 255, np.uint8), np.full((64, 16), 127, np.int8)
    sums = [session.run(None, {"x": inputs[:rows], "w": weights})[0] for rows in (1, len(inputs))]
    return all(bool((found == 64 * 255 * 127).all()) for found in sums)


def _options(threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Shapes change with every prompt, so a plan of the last shapes only holds memory.
    options.enable_mem_pattern = False
    return options
