"""A checkpoint with random weights, as transformers writes it. A program of the benchmark.

  python -m loadtest.models.checkpoint SHAPE FOLDER       SHAPE: the fields of `plan.Shape`, as JSON

Its tokenizer is of bytes: a text of 128 ASCII characters is 128 tokens. All other ids stand for words that no
text is encoded to, but which an answer is full of.
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
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    BartConfig,
    GenerationConfig,
    GPT2Config,
    PreTrainedTokenizerFast,
)

from loadtest.models.plan import Shape

_SPECIAL = ("<s>", "<pad>", "</s>")
_BOS, _PAD, _EOS = range(3)


def write(shape: Shape, folder: Path) -> None:
    torch.manual_seed(0)
    model = _MODELS[shape.family](shape)
    model.generation_config = _generation(shape)
    model.save_pretrained(folder)
    tokens = {"bos_token": _SPECIAL[_BOS], "pad_token": _SPECIAL[_PAD], "eos_token": _SPECIAL[_EOS]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer(shape.vocab), **tokens).save_pretrained(folder)


def tokenizer(vocab: int) -> Tokenizer:
    """One id for each byte, and words of four letters up to so many ids."""
    known = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = map("".join, product(ascii_lowercase, repeat=4))
    ids = {token: index for index, token in enumerate([*known, *islice(words, vocab - len(known))])}
    made = Tokenizer(models.BPE(vocab=ids, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in _SPECIAL])
    return made


def _gpt2(shape: Shape) -> Any:
    config = GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.positions,
        n_embd=shape.hidden,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_inner=shape.inner,
        bos_token_id=_BOS,
        eos_token_id=_EOS,
    )
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def _bart(shape: Shape) -> Any:
    sizes = {
        f"{stack}_{name}": size
        for stack in ("encoder", "decoder")
        for name, size in (
            ("layers", shape.layers),
            ("attention_heads", shape.heads),
            ("ffn_dim", shape.inner),
        )
    }
    config = BartConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.positions,
        d_model=shape.hidden,
        bos_token_id=_BOS,
        pad_token_id=_PAD,
        eos_token_id=_EOS,
        decoder_start_token_id=_EOS,
        forced_eos_token_id=None,
        **sizes,
    )
    return AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)


def _generation(shape: Shape) -> GenerationConfig:
    return GenerationConfig(
        bos_token_id=_BOS,
        pad_token_id=_PAD,
        eos_token_id=_EOS,
        decoder_start_token_id=_EOS if shape.family == "bart" else None,
    )


_MODELS = {"gpt2": _gpt2, "bart": _bart}


if __name__ == "__main__":
    write(Shape(**json.loads(sys.argv[1])), Path(sys.argv[2]))
