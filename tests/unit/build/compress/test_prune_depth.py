"""Layers go by measured loss, those left are renumbered, and the product before makes up for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.architecture import describe
from build.checkpoint import Checkpoint, Weight
from build.compress.corpus import windows
from build.compress.loss import mean_loss
from build.compress.passes import prune_depth
from build.compress.passes.prune_depth import Options, losses_without_each, without_layer
from build.compress.step import Pass, Tools
from build.dialects.onnxruntime.session import Session
from build.engine import build_engine
from build.errors import BadInput, Unsupported
from build.quantise import Floats, Ids, Precision
from build.recipe import Limits, Recipe
from build.reference import decoder as reference
from build.reference.parts import Parts
from tests.models import tiny

THE_PASS: Pass = prune_depth
TEXT = " ".join(f"House {number} in the street; and {number * 7 % 1000} others." for number in range(400))
SLIDING, FULL = "sliding_attention", "full_attention"
FOUR_LAYERS: dict[str, dict[str, Any]] = {
    "llama": {"num_hidden_layers": 4},
    "mistral": {"num_hidden_layers": 4, "sliding_window": 9},
    "qwen2": {
        "num_hidden_layers": 4,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 2,
    },
    "qwen3": {"num_hidden_layers": 4, "layer_types": [FULL] * 4},
    "gpt2": {"n_layer": 4},
    "gemma3_text": {"num_hidden_layers": 4, "layer_types": [SLIDING, FULL, SLIDING, SLIDING]},
}


def no_stage(_name: str, _steps: int) -> Callable[[], None]:
    return lambda: None


TOOLS = Tools((TEXT,), 0, no_stage)


def opened(folder: Path, family: str = "llama", **changes: Any) -> Checkpoint:
    positions = {"n_positions" if family == "gpt2" else "max_position_embeddings": 64}
    return tiny.opened(tiny.write_folder(folder, family, **{**FOUR_LAYERS[family], **positions, **changes}))


def changed(checkpoint: Checkpoint, values: dict[str, Floats]) -> Checkpoint:
    new = {name: Weight(value.shape, lambda v=value: v) for name, value in values.items()}  # type: ignore[misc]
    return replace(checkpoint, weights={**checkpoint.weights, **new})


def without_effect(checkpoint: Checkpoint, index: int) -> Checkpoint:
    """With a layer that adds nothing to the stream."""
    layer = describe(checkpoint.config).layers[index]
    tensors = layer.attention.output.tensors() | layer.ffn.outer.tensors()
    return changed(checkpoint, {name: np.zeros(shape, np.float32) for name, shape in tensors.items()})


def logits(checkpoint: Checkpoint, ids: Ids) -> Floats:
    architecture = describe(checkpoint.config)
    checkpoint.require_exactly(architecture.tensors())
    hidden = reference.final_hidden(checkpoint, architecture, ids, lambda: None)
    result: Floats = hidden @ reference.head_weight(checkpoint, architecture).T
    return result


def some_ids(windows_: int = 2) -> Ids:
    return np.random.default_rng(0).integers(0, len(tiny.VOCAB), (windows_, 24))


def loss(checkpoint: Checkpoint, ids: Ids) -> float:
    """By the definition, in double precision."""
    scores = logits(checkpoint, ids).astype(np.float64)
    chances = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
    given = [chances[w, p, ids[w, p + 1]] for w in range(len(ids)) for p in range(ids.shape[1] - 1)]
    return float(-np.log(given).mean())


@pytest.mark.parametrize("family", FOUR_LAYERS)
def test_losses_are_those_of_the_models_without_a_layer(family: str, tmp_path: Path) -> None:
    checkpoint, ids = opened(tmp_path, family), some_ids()
    architecture = describe(checkpoint.config)
    seen: list[None] = []
    losses = losses_without_each(checkpoint, architecture, ids, lambda: seen.append(None))
    expected = [loss(without_layer(checkpoint, architecture, index), ids) for index in range(4)]
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    assert len(seen) == 4
    assert np.ptp(losses) > 0.01


@pytest.mark.parametrize("family", FOUR_LAYERS)
@pytest.mark.parametrize("index", range(4))
def test_layers_keep_what_they_see(family: str, index: int, tmp_path: Path) -> None:
    """Where only some see a window, the layers behind would else change places with it."""
    checkpoint = opened(tmp_path, family)
    before = describe(checkpoint.config)
    short = without_layer(checkpoint, before, index)
    kept = [layer for at, layer in enumerate(before.layers) if at != index]
    after = describe(short.config).layers
    assert len(after) == 3
    for old, new in zip(kept, after, strict=True):
        assert new.attention.window == old.attention.window
        assert new.attention.rotary == old.attention.rotary
        name, renamed = old.ffn.outer.parts[0], new.ffn.outer.parts[0]
        assert short.weights[renamed] is checkpoint.weights[name]


@pytest.mark.parametrize("index", range(4))
def test_without_a_layer_that_adds_nothing_all_is_as_before(index: int, tmp_path: Path) -> None:
    checkpoint = without_effect(opened(tmp_path), index)
    short = without_layer(checkpoint, describe(checkpoint.config), index)
    np.testing.assert_allclose(logits(short, some_ids()), logits(checkpoint, some_ids()), atol=1e-4)


def test_the_layers_go_that_cost_least(tmp_path: Path) -> None:
    """The second is chosen where the first is gone already."""
    checkpoint = opened(tmp_path)
    scored = prune_depth._Texts(windows(checkpoint.tokenizer.json, TOOLS.texts, 18, 64)).scored
    expected = checkpoint
    for left in (4, 3):
        architecture = describe(expected.config)
        choices = [without_layer(expected, architecture, index) for index in range(left)]
        expected = min(choices, key=lambda choice: loss(choice, scored))
    short = THE_PASS.run(checkpoint, Options(2, refit=False), TOOLS)
    assert short.config == expected.config
    for name, weight in expected.weights.items():
        np.testing.assert_array_equal(short.weights[name].read(), weight.read())
    assert len(describe(checkpoint.config).layers) == 4


def test_what_a_layer_adds_alike_everywhere_moves_into_the_bias_before(tmp_path: Path) -> None:
    checkpoint = without_effect(opened(tmp_path, "gpt2"), 2)
    bias = describe(checkpoint.config).layers[2].ffn.outer.biases[0]
    checkpoint = changed(checkpoint, {bias: np.linspace(-3, 3, 64, dtype=np.float32)})
    architecture = describe(checkpoint.config)
    ids = windows(checkpoint.tokenizer.json, TOOLS.texts, 8, 64)
    short = without_layer(checkpoint, architecture, 2)
    fitted = prune_depth._refitted(checkpoint, short, 2, ids, lambda: None)[0]
    wrong, right = (np.abs(logits(c, ids) - logits(checkpoint, ids)).mean() for c in (short, fitted))
    assert right < wrong / 10


def test_a_refit_is_the_least_squares_of_what_the_layer_added(tmp_path: Path) -> None:
    """Against numpy's solver on all rows, with the penalty as further rows."""
    checkpoint, ids = opened(tmp_path), some_ids(12)
    architecture = describe(checkpoint.config)
    seen: dict[str, Floats] = {}
    streams: list[Floats] = []
    model = reference.Decoder(Parts(checkpoint, seen.__setitem__), architecture)
    stream = model.embed(ids)
    for layer in architecture.layers[:3]:
        streams.append(stream)
        stream = model.layer(layer, stream)
    outer = architecture.layers[1].ffn.outer
    size = np.sqrt(np.square(stream).mean(axis=-1, keepdims=True))
    inputs = (seen[outer.parts[0]] / size).reshape(-1, outer.columns).astype(np.float64)
    targets = ((stream - streams[2]) / size).reshape(-1, 64)
    penalty = np.sqrt(0.01 * np.square(inputs).sum() / outer.columns)
    rows = np.concatenate([inputs, penalty * np.eye(outer.columns)])
    solved = np.linalg.lstsq(rows, np.concatenate([targets, np.zeros((outer.columns, 64))]), rcond=None)[0]
    short = without_layer(checkpoint, architecture, 2)
    fitted = prune_depth._refitted(checkpoint, short, 2, ids, lambda: None)[0]
    change = fitted.weights[outer.parts[0]].read() - checkpoint.weights[outer.parts[0]].read()
    np.testing.assert_allclose(change, solved.T, atol=1e-3)
    assert np.abs(change).max() > 0.01


def test_a_refit_stays_only_where_held_out_texts_gain(tmp_path: Path) -> None:
    """And nothing is decided by what it was fitted to."""
    checkpoint = opened(tmp_path)
    ids = windows(checkpoint.tokenizer.json, TOOLS.texts, 18, 64)
    texts = prune_depth._Texts(ids)
    groups = (texts.scored, texts.held_out, texts.fitted)
    assert sum(map(len, groups)) == len({row.tobytes() for group in groups for row in group}) == len(ids)
    plain = THE_PASS.run(checkpoint, Options(1, refit=False), TOOLS)
    fitted = THE_PASS.run(checkpoint, Options(1), TOOLS)
    assert loss(fitted, texts.held_out) <= loss(plain, texts.held_out) + 1e-6


def test_the_same_inputs_give_the_same_weights(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    first, second = (THE_PASS.run(checkpoint, Options(2), TOOLS) for _ in range(2))
    assert first.config == second.config
    for name, weight in first.weights.items():
        np.testing.assert_array_equal(weight.read(), second.weights[name].read())


def test_every_stage_ends_where_it_said_it_would(tmp_path: Path) -> None:
    left: dict[str, int] = {}

    def stage(name: str, steps: int) -> Callable[[], None]:
        assert not left.get(name)
        left[name] = steps

        def advance() -> None:
            left[name] -= 1

        return advance

    checkpoint = opened(tmp_path)
    THE_PASS.run(checkpoint, Options(3), replace(TOOLS, stage=stage))
    assert left.get("depth") == 0
    assert not left.get("refit")


def test_more_layers_cost_more(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    once, twice = (THE_PASS.cost(checkpoint, Options(layers)) for layers in (1, 2))
    assert twice.operations == 2 * once.operations > 0
    assert THE_PASS.cost(checkpoint, Options(1, refit=False)).operations < once.operations
    assert once.memory > 0


def test_impossible_removals_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="prune-depth: layers: 0, must be a whole number of at least 1"):
        Options(0)
    with pytest.raises(BadInput, match="prune-depth: layers: 4, must be at most 3: one layer must be left"):
        THE_PASS.require(opened(tmp_path / "a"), Options(4))
    inverse = opened(tmp_path / "b", "gpt2", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(Unsupported, match="scale_attn_by_inverse_layer_idx: layers cannot be renumbered"):
        THE_PASS.require(inverse, Options(1))
    gemma = opened(tmp_path / "c", "gemma3_text")
    with pytest.raises(Unsupported, match="gemma3_text norms what its feed-forward gives: set refit = false"):
        THE_PASS.require(gemma, Options(1))
    THE_PASS.require(gemma, Options(1, refit=False))
    short = replace(TOOLS, texts=(TEXT[:230],))
    with pytest.raises(BadInput, match=r"texts: fill [123] windows, a refit needs 4: give longer ones"):
        THE_PASS.run(opened(tmp_path / "d"), Options(1), short)


@dataclass(frozen=True)
class NoProgress:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        return lambda: None


def test_the_result_builds_and_runs(tmp_path: Path) -> None:
    child = THE_PASS.run(opened(tmp_path / "source"), Options(2), TOOLS)
    recipe = Recipe(name="mini", source="-", precision=Precision.INT8, limits={"int8": Limits()})
    result = build_engine(recipe, lambda _: child, tmp_path / "models", NoProgress(), verify_tokens=96)
    assert result.manifest["model"]["layers"] == 2
    assert Session(result.target / "model.onnx", 32).prefill(0, np.arange(3, 20)).shape == (1, 263)


def test_the_loss_is_taken_piece_by_piece(tmp_path: Path) -> None:
    checkpoint = opened(tmp_path)
    architecture = describe(checkpoint.config)
    ids = np.random.default_rng(1).integers(0, len(tiny.VOCAB), (3, 100))
    hidden = reference.final_hidden(checkpoint, architecture, ids, lambda: None)
    head = reference.head_weight(checkpoint, architecture)
    assert mean_loss(hidden, head, ids) == pytest.approx(loss(checkpoint, ids), rel=1e-5)
