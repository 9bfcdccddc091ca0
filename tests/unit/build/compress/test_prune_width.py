"""Neurons and heads go that give least, and the columns that stay make up for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind
from hypothesis import given, settings
from hypothesis import strategies as st

from build.architecture import describe
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint, Weight
from build.compress.least_squares import Doubles
from build.compress.passes import prune_width
from build.compress.passes.prune_width import Options, best_blocks, fitted
from build.compress.step import Pass, Tools
from build.dialects.onnxruntime.session import Session
from build.engine import build_engine
from build.errors import BadInput, Unsupported
from build.quantise import Floats, Ids, Precision
from build.recipe import Limits, Recipe
from build.reference import decoder as reference
from tests.models import tiny

THE_PASS: Pass = prune_width
TEXT = " ".join(f"House {number} in the street; and {number * 7 % 1000} others." for number in range(400))
HEADED = tuple(family for family in tiny.FAMILIES if family != "gpt2")
NEURONS, KEPT = 192, 128


def no_stage(_name: str, _steps: int) -> Callable[[], None]:
    return lambda: None


TOOLS = Tools((TEXT,), 0, no_stage)


def opened(folder: Path, family: str = "llama", **changes: Any) -> Checkpoint:
    sizes = {"n_inner": NEURONS, "n_positions": 64}
    if family != "gpt2":
        sizes = {"intermediate_size": NEURONS, "max_position_embeddings": 64, "num_key_value_heads": 2}
    return tiny.opened(tiny.write_folder(folder, family, **{**sizes, **changes}))


def changed(checkpoint: Checkpoint, values: dict[str, Floats]) -> Checkpoint:
    new = {name: Weight(value.shape, lambda v=value: v) for name, value in values.items()}  # type: ignore[misc]
    return replace(checkpoint, weights={**checkpoint.weights, **new})


def without_effect(checkpoint: Checkpoint, product: str, columns: Ids) -> Checkpoint:
    """In every layer the product back named so is zero in these columns."""
    values = {}
    for layer in describe(checkpoint.config).layers:
        back = layer.ffn.outer if product == "ffn" else layer.attention.output
        weight = checkpoint.weights[back.parts[0]].read().copy()
        weight[:, columns] = 0
        values[back.parts[0]] = weight
    return changed(checkpoint, values)


def logits(checkpoint: Checkpoint) -> Floats:
    architecture: Architecture = describe(checkpoint.config)
    checkpoint.require_exactly(architecture.tensors())
    ids = np.random.default_rng(0).integers(0, len(tiny.VOCAB), (2, 24))
    hidden = reference.final_hidden(checkpoint, architecture, ids, lambda: None)
    result: Floats = hidden @ reference.head_weight(checkpoint, architecture).T
    return result


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("refit", [True, False])
def test_neurons_without_effect_go_and_cost_nothing(family: str, refit: bool, tmp_path: Path) -> None:
    """The rows that make them go with them, biases too."""
    idle = np.random.default_rng(1).permutation(NEURONS)[: NEURONS - KEPT]
    parent = without_effect(opened(tmp_path, family), "ffn", idle)
    child = THE_PASS.run(parent, Options(ffn=KEPT, refit=refit), TOOLS)
    assert describe(child.config).layers[0].ffn.outer.columns == KEPT
    np.testing.assert_allclose(logits(child), logits(parent), atol=2e-4)


@pytest.mark.parametrize("family", HEADED)
@pytest.mark.parametrize("idle", [0, 1])
def test_heads_without_effect_go_with_all_that_share_them(family: str, idle: int, tmp_path: Path) -> None:
    whole = opened(tmp_path, family)
    size = 2 * describe(whole.config).head_dim
    parent = without_effect(whole, "attention", np.arange(idle * size, (idle + 1) * size))
    child = THE_PASS.run(parent, Options(heads=1), TOOLS)
    architecture = describe(child.config)
    assert (architecture.heads, architecture.kv_heads) == (2, 1)
    assert architecture.head_dim == describe(parent.config).head_dim
    np.testing.assert_allclose(logits(child), logits(parent), atol=2e-4)


def test_both_at_once(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    child = THE_PASS.run(parent, Options(ffn=64, heads=1), TOOLS)
    shapes = {name.rpartition("layers.1.")[2]: child.weights[name].shape for name in child.weights}
    assert shapes["mlp.gate_proj.weight"] == shapes["mlp.up_proj.weight"] == (64, 64)
    assert shapes["mlp.down_proj.weight"] == (64, 64)
    assert shapes["self_attn.q_proj.weight"] == (32, 64)
    assert shapes["self_attn.k_proj.weight"] == shapes["self_attn.v_proj.weight"] == (16, 64)
    assert shapes["self_attn.o_proj.weight"] == (64, 32)
    child.require_exactly(describe(child.config).tensors())
    assert parent.config["intermediate_size"] == NEURONS
    assert parent.weights["model.layers.0.mlp.down_proj.weight"].shape == (64, NEURONS)


def test_a_twin_takes_over_what_its_twin_gave(tmp_path: Path) -> None:
    """A third of the neurons are copies of others, which give less: nothing but copies goes."""
    whole = opened(tmp_path)
    values = {}
    for layer in describe(whole.config).layers:
        for name in layer.ffn.inner.parts:
            values[name] = whole.weights[name].read().copy()
            values[name][KEPT:] = values[name][: NEURONS - KEPT]
        back = layer.ffn.outer.parts[0]
        values[back] = whole.weights[back].read().copy()
        values[back][:, KEPT:] *= np.float32(0.02)
    parent = changed(whole, values)
    children = (THE_PASS.run(parent, Options(ffn=KEPT, refit=refit), TOOLS) for refit in (False, True))
    wrong, right = (np.abs(logits(child) - logits(parent)).mean() for child in children)
    assert right < wrong / 3


MATRICES = st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(1, 3), st.integers(0, 2**32 - 1))


@given(MATRICES)
@settings(max_examples=60, deadline=None)
def test_the_blocks_stay_that_give_most(drawn: tuple[int, int, int, int]) -> None:
    rows, count, size, seed = drawn
    random = np.random.default_rng(seed)
    weight = random.standard_normal((rows, count * size)).astype(np.float32)
    magnitudes = random.random(count * size).astype(np.float32)
    gives = [magnitudes[at] * np.sqrt(np.square(weight[:, at]).sum()) for at in range(count * size)]
    given_by = [sum(gives[start : start + size]) for start in range(0, count * size, size)]
    keep = int(random.integers(1, count))
    expected = sorted(sorted(range(count), key=lambda b: -given_by[b])[:keep])
    assert best_blocks(weight, magnitudes, count, keep).tolist() == expected


@given(MATRICES)
@settings(max_examples=60, deadline=None)
def test_the_columns_left_are_the_ridge_solution(drawn: tuple[int, int, int, int]) -> None:
    """Against numpy's solver on all rows, with the penalty as further rows: it draws to the old weights."""
    rows, count, size, seed = drawn
    random = np.random.default_rng(seed)
    width = count * size
    weight = random.standard_normal((rows, width)).astype(np.float32)
    inputs: Doubles = random.standard_normal((3 * width, width)) @ random.standard_normal((width, width))
    columns = np.sort(random.permutation(width)[: max(1, width // 2)])
    left = inputs[:, columns]
    penalty = np.sqrt(0.01 * np.square(left).mean(axis=0).sum() * len(left) / len(columns)) * np.eye(
        len(columns)
    )
    targets = np.concatenate([inputs @ weight.T, penalty @ weight[:, columns].T])
    expected = np.linalg.lstsq(np.concatenate([left, penalty]), targets, rcond=None)[0].T
    np.testing.assert_allclose(fitted(weight, inputs.T @ inputs, columns), expected, rtol=1e-3, atol=1e-4)


def test_blocks_of_the_source_keep_the_rows_that_stay(tmp_path: Path) -> None:
    path = tiny.write_gguf(tmp_path / "m.gguf", "qwen2", Kind.Q8_0, intermediate_size=NEURONS)
    child = THE_PASS.run(tiny.opened_gguf(path), Options(ffn=KEPT, refit=False), TOOLS)
    up, down = (child.weights[f"model.layers.0.mlp.{name}_proj.weight"] for name in ("up", "down"))
    assert up.read_blocks is not None
    np.testing.assert_array_equal(up.read_blocks().dequantise(), up.read())
    assert up.read().shape == (KEPT, 64)
    assert down.read_blocks is None


def test_the_same_inputs_give_the_same_weights(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    first, second = (THE_PASS.run(parent, Options(ffn=KEPT, heads=1), TOOLS) for _ in range(2))
    for name, weight in first.weights.items():
        np.testing.assert_array_equal(weight.read(), second.weights[name].read())


def test_more_work_costs_more(tmp_path: Path) -> None:
    parent = opened(tmp_path)
    one, both = (THE_PASS.cost(parent, options) for options in (Options(ffn=64), Options(ffn=64, heads=1)))
    assert both.operations > one.operations > 0
    assert both.memory >= one.memory > 0


def test_impossible_widths_are_refused(tmp_path: Path) -> None:
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({}, "prune-width: names neither ffn nor heads"),
        ({"ffn": 100}, "prune-width: ffn: 100, must be a multiple of 64"),
        ({"ffn": 0}, "prune-width: ffn: 0, must be a whole number of at least 64"),
        ({"heads": 0}, "prune-width: heads: 0, must be a whole number of at least 1"),
    )
    for options, problem in cases:
        with pytest.raises(BadInput, match=problem):
            Options(**options)
    parent = opened(tmp_path / "a")
    with pytest.raises(BadInput, match="ffn: 192, must be at most 191: there are 192 neurons"):
        THE_PASS.require(parent, Options(ffn=192))
    with pytest.raises(BadInput, match="heads: 2, must be at most 1: there are 2 kv heads"):
        THE_PASS.require(parent, Options(heads=2))
    with pytest.raises(Unsupported, match="heads: gpt2 derives the size of a head from their number"):
        THE_PASS.require(opened(tmp_path / "b", "gpt2"), Options(heads=2))


@dataclass(frozen=True)
class NoProgress:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        return lambda: None


def test_the_result_builds_and_runs(tmp_path: Path) -> None:
    child = THE_PASS.run(opened(tmp_path / "source", "qwen2"), Options(ffn=KEPT, heads=1), TOOLS)
    recipe = Recipe(name="mini", source="-", precision=Precision.INT8, limits={"int8": Limits()})
    result = build_engine(recipe, lambda _: child, tmp_path / "models", NoProgress(), verify_tokens=96)
    assert result.manifest["model"]["kv_heads"] == 1
    assert Session(result.target / "model.onnx", 32).prefill(0, np.arange(3, 20)).shape == (1, 263)
