"""PlanOptions: how they are verified, and what `python -m build --engine tensorrt` publishes and says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from build.assemble_tensorrt import PlanOptions
from build.cli import main
from build.dialects.tensorrt.executor_cpu import CpuExecutor
from build.dialects.tensorrt.host import Host
from build.dialects.tensorrt.session import Executor
from build.dialects.tensorrt.sizes import Room
from build.dialects.tensorrt.toolkit import Missing, RtxToolkit
from build.engine import Result, build_engine
from build.errors import BadInput, BuildError, Unbuilt
from build.quantise import Precision
from build.recipe import Limits, Recipe, Runtime, parse_recipe
from build.sources.resolve import open_source
from tests.contract import check_manifest
from tests.models import tiny
from tests.unit.build.tensorrt.test_check import Silent

LOOSE = {precision.value: Limits() for precision in Precision}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint", "gemma3_text")


@dataclass
class FakeHost:
    """Builds with TensorRT-RTX; what was kept of the graphs runs in the place of plans."""

    toolkit: RtxToolkit
    graphs: Path
    version: str = "11.4.0"
    compute_capability: str = "9.0"
    seen: dict[str, int] = field(default_factory=dict)
    wrong: bool = False

    @contextmanager
    def executor(self, plan: Path, rows: int, encoder: Path | None) -> Iterator[Executor]:
        self.seen = {path.name: path.stat().st_size for path in plan.parent.iterdir()}
        graph = self.graphs / "encoder.onnx" if encoder else None
        found = CpuExecutor(self.graphs / "model.onnx", rows, graph)
        yield Wrong(found) if self.wrong else found


class Wrong:
    """A plan whose cache does not work: every step reads as if it were the first."""

    def __init__(self, executor: CpuExecutor) -> None:
        self._executor = executor
        self.inputs, self.capacity, self.source_capacity = executor.inputs, executor.capacity, 0

    def encode(self, feeds: Mapping[str, Any], row: int) -> None:
        raise NotImplementedError

    def run(self, profile: Any, feeds: Mapping[str, Any], rows: slice) -> Any:
        firsts = {key: value * 0 for key, value in feeds.items() if key == "write_indices"}
        return self._executor.run(profile, {**feeds, **firsts}, rows)


def no_host() -> Host:
    raise Missing("no GPU that CUDA can use (cudaErrorNoDevice): nvidia-smi shows those there are")


def no_checker() -> RtxToolkit:
    raise Missing("tensorrt_rtx cannot be imported")


def build(
    folder: Path, repository: Path, plans: PlanOptions, precision: Precision = Precision.FP16
) -> Result:
    recipe = Recipe("mini", str(folder), precision=precision, engine=Runtime.TENSORRT, limits=LOOSE)
    return build_engine(recipe, open_source, repository, Silent(), verify_tokens=96, plans=plans)


def test_a_gpu_host_publishes_a_plan(folder: Path, tmp_path: Path, toolkit: RtxToolkit) -> None:
    repository, kept = tmp_path / "repository", tmp_path / "kept"
    host = FakeHost(toolkit, kept)
    room = Room(slots=3, max_context=64, prefill_chunk=16)
    result = build(folder, repository, PlanOptions(no_checker, lambda: host, room, kept))
    files = {path.name for path in result.target.iterdir()}
    assert files == {"chat_template.jinja", "manifest.json", "model.plan", "tokenizer.json", "tokens.bin"}
    assert host.seen["model.plan"] > 100_000
    manifest = json.loads((result.target / "manifest.json").read_text())
    assert manifest["dialect"] == "tensorrt"
    assert manifest["model"]["kv_dtype"] == "float16"
    assert manifest["engine"] == {
        "tensorrt": "11.4.0",
        "compute_capability": "9.0",
        "profiles": {"rows": 3, "prefill": 16, "capacity": 64, "source_capacity": 0},
    }
    assert manifest["files"].keys() == files - {"manifest.json"}
    check_manifest(manifest)
    config = (repository / "mini_engine" / "config.pbtxt").read_text()
    for setting, value in (("slots", 3), ("max_context", 64), ("prefill_chunk", 16)):
        assert f'key: "{setting}" value {{ string_value: "{value}" }}' in config


@pytest.mark.parity
def test_a_gpu_host_publishes_both_plans_of_an_encoder_decoder(tmp_path: Path, toolkit: RtxToolkit) -> None:
    pytest.importorskip("torch")
    from tests.models import tiny_seq2seq  # noqa: PLC0415  (needs torch)

    folder, kept = tiny_seq2seq.write_folder(tmp_path / "checkpoint", "flan-t5"), tmp_path / "kept"
    plans = PlanOptions(lambda: toolkit, lambda: FakeHost(toolkit, kept), Room(slots=2, max_source=48), kept)
    result = build(folder, tmp_path / "repository", plans, Precision.BF16)
    assert {path.name for path in result.target.glob("*.plan")} == {"model.plan", "encoder.plan"}
    assert not list(result.target.glob("*.onnx*"))
    manifest = json.loads((result.target / "manifest.json").read_text())
    assert manifest["model"]["kv_dtype"] == "bfloat16"
    assert manifest["engine"]["profiles"]["source_capacity"] == 48


def test_a_plan_that_strays_is_not_published(folder: Path, tmp_path: Path, toolkit: RtxToolkit) -> None:
    repository, kept = tmp_path / "repository", tmp_path / "kept"
    plans = PlanOptions(no_checker, lambda: FakeHost(toolkit, kept, wrong=True), keep_onnx=kept)
    with pytest.raises(BuildError, match=r"model\.plan differs by"):
        build(folder, repository, plans)
    assert not list(repository.iterdir())


def test_without_a_gpu_it_says_what_was_checked_and_publishes_nothing(folder: Path, tmp_path: Path) -> None:
    repository, kept = tmp_path / "repository", tmp_path / "kept"
    with pytest.raises(Unbuilt) as raised:
        build(folder, repository, PlanOptions(no_checker, no_host, keep_onnx=kept))
    lines = str(raised.value).splitlines()
    assert lines[0] == "passed   model.onnx: the rules of the dialect hold"
    assert lines[1].startswith("passed   numerics on a CPU: perplexity ")
    assert lines[2] == "skipped  what TensorRT makes of the graphs: tensorrt_rtx cannot be imported"
    assert lines[3].startswith("not done the plan: no GPU that CUDA can use")
    assert lines[4].endswith(str(kept))
    assert lines[5].startswith("Nothing was published.")
    assert not list(repository.iterdir())
    assert {path.name for path in kept.iterdir()} == {"model.onnx", "model.onnx.data"}
    with pytest.raises(BadInput, match="must be a folder that is new or empty"):
        build(folder, repository, PlanOptions(no_checker, no_host, keep_onnx=kept))


def test_limits_hold_without_a_gpu_too(folder: Path, tmp_path: Path) -> None:
    strict = {Precision.INT4.value: Limits(logit_error=1e-6)}
    recipe = Recipe(
        "mini", str(folder), precision=Precision.INT4, engine=Runtime.TENSORRT, limits={**LOOSE, **strict}
    )
    with pytest.raises(BuildError, match=r"quality: max logit error .*nothing was published"):
        build_engine(
            recipe,
            open_source,
            tmp_path / "repository",
            Silent(),
            verify_tokens=96,
            plans=PlanOptions(no_checker, no_host),
        )


def test_the_command_exits_with_3_where_a_plan_takes_a_gpu(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    command = ["--name", "mini", "--source", str(folder), "--repository", str(tmp_path / "repository")]
    command += ["--engine", "tensorrt", "--precision", "fp16", "--verify-tokens", "64"]
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert "not done the plan: tensorrt cannot be imported" in out
    assert err == ""


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--slots", "4"], "--slots: only with --engine tensorrt"),
        (["--keep-onnx", "kept"], "--keep-onnx: only with --engine tensorrt"),
        (["--precision", "bf16"], "engine onnxruntime takes fp32, fp16, int8, int4, gguf"),
        (
            ["--engine", "tensorrt", "--precision", "gguf"],
            "engine tensorrt takes fp16, bf16, int8, int4, fp8",
        ),
    ],
)
def test_options_of_the_other_engine_are_refused(
    more: list[str], message: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--name", "mini", "--source", str(folder), "--repository", str(tmp_path / "repository")]
    assert main([*command, *more]) == 2
    assert message in capsys.readouterr().err


def test_a_recipe_names_its_engine() -> None:
    table = {"name": "mini", "source": "x"}
    assert parse_recipe(table).engine is Runtime.ONNXRUNTIME
    recipe = parse_recipe({**table, "engine": "tensorrt"})
    assert recipe.engine is Runtime.TENSORRT
    assert recipe.resolved()["engine"] == "tensorrt"
    with pytest.raises(BadInput, match="engine: 'trt', must be one of onnxruntime, tensorrt"):
        parse_recipe({**table, "engine": "trt"})
