"""Writes a checkpoint as transformers does. A program of the benchmark.

  python -m loadtest.bench.checkpoint FOLDER ENGINE          the package's weights; ENGINE: its folder
  python -m loadtest.bench.checkpoint FOLDER FAMILY SIZES    random weights of a configuration; SIZES: JSON

The tokenizer of random weights has an id for each byte, so a text of 128 ASCII characters is 128 tokens. Its
other ids are words that no text is encoded to, but which an answer is full of.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
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
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from loadtest.bench.engines import gguf_file

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
    """The model. transformers refuses to save the one that `from_pretrained` makes of a GGUF file."""
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert missing == ["lm_head.weight"], missing
    assert not unexpected, unexpected
    model.tie_weights()
    return model.eval()


def write_random(folder: Path, family: str, sizes: Mapping[str, int]) -> None:
    torch.manual_seed(0)
    start = _EOS if family == "bart" else None
    ids = {"bos_token_id": _BOS, "pad_token_id": _PAD, "eos_token_id": _EOS, "decoder_start_token_id": start}
    config = AutoConfig.for_model(family, **sizes, **ids, forced_eos_token_id=None)
    auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(**ids)
    model.save_pretrained(folder)
    tokens = {"bos_token": _SPECIAL[_BOS], "pad_token": _SPECIAL[_PAD], "eos_token": _SPECIAL[_EOS]}
    tokenizer = byte_tokenizer(config.vocab_size)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)


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


if __name__ == "__main__":
    _folder = Path(sys.argv[1])
    if len(sys.argv) == 3:
        write_package(_folder, Path(sys.argv[2], "tokenizer.json"))
    else:
        write_random(_folder, sys.argv[2], json.loads(sys.argv[3]))
