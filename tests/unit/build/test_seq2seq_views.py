"""Files of different age name shared tensors differently: all are read, and what differs is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

from build.architecture import describe, describe_model, view
from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported
from build.quantise import Floats
from build.sources.folder import open_folder
from tests.models import tiny_seq2seq as tiny

Tensors = dict[str, Floats]


def rewritten(folder: Path, tensors: Mapping[str, Floats]) -> Checkpoint:
    save_file(dict(tensors), folder / "model.safetensors")
    checkpoint = view(open_folder(folder))
    checkpoint.require_exactly(describe_model(checkpoint.config).tensors())
    return checkpoint


def written(folder: Path, kind: str) -> Tensors:
    tensors: Tensors = load_file(tiny.write_folder(folder, kind) / "model.safetensors")
    return tensors


@pytest.mark.parametrize(
    "name", ["model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"]
)
def test_a_shared_table_is_found_under_any_of_its_names(name: str, tmp_path: Path) -> None:
    tensors = written(tmp_path, "bart")
    table = tensors.pop("model.shared.weight")
    checkpoint = rewritten(tmp_path, {**tensors, name: table})
    assert np.array_equal(checkpoint.weights["model.shared.weight"].read(), table)


def test_copies_of_a_shared_table_are_dropped(tmp_path: Path) -> None:
    tensors = written(tmp_path, "t5")
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    rewritten(tmp_path, {**tensors, **{name: tensors["shared.weight"].copy() for name in names}})


def test_tables_of_encoder_and_decoder_that_differ_are_refused(tmp_path: Path) -> None:
    tensors = written(tmp_path, "t5")
    with pytest.raises(Unsupported, match=r"encoder\.embed_tokens\.weight differs from shared\.weight"):
        rewritten(tmp_path, {**tensors, "encoder.embed_tokens.weight": tensors["shared.weight"] + 1})


def test_flan_t5_has_a_head_of_its_own(tmp_path: Path) -> None:
    tensors = written(tmp_path, "flan-t5")
    head = tensors["shared.weight"] + 1
    checkpoint = rewritten(tmp_path, {**tensors, "lm_head.weight": head})
    assert np.array_equal(checkpoint.weights["lm_head.weight"].read(), head)


def test_a_bart_saved_without_its_head_has_no_prefixes(tmp_path: Path) -> None:
    """As bart-base is on the hub."""
    tensors = written(tmp_path, "bart")
    bare = {name.removeprefix("model."): values for name, values in tensors.items()}
    del bare["final_logits_bias"]
    checkpoint = rewritten(tmp_path, bare)
    assert not checkpoint.weights["final_logits_bias"].read().any()


def test_tables_that_are_computed_may_be_in_the_file(tmp_path: Path) -> None:
    tensors = written(tmp_path, "marian")
    waves = MarianSinusoidalPositionalEmbedding(tiny.POSITIONS, 64).create_weight().numpy()
    table = "model.encoder.embed_positions.weight"
    rewritten(tmp_path, {**tensors, table: waves.astype(np.float16)})
    for other in (waves[:-1], waves + np.float32(0.1), np.zeros_like(waves)):
        with pytest.raises(Unsupported, match=r"embed_positions\.weight is not the table of waves"):
            rewritten(tmp_path, {**tensors, table: other})
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    tensors = written(tmp_path / "t5", "t5")
    rewritten(tmp_path / "t5", {**tensors, unused: np.zeros((12, 3), np.float32)})


def test_a_part_that_nobody_would_compute_is_refused(tmp_path: Path) -> None:
    tensors = written(tmp_path, "bart")
    with pytest.raises(Unsupported, match=r"classification_head\.weight have no place"):
        rewritten(tmp_path, {**tensors, "classification_head.weight": np.zeros((3, 64), np.float32)})


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("bart", {"model_type": "prophetnet"}, "model_type: 'prophetnet' is not supported"),
        ("bart", {"activation_function": "gelu_10"}, "activation 'gelu_10' is not supported"),
        ("bart", {"d_model": 63}, "d_model 63: must be a multiple of its 2 heads"),
        ("marian", {"decoder_vocab_size": 7}, "decoder_vocab_size: 7, must be vocab_size"),
        ("t5", {"feed_forward_proj": "mixture-gelu"}, "feed_forward_proj: 'mixture-gelu' is not supported"),
        ("t5", {"relative_attention_max_distance": 6}, "relative_attention_num_buckets: 12, must be"),
        ("t5", {"d_ff": None}, "d_ff: None, must be a positive whole number"),
    ],
)
def test_a_config_that_cannot_be_built_says_why(
    kind: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    config = json.loads((tiny.write_folder(tmp_path, kind) / "config.json").read_text())
    with pytest.raises(BadInput, match=message) as refused:
        describe_model(config | changes)
    assert str(refused.value).startswith("config.json: ")


def test_what_takes_a_decoder_refuses_an_encoder_decoder(tmp_path: Path) -> None:
    config = json.loads((tiny.write_folder(tmp_path, "bart") / "config.json").read_text())
    with pytest.raises(Unsupported, match="'bart' is an encoder-decoder"):
        describe(config)


def test_pickled_weights_are_not_read_but_there_is_a_way(tmp_path: Path) -> None:
    folder = tiny.write_folder(tmp_path / "old", "bart")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadInput, match=r"only pytorch_model\.bin: convert it .*save_pretrained\('.*old'\)"):
        open_folder(folder)
