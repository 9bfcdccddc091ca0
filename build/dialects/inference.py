"""The one place where the build opens ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import onnxruntime as ort

from build.container import container

# On x86 without VNNI, products of unsigned by signed bytes are summed in 16 bits, which saturate. With this
# sums are exact on every processor; one that has VNNI takes longer for the same numbers.
_EXACT = {"session.x64quantprecision": "1"}

_cores = cache(lambda: container().cores)


def open_session(
    graph: Path | bytes, *, threads: int = 0, entries: Mapping[str, str] | None = None
) -> ort.InferenceSession:
    """A session on the CPU, whose integer products are exact; `threads` 0 is one for each usable core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _cores()
    options.log_severity_level = 3
    for name, value in {**_EXACT, **(entries or {})}.items():
        options.add_session_config_entry(name, value)
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
