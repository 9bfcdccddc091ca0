"""Tiny random encoder-decoders of every family, made and saved by transformers' own classes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from tests.models import tiny
from tests.models.spm import write_spm, write_vocabulary

POSITIONS = 96
_ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
_BART_VOCAB = ["<s>", "<pad>", "</s>", "<unk>", *_ALPHABET, "Ġt", "he", "in", "Ġthe", "<mask>"]
_SPACE = "\u2581"
_LETTERS = [chr(code) for code in range(0x21, 0x7F)]
_WORDS = ["the", "of", "and", "to", "is", "a", "in", "that", "object", "name"]
PIECES = [_SPACE, *(_SPACE + word for word in _WORDS), *_WORDS[:4], "ing", "er", "ed", *_LETTERS]
PIECES = list(dict.fromkeys(PIECES))
T5_VOCAB = ["<pad>", "</s>", "<unk>", *PIECES, "<extra_id_1>", "<extra_id_0>"]
MARIAN_VOCAB = ["</s>", "<unk>", *PIECES, ">>de<<", "<pad>"]
TARGET_VOCAB = ["</s>", "<unk>", *PIECES[:60], "<pad>"]
_SIZES = {
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": POSITIONS,
    "init_std": 0.15,
}
_T5_SIZES = {
    "vocab_size": len(T5_VOCAB),
    "d_model": 64,
    "d_kv": 24,
    "d_ff": 96,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 3,
    "decoder_start_token_id": 0,
    "relative_attention_num_buckets": 12,
    "relative_attention_max_distance": 40,
}


@dataclass(frozen=True)
class Kind:
    """A variant of a family: the name of transformers' configuration, model, and what differs."""

    config: str
    model: str
    settings: dict[str, Any]
    write_tokenizer: Callable[[Path], None]
    generation: dict[str, Any] = field(default_factory=dict)


def write_folder(folder: Path, kind: str = "bart", seed: int = 0, **changes: Any) -> Path:
    """A checkpoint as save_pretrained leaves it, weights, settings and tokenizer."""
    chosen = KINDS[kind]
    torch.manual_seed(seed)
    config = getattr(transformers, chosen.config)(**{**chosen.settings, **changes})
    model = getattr(transformers, chosen.model)(config).eval()
    _unsettle(model)
    for key, value in chosen.generation.items():
        setattr(model.generation_config, key, value)
    model.save_pretrained(folder)
    chosen.write_tokenizer(folder)
    return folder


def load(folder: Path) -> Any:
    """transformers' model of the folder, in fp32."""
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()


def _unsettle(model: Any) -> None:
    """Norms and biases as training leaves them, not at ones and zeros, where faults would not show."""
    with torch.no_grad():
        for name, values in (*model.named_parameters(), *model.named_buffers()):
            if name == "final_logits_bias" or values.ndim == 1:
                values.add_(torch.randn_like(values) * 0.1)
            elif "relative_attention_bias" in name:
                values.copy_(torch.randn_like(values))


def _write_bart_tokenizer(folder: Path) -> None:
    vocab = {token: index for index, token in enumerate(_BART_VOCAB)}
    tokenizer = Tokenizer(models.BPE(vocab, tiny.MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*_BART_VOCAB[:4], "<mask>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    _save(folder, tokenizer, {"bos_token": "<s>", "eos_token": "</s>"})


def t5_tokenizer() -> Tokenizer:
    """As T5 has it: pieces of SentencePiece, `</s>` after every text."""
    scores = [(token, -1.0 - index / 10) for index, token in enumerate(T5_VOCAB)]
    tokenizer = Tokenizer(models.Unigram(scores, 2, False))
    tokenizer.normalizer = normalizers.Replace("  ", " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*T5_VOCAB[:3], "<extra_id_0>", "<extra_id_1>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", T5_VOCAB.index("</s>"))]
    )
    return tokenizer


def _write_marian_tokenizer(folder: Path) -> None:
    _write_marian(folder, {})


def _write_marian_tokenizers_apart(folder: Path) -> None:
    write_vocabulary(folder / "target_vocab.json", TARGET_VOCAB)
    _write_marian(folder, {"separate_vocabs": True})


def _write_marian(folder: Path, settings: dict[str, Any]) -> None:
    scores = [(piece, -1.0 - index / 10) for index, piece in enumerate(PIECES)]
    write_spm(folder / "source.spm", scores)
    write_spm(folder / "target.spm", [entry for entry in scores if entry[0] in TARGET_VOCAB])
    write_vocabulary(folder / "vocab.json", MARIAN_VOCAB)
    settings = {"tokenizer_class": "MarianTokenizer", "source_lang": "en", "target_lang": "de"} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def _write_t5_tokenizer(folder: Path) -> None:
    _save(folder, t5_tokenizer(), {"eos_token": "</s>"})


def _save(folder: Path, tokenizer: Tokenizer, names: dict[str, str]) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | names), encoding="utf-8")


_BART = {**_SIZES, "vocab_size": len(_BART_VOCAB)}
_T5_TASKS = {
    "task_specific_params": {
        "summarization": {
            "prefix": "summarize: ",
            "num_beams": 4,
            "early_stopping": True,
            "length_penalty": 2.0,
            "min_length": 30,
            "max_length": 200,
            "no_repeat_ngram_size": 3,
        },
        "translation_en_to_de": {
            "prefix": "translate English to German: ",
            "num_beams": 4,
            "max_length": 300,
        },
    }
}
_MARIAN = {
    **_SIZES,
    "vocab_size": len(MARIAN_VOCAB),
    "decoder_start_token_id": len(MARIAN_VOCAB) - 1,
    "pad_token_id": len(MARIAN_VOCAB) - 1,
    "activation_function": "swish",
    "scale_embedding": True,
}
KINDS = {
    "bart": Kind("BartConfig", "BartForConditionalGeneration", _BART, _write_bart_tokenizer),
    "mbart": Kind(
        "MBartConfig",
        "MBartForConditionalGeneration",
        {**_BART, "decoder_start_token_id": 2},
        _write_bart_tokenizer,
    ),
    "marian": Kind("MarianConfig", "MarianMTModel", _MARIAN, _write_marian_tokenizer),
    "marian-apart": Kind(
        "MarianConfig",
        "MarianMTModel",
        {
            **_MARIAN,
            "decoder_vocab_size": len(TARGET_VOCAB),
            "decoder_start_token_id": len(TARGET_VOCAB) - 1,
            "pad_token_id": len(TARGET_VOCAB) - 1,
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
        },
        _write_marian_tokenizers_apart,
    ),
    "pegasus": Kind(
        "PegasusConfig",
        "PegasusForConditionalGeneration",
        {**_BART, "scale_embedding": True},
        _write_bart_tokenizer,
    ),
    "t5": Kind("T5Config", "T5ForConditionalGeneration", {**_T5_SIZES, **_T5_TASKS}, _write_t5_tokenizer),
    "flan-t5": Kind(
        "T5Config",
        "T5ForConditionalGeneration",
        {**_T5_SIZES, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        _write_t5_tokenizer,
    ),
    "mt5": Kind("MT5Config", "MT5ForConditionalGeneration", _T5_SIZES, _write_t5_tokenizer),
}
