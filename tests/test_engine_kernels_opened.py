"""When an engine runs on the kernels, when on ONNX Runtime, and what is said where they cannot run."""

from __future__ import annotations

import ctypes
import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from numpy.core import _multiarray_umath as multiarray

from build.architecture import describe
from build.dialects.onnxruntime.kernels import runs_on_kernels
from engine import cpu, kernels
from engine.cpu import open_cpu_runner
from engine.errors import ArtifactError, SettingsError
from engine.kernel_weights import INDEX, KernelWeights
from engine.kernels import ABI, KernelsMissing, lacking, load_library
from engine.manifest import KvDtype, Manifest, ModelShape
from engine.runner_kernels import KernelRunner
from engine.runner_onnx import OnnxRunner
from engine.settings import KernelChoice, Settings
from tests import tiny
from tests.kernel_engines import VOCAB, runs_here, write_kernel_engine

SHAPE = ModelShape(layers=2, kv_heads=2, head_dim=16, vocab_size=VOCAB, max_positions=256)
SMALL = Settings(slots=2, max_context=64, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = write_kernel_engine(tmp_path_factory.mktemp("opened"), "llama")
    (found / "tokens.bin").write_bytes(b"")
    return found


def manifest(folder: Path, *without: str) -> Manifest:
    files = {
        path.name: {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
        for path in folder.iterdir()
        if path.name not in without
    }
    return Manifest(
        folder=folder, name="small", task="complete", prefix="", dialect="onnxruntime", precision="int8",
        licence=None, size_bytes=0, shape=SHAPE, generation={}, eos=frozenset({2}), special={},
        leading_space=False, files=files, model={}, quality={}, engine={},
    )  # fmt: skip


class Reports(list[BaseException]):
    def __call__(self, error: BaseException) -> None:
        self.append(error)


@pytest.mark.skipif(not runs_here(), reason="the processor has no AVX-512 with VNNI")
def test_an_int8_engine_of_the_llama_line_runs_on_the_kernels(folder: Path) -> None:
    reports = Reports()
    served, runner = open_cpu_runner(manifest(folder), SMALL, reports)
    assert isinstance(runner, KernelRunner)
    assert not reports
    assert served.shape.kv_dtype is KvDtype.FLOAT16
    assert served.shape.kv_bytes(1, 1) * 2 == SHAPE.kv_bytes(1, 1)


def test_they_can_be_switched_off(folder: Path) -> None:
    reports = Reports()
    served, runner = open_cpu_runner(manifest(folder), replace(SMALL, kernels=KernelChoice.OFF), reports)
    assert isinstance(runner, OnnxRunner)
    assert (served.shape, reports) == (SHAPE, [])


def _none(*_: object) -> Any:
    raise KernelsMissing("libhalimede.so has not been compiled: make kernels")


def test_without_the_library_the_engine_runs_on_onnx_runtime_and_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "load_library", _none)
    reports = Reports()
    assert isinstance(open_cpu_runner(manifest(folder), SMALL, reports)[1], OnnxRunner)
    (told,) = reports
    assert str(told) == (
        "small runs on ONNX Runtime, which is slower: libhalimede.so has not been compiled: make kernels"
    )
    with pytest.raises(
        SettingsError, match=r"^INVALID_ARG: kernels: on, libhalimede.so has not been compiled"
    ):
        open_cpu_runner(manifest(folder), replace(SMALL, kernels=KernelChoice.ON), reports)


def test_an_engine_without_an_index_runs_on_onnx_runtime(folder: Path) -> None:
    reports = Reports()
    without = manifest(folder, INDEX)
    assert isinstance(open_cpu_runner(without, SMALL, reports)[1], OnnxRunner)
    assert not reports
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: kernels: on, the engine has no kernels.json"):
        open_cpu_runner(without, replace(SMALL, kernels=KernelChoice.ON), reports)


def test_an_index_that_was_changed_is_refused(folder: Path) -> None:
    found = manifest(folder)
    files = {**found.files, INDEX: {"sha256": "0" * 64, "bytes": (folder / INDEX).stat().st_size}}
    with pytest.raises(ArtifactError, match=r"kernels.json"):
        open_cpu_runner(replace(found, files=files), SMALL, Reports())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "version 2, this server reads 1"),
        ({"embedding": {"offset": 2**40, "shape": [8, 8]}}, "build the model again"),
        ({"embedding": {"offset": -4, "shape": [1]}}, "build the model again"),
        ({"hidden": "64"}, "build the model again"),
        ({"layer": None}, "build the model again"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    (tmp_path / "model.onnx.data").symlink_to(folder / "model.onnx.data")
    (tmp_path / INDEX).write_text(json.dumps(json.loads((folder / INDEX).read_text()) | change))
    with pytest.raises(ArtifactError, match=problem):
        KernelWeights(tmp_path)


def compiled(library: Path, abi: int = ABI, lacks: int = 0) -> Path:
    """A library that says what it is and what the processor lacks."""
    code = library.with_suffix(".c")
    code.write_text(
        f"int halimede_abi(void) {{ return {abi}; }}\nunsigned halimede_lacks(void) {{ return {lacks}; }}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, code], check=True)
    return library


@pytest.mark.parametrize(
    ("lacks", "named"),
    [(0b11100000, "avx512dq, avx512vl, avx512_vnni"), (0b1, "avx2"), (0b10000000, "avx512_vnni")],
)
def test_a_processor_that_lacks_an_instruction_is_named(lacks: int, named: str, tmp_path: Path) -> None:
    with pytest.raises(KernelsMissing, match=f"^the processor has no {named}$"):
        load_library(compiled(tmp_path / "lib.so", lacks=lacks))


@pytest.mark.exact
def test_the_processor_is_asked_itself() -> None:
    """Against what numpy finds by CPUID with code of its own."""
    found = multiarray.__cpu_features__
    names = {"avx2": "AVX2", "fma": "FMA3", "f16c": "F16C", "avx512_vnni": "AVX512VNNI"}
    lacks = lacking(ctypes.CDLL(str(kernels.LIBRARY)).halimede_lacks())
    for name in kernels._NEEDED:
        assert (name in lacks) is not found[names.get(name, name.upper())], name


def test_a_library_that_is_missing_or_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelsMissing, match=r"^lib.so has not been compiled: make kernels$"):
        load_library(tmp_path / "lib.so")
    (tmp_path / "lib.so").write_bytes(b"no library")
    with pytest.raises(KernelsMissing, match=r"^lib.so cannot be loaded"):
        load_library(tmp_path / "lib.so")


def test_a_library_of_another_version_is_named(tmp_path: Path) -> None:
    with pytest.raises(KernelsMissing, match=r"^lib.so is of another version: make kernels$"):
        load_library(compiled(tmp_path / "lib.so", abi=ABI + 1))


def test_the_compiler_gets_what_the_engine_looks_for() -> None:
    program = kernels.LIBRARY.parent / "compile.py"
    told = subprocess.run(
        [sys.executable, "-c", f"import runpy; print(*runpy.run_path({str(program)!r})['INSTRUCTIONS'])"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert sorted(told.replace("avx512vnni", "avx512_vnni").split()) == sorted(kernels._NEEDED)


def test_without_a_compiler_nothing_is_made_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "compile.py").write_text((kernels.LIBRARY.parent / "compile.py").read_text())
    done = subprocess.run(
        [sys.executable, tmp_path / "compile.py"],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, sorted(path.name for path in tmp_path.iterdir())) == (0, ["compile.py"])
    assert "no C compiler was found; engines run on ONNX Runtime instead" in done.stderr


@pytest.mark.parametrize(
    ("family", "runs"), [("llama", True), ("qwen3", True), ("gpt2", False), ("gemma3_text", False)]
)
def test_which_families_they_know(family: str, runs: bool) -> None:
    assert runs_on_kernels(describe(tiny.config(family))) is runs


def test_a_window_shorter_than_the_context_is_for_the_graph() -> None:
    assert not runs_on_kernels(describe(tiny.config("mistral", sliding_window=100)))
    assert runs_on_kernels(describe(tiny.config("mistral", sliding_window=256)))
