"""When an engine runs on the kernels, when on ONNX Runtime, and what is said where they cannot run."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from build.architecture import describe
from build.dialects.onnxruntime.kernels import runs_on_kernels
from engine.core.contract import KernelsChoice
from engine.core.errors import ArtifactError, SettingsError
from engine.edge.artifact import KvDtype, Manifest, ModelShape
from engine.edge.settings import Footprint, Settings
from engine.runners import opening as cpu
from engine.runners.kernel_runner import KernelRunner, KernelWeights
from engine.runners.kernels import INDEX, LEVELS, KernelUse, Why, levels_here, load_kernels
from engine.runners.onnx_runner import OnnxRunner
from engine.runners.opening import open_cpu_runner
from tests.models import tiny
from tests.models.kernel_engines import VOCAB, write_kernel_engine

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


needs_kernels = pytest.mark.skipif(not levels_here(), reason="no kernels have been compiled")


@pytest.fixture
def uncompiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a library."""
    monkeypatch.setattr(cpu, "load_kernels", lambda levels: load_kernels(levels, tmp_path))
    monkeypatch.setattr(cpu, "levels_here", lambda: levels_here(tmp_path))


@needs_kernels
def test_an_int8_engine_of_the_llama_line_runs_on_the_best_level(folder: Path) -> None:
    for choice in (KernelsChoice.AUTO, KernelsChoice.ON):
        opened = open_cpu_runner(manifest(folder), replace(SMALL, kernels=choice))
        assert isinstance(opened.runner, KernelRunner)
        assert opened.kernels == KernelUse(levels_here()[0])
        assert opened.computes == "kernels"
        assert opened.manifest.shape.kv_dtype is KvDtype.FLOAT16
        assert opened.manifest.shape.kv_bytes(1, 1) * 2 == SHAPE.kv_bytes(1, 1)


@pytest.mark.parametrize("level", LEVELS)
def test_a_level_that_is_named_runs_or_says_what_is_lacking(folder: Path, level: str) -> None:
    settings = replace(SMALL, kernels=KernelsChoice(level))
    here = levels_here()
    if level in here:
        assert open_cpu_runner(manifest(folder), settings).kernels == KernelUse(level)
        return
    instead = f"; this machine runs {', '.join(here) or 'no level'}"
    with pytest.raises(SettingsError) as caught:
        open_cpu_runner(manifest(folder), settings)
    lacking = r"the processor has no [A-Z0-9_, ]+|libhalimede-.* has not been compiled: make kernels"
    assert re.fullmatch(
        rf"INVALID_ARG: kernels: {level}, ({lacking}|; )+{re.escape(instead)}", str(caught.value)
    )


def test_they_can_be_switched_off(folder: Path) -> None:
    opened = open_cpu_runner(manifest(folder), replace(SMALL, kernels=KernelsChoice.OFF))
    assert isinstance(opened.runner, OnnxRunner)
    assert opened.manifest.shape == SHAPE
    assert opened.kernels == KernelUse(None, Why.OFF, "the setting kernels is off")
    assert not opened.kernels.could_run


@pytest.mark.usefixtures("uncompiled")
def test_without_a_library_the_engine_runs_on_onnx_runtime_and_says_so(folder: Path) -> None:
    opened = open_cpu_runner(manifest(folder), SMALL)
    assert isinstance(opened.runner, OnnxRunner)
    assert opened.kernels
    assert (opened.kernels.level, opened.kernels.why, opened.kernels.could_run) == (None, Why.COMPILED, True)
    assert re.fullmatch(
        r"libhalimede-plain-\w{12}\.so has not been compiled: make kernels", opened.kernels.missing or ""
    )


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(("choice", "name"), [("on", "plain"), ("avx512", "avx512")])
def test_without_a_library_kernels_that_are_asked_for_are_refused(
    folder: Path, choice: str, name: str
) -> None:
    problem = rf"kernels: {choice}, libhalimede-{name}-\w+.so has not been compiled: make kernels"
    with pytest.raises(SettingsError, match=rf"^INVALID_ARG: {problem}; this machine runs no level$"):
        open_cpu_runner(manifest(folder), replace(SMALL, kernels=KernelsChoice(choice)))


def test_an_engine_without_an_index_runs_on_onnx_runtime(folder: Path) -> None:
    without = manifest(folder, INDEX)
    opened = open_cpu_runner(without, SMALL)
    assert isinstance(opened.runner, OnnxRunner)
    problem = "the engine has no kernels.json: they run int8 decoders of the Llama line"
    assert opened.kernels == KernelUse(None, Why.MODEL, problem)
    assert not opened.kernels.could_run
    for choice in (KernelsChoice.ON, KernelsChoice.PLAIN):
        with pytest.raises(SettingsError, match=rf"^INVALID_ARG: kernels: {choice}, {problem}$"):
            open_cpu_runner(without, replace(SMALL, kernels=choice))


@needs_kernels
def test_threads_count_to_the_memory_and_to_the_context_that_is_stated(folder: Path) -> None:
    tight = replace(SMALL, threads=4, kv_budget_bytes=150_000)
    opened = open_cpu_runner(manifest(folder), tight)
    stated = opened.footprint.max_context(tight, 150_000)
    assert SMALL.max_context < stated < Footprint(opened.manifest.shape).max_context(tight, 150_000)
    open_cpu_runner(manifest(folder), replace(tight, max_context=stated))
    problem = (
        rf"2 slots of {stated + 1} positions need [\d,]+ bytes and 4 threads [\d,]+, the limit is 150,000; "
    )
    with pytest.raises(SettingsError, match=problem):
        open_cpu_runner(manifest(folder), replace(tight, max_context=stated + 1))


@needs_kernels
def test_an_index_that_was_changed_is_refused(folder: Path) -> None:
    found = manifest(folder)
    files = {**found.files, INDEX: {"sha256": "0" * 64, "bytes": (folder / INDEX).stat().st_size}}
    with pytest.raises(ArtifactError, match=r"kernels.json"):
        open_cpu_runner(replace(found, files=files), SMALL)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"version": 2}, "version 2, this server reads 1"),
        ({"embedding": {"offset": 2**40, "shape": [8, 8]}}, "build the model again"),
        ({"embedding": {"offset": -4, "shape": [1]}}, "build the model again"),
        ({"hidden": "64"}, "hidden: '64', must be a whole number"),
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


@pytest.mark.parametrize(
    ("family", "runs"), [("llama", True), ("qwen3", True), ("gpt2", False), ("gemma3_text", False)]
)
def test_which_families_run_on_the_kernels(family: str, runs: bool) -> None:
    assert runs_on_kernels(describe(tiny.config(family))) is runs


def test_layers_of_unequal_width_are_for_the_graph() -> None:
    """As pruning leaves them; no adapter describes such a model yet."""
    even = describe(tiny.config("llama"))
    first, last = even.layers
    inner, outer = last.ffn.inner, last.ffn.outer
    ffn = replace(last.ffn, inner=replace(inner, rows=(80, 80)), outer=replace(outer, columns=80))
    assert runs_on_kernels(even)
    assert not runs_on_kernels(replace(even, layers=(first, replace(last, ffn=ffn))))


def test_a_window_shorter_than_the_context_is_for_the_graph() -> None:
    assert not runs_on_kernels(describe(tiny.config("mistral", sliding_window=100)))
    assert runs_on_kernels(describe(tiny.config("mistral", sliding_window=256)))
