"""Estimated memory, compared with that of a process that holds the engine with every slot full.

The weights are random and of the real size: memory does not depend on what they are.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe_model
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint, Origin, TokenizerFiles, Weight
from build.quantise import Floats, Precision
from build.recipe import load_recipe
from build.recommend.memory import PROCESS, Serving, disk_bytes, footprint
from build.shape import Shape
from tests.live import artifacts
from tests.models import engines, published, seq2seq_engines
from tests.paths import PYTHONPATH, ROOT

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "precision", "served"),
    [
        ("smollm2", Precision.INT8, Serving(8, 1024, 0)),
        ("smollm2", Precision.INT4, Serving(16, 256, 0)),
        ("smollm2", Precision.FP32, Serving(4, 512, 0)),
        ("gpt2", Precision.INT8, Serving(8, 1024, 0)),
        ("bart-base", Precision.INT8, Serving(8, 256, 1024)),
        ("t5-small", Precision.INT8, Serving(8, 512, 512)),
    ],
)
def test_the_estimate_is_within_15_percent_of_a_loaded_engine(
    name: str, precision: Precision, served: Serving, tmp_path: Path
) -> None:
    shape = load_recipe(name).shape
    assert shape is not None
    folder = tmp_path / "engine"
    _write(folder, published.config(published.FAMILIES[name], shape), precision)
    measured = _loaded(folder, shape, served)
    found = footprint(shape, precision, False, served)
    estimate = found.total - found.server + PROCESS
    assert 0.85 < estimate / measured < 1.15, f"{estimate / 2**20:.0f} MiB, measured {measured / 2**20:.0f}"


def test_the_manifest_of_a_build_has_the_recipe_s_dimensions_and_size() -> None:
    shape = load_recipe("smollm2").shape
    assert shape is not None
    path = artifacts.built("int8") / "smollm2_engine" / "1" / "manifest.json"
    manifest = json.loads(path.read_text("utf-8"))
    model = manifest["model"]
    shared = set(model) & {field.name for field in fields(shape)}
    assert {"parameters", "layers", "heads", "kv_heads", "vocab_size", "max_positions"} <= shared
    assert {key: model[key] for key in shared} == {key: getattr(shape, key) for key in shared}
    estimate = disk_bytes(shape, Precision.INT8, False)
    # A rotated model has one scale a row; the estimate counts those of blocks, which others have.
    assert 0.96 * estimate < manifest["size_bytes"] <= estimate


def _write(folder: Path, config: dict[str, Any], precision: Precision) -> None:
    model = describe_model(config)
    checkpoint = _checkpoint(config, model.tensors())
    if isinstance(model, Architecture):
        engines.write_engine(folder, checkpoint, model, precision)
        (folder / "last.onnx").rename(folder / "model.onnx")
    else:
        seq2seq_engines.write_engine(folder, checkpoint, model, precision)


def _checkpoint(config: dict[str, Any], tensors: dict[str, tuple[int, ...]]) -> Checkpoint:
    weights = {
        name: Weight(shape, partial(_random, shape, seed))
        for seed, (name, shape) in enumerate(tensors.items())
    }
    tokenizer = TokenizerFiles(b"", None, {})
    return Checkpoint(config, weights, tokenizer, {}, Origin("random", "random", None, None, {}))


def _random(shape: tuple[int, ...], seed: int) -> Floats:
    """ONNX Runtime holds weights that are equal only once."""
    return np.random.default_rng(seed).standard_normal(shape, np.float32) * np.float32(0.02)


def _loaded(folder: Path, shape: Shape, served: Serving) -> int:
    model = {
        "layers": shape.layers,
        "kv_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab_size,
        "max_positions": shape.max_positions,
        "architecture": "encoder_decoder" if shape.encoder_layers else "decoder",
        "max_source_positions": shape.max_positions if shape.encoder_layers else 0,
    }
    plan = {"slots": served.slots, "context": served.context, "source": served.source, "model": model}
    command = [
        sys.executable,
        "-m",
        "tests.models.loaded_engine",
        str(folder),
        json.dumps(plan),
    ]
    environment = {"PYTHONPATH": PYTHONPATH, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)
