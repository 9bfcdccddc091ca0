"""What an engine needs of a GPU host, and what it says where that is missing. No GPU is needed here."""

from __future__ import annotations

import hashlib
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.architecture.parts import Architecture as Decoder
from build.quantise import Precision
from engine.core.contract import DeviceChoice
from engine.core.errors import ArtifactError, EngineError, SettingsError
from engine.edge.artifact import KvDtype, Manifest, ModelShape, read_manifest
from engine.edge.settings import Settings, read_settings
from engine.edge.triton import gpu_of, signals_of
from engine.runners.cuda import check_gpu, import_tensorrt, open_cuda_session, open_memory
from engine.runners.memory import HostMemory
from engine.runners.opening import Device, choose_device, needs_gpu, tensorrt_runner
from engine.runners.runner import Profile
from engine.runners.tensorrt_plan import Plan, check_host, check_settings, read_plan
from engine.service import open_service
from tests.fakes.cuda import FakeCuda, Status, installed
from tests.fakes.onnx_executor import OnnxExecutor
from tests.models import tiny
from tests.models.artifact import write_artifact
from tests.models.tensorrt_graphs import write_graphs

PROFILES = {"rows": 4, "prefill": 8, "capacity": 48, "source_capacity": 0}
ENGINE = {"tensorrt": "10.16.1.11", "compute_capability": "9.0", "profiles": PROFILES}
PLAN = Plan("10.16.1.11", "9.0", **PROFILES)
SETTINGS = Settings(slots=2, max_context=40, prefill_chunk=8)
AUTO, CPU, CUDA = DeviceChoice.AUTO, DeviceChoice.CPU, DeviceChoice.CUDA


@pytest.mark.parametrize(
    ("choice", "needs_gpu", "placed", "wanted"),
    [
        (AUTO, None, None, "cpu"),
        (AUTO, None, 0, "cuda:0"),
        (AUTO, None, 3, "cuda:3"),
        (AUTO, "a plan", None, "cuda:0"),
        (AUTO, "a plan", 2, "cuda:2"),
        (CPU, None, 1, "cpu"),
        (CUDA, None, None, "cuda:0"),
        (CUDA, "a plan", 1, "cuda:1"),
    ],
)
def test_the_device_is_the_named_one_else_where_triton_placed_it(
    choice: DeviceChoice, needs_gpu: str | None, placed: int | None, wanted: str
) -> None:
    assert str(choose_device(choice, needs_gpu=needs_gpu, placed=placed)) == wanted


@pytest.mark.parametrize(
    ("dialect", "kind", "needed"),
    [
        ("tensorrt", KvDtype.FLOAT16, "a TensorRT engine"),
        ("onnxruntime", KvDtype.FLOAT16, "a float16 KV cache"),
        ("onnxruntime", KvDtype.FLOAT32, None),
    ],
)
def test_what_runs_on_no_cpu(tmp_path: Path, dialect: str, kind: KvDtype, needed: str | None) -> None:
    found = replace(manifest(tmp_path, dialect=dialect), shape=shape(kind))
    assert needs_gpu(found) == needed


def test_an_engine_that_needs_a_gpu_is_refused_on_a_cpu() -> None:
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: device: cpu, a TensorRT engine needs cuda; "):
        choose_device(CPU, needs_gpu="a TensorRT engine", placed=None)


@pytest.mark.parametrize(("kind", "wanted"), [("CPU", None), ("GPU", 2), ("MODEL", None)])
def test_where_triton_placed_an_instance(kind: str, wanted: int | None) -> None:
    assert gpu_of({"model_instance_kind": kind, "model_instance_device_id": "2"}) == wanted


def test_a_device_has_a_name() -> None:
    assert [str(Device()), str(Device(1))] == ["cpu", "cuda:1"]


@pytest.mark.parametrize(
    ("cuda", "problem"),
    [
        (FakeCuda(status=Status.cudaErrorInsufficientDriver, driver=0), "no NVIDIA driver is loaded; "),
        (
            FakeCuda(status=Status.cudaErrorInsufficientDriver, driver=12040),
            "the driver supports CUDA 12.4, 13.4 is installed; update the NVIDIA driver",
        ),
        (FakeCuda(status=Status.cudaErrorNoDevice), "there is no GPU; a container is given some by: "),
        (FakeCuda(status=Status.cudaErrorInvalidDevice), "CUDA does not start (cudaErrorInvalidDevice); "),
        (FakeCuda(gpus=1), "there is no GPU 1, this host has 1; instance_group names them from 0"),
    ],
)
def test_a_host_that_cannot_says_why(cuda: FakeCuda, problem: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_gpu(cuda, 1)
    assert str(caught.value).startswith(f"INVALID_ARG: device: cuda, {problem}")


def test_a_host_that_can_gives_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, FakeCuda(gpus=2))
    assert open_memory(1).place == ("cuda", 1)


@pytest.mark.parametrize(
    ("module", "package", "use"),
    [
        ("cuda.bindings.runtime", "cuda-bindings", lambda: open_memory(0)),
        ("tensorrt", "tensorrt", import_tensorrt),
    ],
)
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, use: Any
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as caught:
        use()
    assert str(caught.value).startswith(f"INVALID_ARG: device: cuda, {package} is not installed (")
    assert str(caught.value).endswith("; pip install -r server/requirements-gpu.txt")


def shape(kv_dtype: KvDtype) -> ModelShape:
    sizes: dict[str, Any] = {"layers": 2, "kv_heads": 2, "head_dim": 16, "max_positions": 256}
    return ModelShape(**sizes, vocab_size=len(tiny.VOCAB), kv_dtype=kv_dtype)


def test_an_onnxruntime_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, FakeCuda())
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(
        SettingsError, match=r"^INVALID_ARG: device: cuda, this onnxruntime .* is built without"
    ):
        open_cuda_session(Path("model.onnx"), open_memory(1), shape(KvDtype.FLOAT16))


def test_a_graph_whose_cache_is_float32_is_refused_on_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, FakeCuda())
    with pytest.raises(ArtifactError, match=r"^INTERNAL: model\.onnx: its KV cache is float32, .* in fp16$"):
        open_cuda_session(Path("model.onnx"), open_memory(1), shape(KvDtype.FLOAT32))


@pytest.mark.parametrize("engine", [{}, {"dialect": "tensorrt", "engine": ENGINE}])
def test_an_engine_for_a_gpu_does_not_open_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: dict[str, Any]
) -> None:
    installed(monkeypatch, FakeCuda(status=Status.cudaErrorNoDevice))
    folder = write_artifact(tmp_path / "1", **engine)
    with pytest.raises(SettingsError, match=r"^INVALID_ARG: device: cuda, there is no GPU; "):
        open_service(folder, SETTINGS, signals_of({}), print, placed=0)


def manifest(folder: Path, **changes: Any) -> Manifest:
    return read_manifest(write_artifact(folder / "1", **{"dialect": "tensorrt", "engine": ENGINE, **changes}))


def test_a_plan_is_described_by_its_manifest(tmp_path: Path) -> None:
    assert read_plan(manifest(tmp_path)) == PLAN


@pytest.mark.parametrize(
    "engine", [{}, ENGINE | {"profiles": {}}, ENGINE | {"profiles": PROFILES | {"rows": "x"}}]
)
def test_a_plan_that_is_not_described_is_refused(tmp_path: Path, engine: dict[str, Any]) -> None:
    with pytest.raises(
        ArtifactError, match=r"^INTERNAL: manifest: incomplete: engine: .*ENGINE=tensorrt FORCE=1$"
    ):
        read_plan(manifest(tmp_path, engine=engine))


@pytest.mark.parametrize(
    ("tensorrt", "capability", "problem"),
    [
        ("11.0.0.114", "9.0", "compiled by TensorRT 10.16.1.11, this host has 11.0.0.114; "),
        ("10.16.1.11", "8.9", "compiled for compute capability 9.0, this GPU has 8.9; "),
    ],
)
def test_a_plan_of_another_host_is_refused(
    tmp_path: Path, tensorrt: str, capability: str, problem: str
) -> None:
    found = manifest(tmp_path)
    check_host(PLAN, found, PLAN.tensorrt, PLAN.compute_capability)
    rebuild = "build it again on this host: make engines MODEL=toy ENGINE=tensorrt FORCE=1"
    with pytest.raises(ArtifactError, match=re.escape(f"INTERNAL: model.plan: {problem}{rebuild}")):
        check_host(PLAN, found, tensorrt, capability)


@pytest.mark.parametrize(
    ("name", "limit"), [("slots", 4), ("prefill_chunk", 8), ("max_context", 48), ("max_source", 0)]
)
def test_settings_beyond_the_plans_are_refused(tmp_path: Path, name: str, limit: int) -> None:
    found = manifest(tmp_path)

    def settings(value: int) -> Settings:
        return read_settings({"slots": "2", "max_context": "40", "prefill_chunk": "8", name: str(value)})

    assert check_settings(PLAN, found, settings(limit)).max_context == 48
    with pytest.raises(SettingsError, match=rf"^INVALID_ARG: {name}: {limit + 1}, must be at most {limit} "):
        check_settings(PLAN, found, settings(limit + 1))


@pytest.fixture
def toy(tmp_path: Path) -> Manifest:
    """An artifact whose plan is really ONNX."""
    checkpoint = tiny.opened(tiny.write_folder(tmp_path / "checkpoint"))
    architecture = describe(checkpoint.config)
    assert isinstance(architecture, Decoder)
    graphs = write_graphs(tmp_path / "graphs", checkpoint, architecture, Precision.FP32, PLAN.capacity)
    folder = write_artifact(tmp_path / "1")
    path = graphs.model.rename(folder / "model.plan")
    (graphs.folder / "weights").rename(folder / "weights")
    found = read_manifest(folder)
    listed = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
    return replace(found, shape=shape(KvDtype.FLOAT32), files={**found.files, "model.plan": listed})


def open_toy(toy: Manifest, settings: Settings, free_bytes: int) -> Any:
    limits = {Profile.DECODE: (4, 1), Profile.PREFILL: (1, 8)}
    return tensorrt_runner(
        toy, settings, PLAN, HostMemory(), free_bytes, lambda path: OnnxExecutor(path, limits)
    )


def test_a_plan_is_opened_and_runs(toy: Manifest) -> None:
    runner = open_toy(toy, SETTINGS, 2**30)
    runner.prefill(1, 0, [5, 6])
    assert np.isfinite(runner.decode([7, 8], [0, 2])).all()


def test_the_whole_capacity_of_a_plan_must_fit_the_gpu(toy: Manifest) -> None:
    needed = toy.shape.kv_bytes(SETTINGS.slots, PLAN.capacity)
    with pytest.raises(
        SettingsError, match=rf"^INVALID_ARG: kv_budget_bytes: 2 slots of 48 .* {needed:,} bytes"
    ):
        open_toy(toy, SETTINGS, needed)


def test_a_plan_that_was_changed_is_refused(toy: Manifest) -> None:
    with toy.path("model.plan").open("ab") as file:
        file.write(b"x")
    with pytest.raises(EngineError, match=r"^INTERNAL: model\.plan: .* bytes, the manifest says"):
        open_toy(toy, SETTINGS, 2**30)
