"""`--check transformers` over tiny checkpoints of every family, in every layout that is found in the wild.

And that it can contradict: builds whose reader makes one of the mistakes it once made are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

pytest.importorskip("torch")
pytest.importorskip("transformers")

from build.architecture.positions import inverse_frequencies
from build.checkpoint import Checkpoint
from build.cli import main
from build.manifest import Json, manifest
from build.sources.folder import open_folder
from build.tokenizer_fit import fitted
from tests.models import tiny, tiny_seq2seq

pytestmark = pytest.mark.parity
Tensors = dict[str, Any]
Layout = Callable[[Path], object]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def write(folder: Path, family: str, **changes: Any) -> Path:
    if family in tiny.FAMILIES:
        return tiny.write_folder(folder, family, **changes)
    return tiny_seq2seq.write_folder(folder, family, **changes)


def edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def embedding(tensors: Tensors) -> str:
    ends = ("embed_tokens.weight", "wte.weight", "shared.weight")
    return next(name for end in ends[::-1] for name in tensors if name.endswith(end))


def own_head(folder: Path) -> None:
    """The config ties the head to the embedding, and the file has another one."""
    edit(folder / "config.json", tie_word_embeddings=True)
    rewrite(folder, lambda t: {**t, "lm_head.weight": t[embedding(t)][::-1].copy()})


def equal_head(folder: Path) -> None:
    edit(folder / "config.json", tie_word_embeddings=True)
    rewrite(folder, lambda t: {**t, "lm_head.weight": t[embedding(t)].copy()})


def head_alone(folder: Path) -> None:
    """The tied table goes by the name of the head."""
    edit(folder / "config.json", tie_word_embeddings=True)
    rewrite(folder, lambda t: {**t, "lm_head.weight": t.pop(embedding(t))})


def bare(folder: Path) -> None:
    """Saved as the model without its head, whose names have no prefix."""
    edit(folder / "config.json", tie_word_embeddings=True)
    rewrite(
        folder,
        lambda t: {
            name.removeprefix("model.").removeprefix("transformer."): values
            for name, values in t.items()
            if name != "lm_head.weight"
        },
    )


def left_over_index(folder: Path) -> None:
    """The shards of an earlier save with their index, and the whole file of the next."""
    whole = load_file(folder / "model.safetensors")
    tiny.shard(folder)
    save_file({name: values * 0.5 for name, values in whole.items()}, folder / "model.safetensors")


def buffers(folder: Path) -> None:
    names = [f"model.layers.{index}.self_attn.rotary_emb.inv_freq" for index in range(2)]
    rewrite(folder, lambda t: {**t, **{name: np.full(8, 7, np.float32) for name in names}})


def masks(folder: Path) -> None:
    mask = np.tril(np.ones((1, 1, 256, 256), bool))
    rewrite(
        folder, lambda t: {**t, "h.0.attn.bias": mask, "h.1.attn.masked_bias": np.array(-1e4, np.float32)}
    )


def as_it_is(folder: Path) -> None:
    pass


def absent(*keys: str) -> Layout:
    def layout(folder: Path) -> None:
        edit(folder / "config.json", **dict.fromkeys(keys, ...))

    layout.__name__ = f"without {' '.join(keys)}"
    return layout


def settings(**changes: Any) -> Layout:
    def layout(folder: Path) -> None:
        edit(folder / "config.json", **changes)

    layout.__name__ = " ".join(changes)
    return layout


def generation(**changes: Any) -> Layout:
    def layout(folder: Path) -> None:
        edit(folder / "generation_config.json", **changes)

    layout.__name__ = f"generation {' '.join(f'{key} {value}' for key, value in changes.items())}"
    return layout


EVERY = [(family, as_it_is) for family in (*tiny.FAMILIES, *tiny_seq2seq.KINDS)]
LAYOUTS: list[tuple[str, Layout]] = [
    *EVERY,
    *((family, own_head) for family in (*tiny.FAMILIES, "bart", "t5", "flan-t5", "mt5")),
    *((family, tiny.shard) for family in ("llama", "gpt2", "bart", "t5")),
    *((family, head_alone) for family in ("qwen2", "gpt2", "gemma3_text", "bart", "t5")),
    *((family, bare) for family in ("llama", "gpt2", "gemma3_text", "bart")),
    *((family, equal_head) for family in ("qwen3", "t5")),
    ("mistral", left_over_index),
    ("llama", buffers),
    ("gpt2", masks),
    ("mistral", absent("sliding_window", "rms_norm_eps")),
    ("qwen2", settings(use_sliding_window=True, sliding_window=20, max_window_layers=1)),
    ("llama", settings(rope_scaling=LLAMA3)),
    ("llama", settings(rope_scaling={"type": "linear", "factor": 4.0}, rope_parameters=LLAMA3)),
    ("gemma3_text", absent("query_pre_attn_scalar", "rope_theta", "rope_local_base_freq", "sliding_window")),
    ("gemma3_text", settings(rope_scaling={"rope_type": "linear", "factor": 8.0})),
    ("gpt2", absent("activation_function", "layer_norm_epsilon", "n_inner")),
    ("gpt2", settings(n_embd=..., hidden_size=64, n_layer=..., num_hidden_layers=2)),
    ("t5", settings(scale_decoder_outputs=True, tie_word_embeddings=False)),
    ("llama", generation(do_sample=True, temperature=0.6, top_k=20, top_p=0.95, repetition_penalty=1.1)),
    ("llama", generation(do_sample=True)),
    ("llama", generation(top_k=7, temperature=0.2)),
    ("bart", generation(num_beams=4, length_penalty=2.0, no_repeat_ngram_size=3, forced_bos_token_id=0)),
]


def run(source: Path, repository: Path, *more: str) -> int:
    arguments = ["--name", "tiny", "--source", str(source), "--repository", str(repository)]
    return main(
        [*arguments, "--precision", "fp32", "--verify-tokens", "64", "--check", "transformers", *more]
    )


@pytest.mark.parametrize(("family", "layout"), LAYOUTS, ids=[f"{f}-{way.__name__}" for f, way in LAYOUTS])
def test_transformers_reads_the_same_model(
    family: str, layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "checkpoint", family)
    layout(folder)
    code = run(folder, tmp_path / "repository")
    printed = capsys.readouterr()
    assert code == 0, printed.err
    manifest = json.loads((tmp_path / "repository/tiny_engine/1/manifest.json").read_text("utf-8"))
    assert manifest["check"]["by"] in printed.out
    assert manifest["check"]["texts"] > 4
    assert manifest["check"]["chats"] == (5 if family in tiny.FAMILIES else 0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3_text"])
def test_transformers_reads_the_same_gguf_file(family: str, tmp_path: Path) -> None:
    # Of these two transformers does not read the size of the heads, or what goes by it, in a GGUF file.
    sizes: dict[str, Any] = {"qwen3": {"head_dim": 128}, "gemma3_text": {"head_dim": 256}}.get(family, {})
    path = tiny.write_gguf(tmp_path / "tiny.gguf", family, **sizes)
    assert run(path, tmp_path / "repository") == 0


def _drop_the_head(monkeypatch: pytest.MonkeyPatch) -> None:
    def headed(checkpoint: Checkpoint, _: str) -> Checkpoint:
        kept = {name: weight for name, weight in checkpoint.weights.items() if name != "lm_head.weight"}
        return replace(checkpoint, weights=kept)

    monkeypatch.setattr("build.architecture.llama.headed", headed)


def _halve_the_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    def halved(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
        return tuple(frequency / 2 for frequency in inverse_frequencies(config, head_dim))

    monkeypatch.setattr("build.architecture.llama.inverse_frequencies", halved)


def _spell_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def spelled(tokenizer: bytes, vocabulary: int) -> bytes:
        content = json.loads(fitted(tokenizer, vocabulary))
        content["added_tokens"] = content["added_tokens"][:2]
        return json.dumps(content).encode()

    monkeypatch.setattr("build.engine.fitted", spelled)


def _sample(monkeypatch: pytest.MonkeyPatch) -> None:
    def sampled(*given: Any) -> Json:
        content = manifest(*given)
        content["generation"]["temperature"] = 0.7
        return content

    monkeypatch.setattr("build.engine.manifest", sampled)


def _strip_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    def stripped(folder: Path) -> Checkpoint:
        checkpoint = open_folder(folder)
        template = str(checkpoint.tokenizer.chat_template).replace("m.content", "m.content.strip()")
        return replace(checkpoint, tokenizer=replace(checkpoint.tokenizer, chat_template=template))

    monkeypatch.setattr("build.sources.resolve.open_folder", stripped)


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (_drop_the_head, r"the logit of token \d+ at position 0 is .*, with transformers it is"),
        (_halve_the_frequencies, r"the logit of token \d+ at position [1-9]\d* is"),
        (
            _spell_a_token,
            r"text '<\|im_end\|>' is 10 token ids, with transformers 1: from place 0 on",
        ),
        (_sample, r"generation: temperature is 0\.7, with transformers it is 0\.0"),
        (_strip_messages, r"chat \[.*\] renders as '.*', with transformers as"),
    ],
)
def test_a_reader_that_is_wrong_is_contradicted(
    mistake: Callable[[pytest.MonkeyPatch], None],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = write(tmp_path / "checkpoint", "llama")
    own_head(folder)
    mistake(monkeypatch)
    assert run(folder, tmp_path / "repository") == 1
    assert re.search(f"error: check: {said}", capsys.readouterr().err)
    assert not list((tmp_path / "repository").iterdir())
