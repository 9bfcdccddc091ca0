"""The reference weights in the form that each peer runs, converted once by the peer's own tools."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loadtest.bench.reference import gguf_file
from loadtest.peers import llama
from loadtest.peers.environment import CACHE, ENVIRONMENTS, Say, ensure, run

_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_TELEMETRY": "1"}
CHECKPOINT: Final = CACHE / "checkpoint"
OPENVINO: Final = CACHE / "openvino" / "int8"


@dataclass(frozen=True, slots=True)
class Conversion:
    """`command` writes `target`, a file or a folder, by the name that takes the place of `{target}`."""

    target: Path
    environment: str | None
    command: tuple[str, ...]


def onnx(precision: str) -> Path:
    return CACHE / "onnxruntime-genai" / precision


def gguf(kind: str) -> Path:
    """The package's own file is the Q4_1."""
    return gguf_file() if kind == "Q4_1" else CACHE / "llama.cpp" / f"{kind}.gguf"


def checkpoint(tokenizer: Path, say: Say) -> Path:
    """The Hugging Face folder that all conversions begin with; `tokenizer` is the engine's folder."""
    command = (sys.executable, "-m", "loadtest.peers.checkpoint", str(tokenizer), "{target}")
    _convert(Conversion(CHECKPOINT, None, command), say)
    return CHECKPOINT


def prepare(peer: str, say: Say) -> None:
    """The peer's environment and models; BenchError says which step failed, and where its log is."""
    if peer in ENVIRONMENTS:
        ensure(peer, say)
    for conversion in _conversions(peer):
        _convert(conversion, say)


def _conversions(peer: str) -> Sequence[Conversion]:
    return {"openvino": _openvino, "onnxruntime-genai": _onnx, "llama.cpp": _gguf}.get(peer, _none)()


def _none() -> Sequence[Conversion]:
    return ()


def _openvino() -> Sequence[Conversion]:
    program = str(ENVIRONMENTS["export"].python.parent / "optimum-cli")
    options = ("--task", "text-generation-with-past", "--weight-format", "int8", "{target}")
    return [Conversion(OPENVINO, "export", (program, "export", "openvino", "-m", str(CHECKPOINT), *options))]


def _onnx() -> Sequence[Conversion]:
    program = (str(ENVIRONMENTS["export"].python), "-m", "onnxruntime_genai.models.builder")
    # The builder's own defaults for the CPU, written out.
    options = ("-e", "cpu", "-c", str(CACHE / "export" / "cache"))
    extra = ("--extra_options", "accuracy_level=4", "block_size=32")
    return [
        Conversion(
            onnx(precision),
            "export",
            (*program, "-i", str(CHECKPOINT), "-o", "{target}", "-p", precision, *options, *extra),
        )
        for precision in ("int8", "int4")
    ]


def _gguf() -> Sequence[Conversion]:
    quantise = (str(llama.binary("llama-quantize")), "--allow-requantize")
    exact = Conversion(gguf("F32"), "llama.cpp", (*quantise, str(gguf_file()), "{target}", "F32"))
    made = [
        Conversion(gguf(kind), "llama.cpp", (*quantise, str(exact.target), "{target}", kind))
        for kind in ("Q8_0", "Q4_0")
    ]
    return [exact, *made]


def _convert(conversion: Conversion, say: Say) -> None:
    """Under another name until it is whole: an interrupted one is begun again."""
    target = conversion.target
    if target.exists():
        return
    if conversion.environment:
        ensure(conversion.environment, say)
    part = target.with_name(f"part-{target.name}")
    _remove(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    say(f"converting {target.relative_to(CACHE)}")
    command = [argument.replace("{target}", str(part)) for argument in conversion.command]
    log = target.with_name(f"{target.name}.log")
    run(f"converting {target.relative_to(CACHE)}", command, log, say, _OFFLINE)
    part.rename(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
