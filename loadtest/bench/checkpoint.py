"""Writes a checkpoint as transformers does. A program of the benchmark.

  python -m loadtest.bench.checkpoint FOLDER SHAPE      random weights; SHAPE: a plan.Shape as JSON
  python -m loadtest.bench.checkpoint FOLDER ENGINE     the package's weights; ENGINE has its tokenizer.json

The tokenizer of random weights has an id for each byte, so a text of 128 ASCII characters is 128 tokens. Its
other ids are words that no text is encoded to, but which an answer is full of.
"""

from __future__ import annotations

import json
import sys
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GenerationConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from loadtest.bench.engines import gguf_file
from loadtest.bench.plan import Shape

_SPECIAL = ("<s>", "<pad>", "</s>")
_BOS, _PAD, _EOS = range(3)
# Peers bring transformers 4, which knows these names and not those of 5.
_FOR_OLDER: dict[str, dict[str, Any]] = {
    "config.json": {"rope_theta": 100000.0, "torch_dtype": "float32"},
    "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
}


def write_package(folder: Path, tokenizer_file: Path) -> None:
    """The package's GGUF, dequantised to fp32, so that no peer starts from rounded weights."""
    model = load_gguf(gguf_file())
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer_file),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
    )
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model.config.update(ids | {"pad_token_id": tokenizer.pad_token_id})
    model.generation_config = GenerationConfig(**ids, pad_token_id=tokenizer.pad_token_id)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name, fields in _FOR_OLDER.items():
        content = json.loads((folder / name).read_text("utf-8")) | fields
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def load_gguf(gguf: Path) -> Any:
    """The model. `from_pretrained` would do the same, but asks for accelerate."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"], missing
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval()


def write_random(folder: Path, shape: Shape) -> None:
    torch.manual_seed(0)
    if shape.family == "gpt2":
        model = AutoModelForCausalLM.from_config(_gpt2(shape), dtype=torch.float32)
    else:
        model = AutoModelForSeq2SeqLM.from_config(_bart(shape), dtype=torch.float32)
    model.generation_config = GenerationConfig(
        bos_token_id=_BOS,
        pad_token_id=_PAD,
        eos_token_id=_EOS,
        decoder_start_token_id=_EOS if shape.family == "bart" else None,
    )
    model.save_pretrained(folder)
    tokens = {"bos_token": _SPECIAL[_BOS], "pad_token": _SPECIAL[_PAD], "eos_token": _SPECIAL[_EOS]}
    PreTrainedTokenizerFast(tokenizer_object=byte_tokenizer(shape.vocab), **tokens).save_pretrained(folder)


def byte_tokenizer(vocab: int) -> Tokenizer:
    """One id for each byte, and words of four letters for the other ids."""
    known = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = map("".join, product(ascii_lowercase, repeat=4))
    ids = {token: index for index, token in enumerate([*known, *islice(words, vocab - len(known))])}
    made = Tokenizer(models.BPE(vocab=ids, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _SPECIAL])
    return made


def _gpt2(shape: Shape) -> GPT2Config:
    return GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.positions,
        n_embd=shape.hidden,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.inner,
        bos_token_id=_BOS,
        eos_token_id=_EOS,
    )


def _bart(shape: Shape) -> BartConfig:
    sizes = {"layers": shape.layers, "attention_heads": shape.heads, "ffn_dim": shape.inner}
    return BartConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.positions,
        d_model=shape.hidden,
        bos_token_id=_BOS,
        pad_token_id=_PAD,
        eos_token_id=_EOS,
        decoder_start_token_id=_EOS,
        forced_eos_token_id=None,
        **{f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in sizes.items()},
    )


if __name__ == "__main__":
    _folder, _source = Path(sys.argv[1]), sys.argv[2]
    if _source.startswith("{"):
        write_random(_folder, Shape(**json.loads(_source)))
    else:
        write_package(_folder, Path(_source, "tokenizer.json"))
