from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.describe import asks_to_describe, describe, description_chunk
from engine.manifest import read_manifest
from engine.settings import Settings
from tests.artifact import write_artifact


def test_an_engine_tells_what_it_serves_and_within_which_limits(tmp_path: Path) -> None:
    folder = write_artifact(tmp_path / "1", quality={"perplexity": 12.5}, precision="int8")
    settings = Settings(slots=3, max_context=100, max_queue=7)
    told = json.loads(description_chunk(describe(read_manifest(folder), settings, "cuda:1")))
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
        }
    }


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
