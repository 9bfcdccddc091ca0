from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.edge.artifact import Architecture, read_manifest
from engine.edge.settings import Settings
from engine.runners.kernels import KernelUse, Why
from engine.runners.opening import asks_to_describe, card_of, description_chunk
from tests.fakes.loop import ToyModel, ToyRunner, opened
from tests.models.artifact import write_artifact

RUNNER = ToyRunner(1, 2, ToyModel(3))


def test_an_engine_tells_what_it_serves_and_within_which_limits(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "1", quality={"perplexity": 12.5}, precision="int8")
    settings = Settings(slots=3, max_context=100, max_queue=7)
    told = json.loads(
        description_chunk(
            card_of(opened(read_manifest(folder), RUNNER, budget_bytes=10_000, device="cuda:1"), settings)
        )
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert told == {
        "describe": {
            "name": "toy",
            "task": "chat",
            "dialect": "onnxruntime",
            "precision": "int8",
            "size_bytes": manifest["size_bytes"],
            "quality": {"perplexity": 12.5},
            "model": manifest["model"],
            "licence": "Apache-2.0",
            "slots": 3,
            "max_context": 100,
            "max_source": 0,
            "max_queue": 7,
            "device": "cuda:1",
            "experimental": True,
            "runner": "onnxruntime",
            "kernels": None,
            "kernels_missing": None,
            "speculative_tokens": 0,
            "kv_bytes_per_token": 64,
            "kv_bytes_per_source_token": 0,
            "kv_bytes_per_slot": 6400,
            "kv_bytes": 19_200,
            "kv_budget_bytes": 10_000,
            "kv_max_context": 52,
        }
    }


def test_the_source_of_an_encoder_takes_memory_too(tmp_path: Path) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    shape = replace(manifest.shape, architecture=Architecture.ENCODER_DECODER, max_source_positions=40)
    told = card_of(opened(replace(manifest, shape=shape), RUNNER), Settings(slots=2, max_context=10))
    assert (told["kv_bytes_per_token"], told["kv_bytes_per_source_token"]) == (64, 64)
    assert (told["kv_bytes_per_slot"], told["kv_bytes"]) == (64 * 50, 2 * 64 * 50)
    assert (told["kv_budget_bytes"], told["kv_max_context"]) == (None, None)


def test_a_plan_takes_memory_for_all_of_its_capacity(tmp_path: Path) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    profiles = {"rows": 4, "prefill": 128, "capacity": 64, "source_capacity": 0}
    engine = {"tensorrt": "11", "compute_capability": "9.0", "profiles": profiles}
    compiled = replace(manifest, dialect="tensorrt", engine=engine)
    told = card_of(opened(compiled, RUNNER, device="cuda:0"), Settings(slots=2, max_context=10))
    assert told["runner"] == "tensorrt"
    assert (told["max_context"], told["kv_bytes_per_slot"], told["kv_bytes"]) == (10, 64 * 64, 2 * 64 * 64)


@pytest.mark.parametrize(
    ("kernels", "told"),
    [
        (KernelUse("avx2"), ("kernels", "avx2", None)),
        (KernelUse(None, Why.OFF, "the setting is off"), ("onnxruntime", None, "the setting is off")),
    ],
)
def test_it_says_which_kernels_compute_or_why_none_do(
    tmp_path: Path, kernels: KernelUse, told: tuple[str, str | None, str | None]
) -> None:
    manifest = read_manifest(write_artifact(tmp_path / "1"))
    found = card_of(opened(manifest, RUNNER, kernels=kernels), Settings())
    assert (found["runner"], found["kernels"], found["kernels_missing"]) == told
    assert not found["experimental"]


@pytest.mark.parametrize("text", ['{"describe": true}', '{"describe":true}', ' { "describe" : true } '])
def test_what_asks_for_it(text: str) -> None:
    assert asks_to_describe(text)


@pytest.mark.parametrize(
    "text",
    ["", "{", "true", "[]", '{"describe": false}', '{"describe": 2}', '{"describe": true, "sampling": {}}',
     '{"sampling":{"max_tokens":3}}', "[" * 64, "[" * 100_000],
)  # fmt: skip
def test_what_does_not(text: str) -> None:
    assert not asks_to_describe(text)
