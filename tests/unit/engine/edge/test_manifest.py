from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from engine.core.errors import ArtifactError
from engine.edge.artifact import Architecture, KvDtype, ModelShape, read_manifest, verify_files

FILES = {"model.onnx": b"graph", "model.onnx.data": b"weights" * 1000, "tokens.bin": b""}


def manifest_of(files: dict[str, bytes]) -> dict[str, Any]:
    return {
        "manifest_version": 2,
        "name": "toy",
        "task": "chat",
        "prefix": "",
        "dialect": "onnxruntime",
        "precision": "int8",
        "source": {"kind": "folder", "licence": "MIT"},
        "model": {
            "family": "llama",
            "architecture": "decoder",
            "layers": 2,
            "hidden_size": 8,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 2,
            "vocab_size": 32,
            "max_positions": 64,
            "max_source_positions": 0,
            "encoder_layers": 0,
            "kv_dtype": "float32",
            "parameters": 1,
        },
        "generation": {"eos_token_ids": [2, 0], "temperature": 0.6, "top_p": 0.9, "max_tokens": None},
        "quality": {"perplexity": 12.5},
        "tokenizer": {"bos_token": "<s>", "eos_token": None},
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in files.items()
        },
        "size_bytes": sum(map(len, files.values())),
    }


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest_of(FILES)))
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ArtifactError) as caught:
        verify_files(read_manifest(folder))
    return str(caught.value)


def test_a_whole_artifact_is_accepted(artifact: Path) -> None:
    manifest = read_manifest(artifact)
    verify_files(manifest)
    assert manifest.shape == ModelShape(2, 2, 2, 32, 64, source_vocab_size=32)
    assert not manifest.shape.has_encoder
    assert manifest.eos == {0, 2}
    assert manifest.generation == {"temperature": 0.6, "top_p": 0.9}  # a null is nobody's default
    assert (manifest.dialect, manifest.licence, manifest.prefix) == ("onnxruntime", "MIT", "")
    assert manifest.quality == {"perplexity": 12.5}
    assert manifest.path("tokens.bin") == artifact / "tokens.bin"


def test_special_tokens_are_those_listed_or_the_two_of_older_builds(artifact: Path) -> None:
    assert read_manifest(artifact).special == {"bos_token": "<s>"}
    data = manifest_of(FILES)
    data["tokenizer"]["special_tokens"] = {"eos_token": "</s>", "image_token": "<image>"}
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert read_manifest(artifact).special == {"eos_token": "</s>", "image_token": "<image>"}


def test_the_kv_cache_of_a_shape() -> None:
    assert ModelShape(30, 3, 64, 49152, 8192).kv_bytes(16, 2048) == 2 * 30 * 3 * 64 * 4 * 16 * 2048


def test_the_cross_cache_counts_and_half_precision_takes_half() -> None:
    shape = ModelShape(6, 8, 64, 100, 512, Architecture.ENCODER_DECODER, 512, KvDtype.FLOAT16)
    assert shape.kv_bytes(4, 200, 300) == 2 * 6 * 8 * 64 * 2 * 4 * (200 + 300)
    assert shape.has_encoder


@pytest.mark.parametrize("change", [{"architecture": "encoder"}, {"kv_dtype": "int8"}])
def test_a_model_of_an_unknown_kind_is_refused(artifact: Path, change: dict[str, str]) -> None:
    data = manifest_of(FILES)
    data["model"] |= change
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert "is not a valid" in refused(artifact)


def test_a_missing_manifest_says_how_to_build(tmp_path: Path) -> None:
    assert refused(tmp_path / "nowhere") == (
        "INTERNAL: manifest: cannot read manifest.json (No such file or directory); "
        "build the model first: make engines"
    )


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"manifest_version": 1', b"\0", b"[" * 100_000, b"\xff\xfe{}"]
)
def test_a_manifest_that_is_not_json_is_refused(artifact: Path, content: bytes) -> None:
    (artifact / "manifest.json").write_bytes(content)
    assert refused(artifact).startswith("INTERNAL: manifest: not JSON (")


@pytest.mark.parametrize("version", [0, 1, 3, "2", None, [2]])
def test_a_manifest_of_another_version_is_refused(artifact: Path, version: object) -> None:
    text = json.dumps(manifest_of(FILES) | {"manifest_version": version})
    (artifact / "manifest.json").write_text(text)
    assert "this server reads version 2; build the model again" in refused(artifact)


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "{}"])
def test_json_that_is_no_manifest_is_refused(artifact: Path, text: str) -> None:
    (artifact / "manifest.json").write_text(text)
    assert refused(artifact).startswith("INTERNAL: manifest: version None")


@pytest.mark.parametrize("field", ["name", "task", "precision", "model", "generation", "tokenizer", "files"])
def test_an_incomplete_manifest_is_refused(artifact: Path, field: str) -> None:
    data = manifest_of(FILES)
    del data[field]
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert refused(artifact) == f"INTERNAL: manifest: incomplete: KeyError('{field}'); build the model again"


@pytest.mark.parametrize("field", ["model", "generation", "tokenizer", "files"])
@pytest.mark.parametrize("value", [3, None, "text", [1]])
def test_a_field_of_a_wrong_type_is_refused(artifact: Path, field: str, value: object) -> None:
    (artifact / "manifest.json").write_text(json.dumps(manifest_of(FILES) | {field: value}))
    assert refused(artifact).startswith("INTERNAL: manifest: incomplete: ")


def test_an_encoder_may_read_another_vocabulary(artifact: Path) -> None:
    data = manifest_of(FILES)
    data["model"]["source_vocab_size"] = 99
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert read_manifest(artifact).shape.source_vocab_size == 99


@pytest.mark.parametrize("field", sorted({*ModelShape.__slots__} - {"source_vocab_size"}))
def test_an_incomplete_shape_is_refused(artifact: Path, field: str) -> None:
    data = manifest_of(FILES)
    del data["model"][field]
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert refused(artifact).startswith("INTERNAL: manifest: incomplete: ")


@pytest.mark.parametrize("entry", [None, 3, {}, {"bytes": 5}, {"sha256": ""}])
def test_a_file_without_size_or_hash_is_refused(artifact: Path, entry: object) -> None:
    data = manifest_of(FILES)
    data["files"]["model.onnx"] = entry
    (artifact / "manifest.json").write_text(json.dumps(data))
    assert "build the model again" in refused(artifact)


def test_a_missing_file_is_refused(artifact: Path) -> None:
    (artifact / "model.onnx.data").unlink()
    assert refused(artifact) == "INTERNAL: model.onnx.data: missing; build the model again"


def test_a_folder_in_place_of_a_file_is_refused(artifact: Path) -> None:
    (artifact / "tokens.bin").unlink()
    (artifact / "tokens.bin").mkdir()
    assert refused(artifact) == "INTERNAL: tokens.bin: missing; build the model again"


def test_a_truncated_file_is_refused_with_both_sizes(artifact: Path) -> None:
    (artifact / "model.onnx.data").write_bytes(b"weights" * 999)
    assert refused(artifact) == (
        "INTERNAL: model.onnx.data: 6993 bytes, the manifest says 7000; build the model again"
    )


def test_a_changed_file_is_refused(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"grapH")
    assert refused(artifact) == (
        "INTERNAL: model.onnx: its sha256 is not the manifest's; build the model again"
    )


def test_each_step_verifies_what_it_reads(artifact: Path) -> None:
    (artifact / "model.onnx").write_bytes(b"grapH")
    manifest = read_manifest(artifact)
    verify_files(manifest, ("tokens.bin",))
    with pytest.raises(ArtifactError, match=r"^INTERNAL: tokenizer\.json: missing"):
        verify_files(manifest, ("tokenizer.json",))
