"""Small tokenizers of every kind, with the same special tokens."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPECIAL = ("<|im_start|>", "<|im_end|>", "<s>", "</s>", "<|im|>", "<|im|><|im|>")
CORPUS = [
    "the quick brown fox jumps over the lazy dog",
    "user assistant system",
    "im_start im_end",
    "été €5",
]


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3, Qwen and SmolLM2 have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """A SentencePiece vocabulary with a token for each byte."""
    trained = Tokenizer(models.BPE())
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.train_from_iterator(CORPUS * 3, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    for byte in range(256):
        model["vocab"][f"<0x{byte:02X}>"] = len(model["vocab"])
    merges = [tuple(merge) for merge in model["merges"]]
    return Tokenizer(models.BPE(model["vocab"], merges, byte_fallback=True, fuse_unk=True))


def _spaces_back(strip: bool) -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)


def metaspace(scheme: str) -> Tokenizer:
    """As Mistral and newer conversions of Llama 2 have it."""
    tokenizer = byte_fallback()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    back = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Sequence([back, decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def prepended() -> Tokenizer:
    """As older conversions of Llama 2 have it: every piece of text begins with a space."""
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = _spaces_back(strip=True)
    return tokenizer


def gemma() -> Tokenizer:
    """As Gemma has it: runs of spaces and lines and tags of HTML are added tokens, and not special."""
    tokenizer = byte_fallback()
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = _spaces_back(strip=False)
    runs = ["▁" * length for length in range(2, 8)] + ["\n" * length for length in range(1, 8)]
    tags = ["<table>", "</table>", "<h1>", "[multimodal]", "<unused0>"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in (*runs, *tags)])
    return tokenizer


def unigram() -> Tokenizer:
    """As T5 and mBART have it, without a token for a byte, but for one that looks like it."""
    pieces = [
        "<unk>",
        "▁",
        *("▁" + word for word in CORPUS[0].split()),
        *"abcdefghijklmnopqrstuvwxyzé.",
        "<0x0A>",
    ]
    scores = [(piece, -1.0 - index / 10) for index, piece in enumerate(pieces)]
    tokenizer = Tokenizer(models.Unigram(scores, 0, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


KINDS = {
    "byte level": byte_level,
    "metaspace always": lambda: metaspace("always"),
    "metaspace first": lambda: metaspace("first"),
    "metaspace never": lambda: metaspace("never"),
    "prepend": prepended,
    "gemma": gemma,
}
# Their special tokens are looked for in normalised text, as in fine-tunes of the first Llamas.
NORMALISED = {
    "prepend, normalised": prepended,
    "metaspace first, normalised": lambda: metaspace("first"),
    "gemma, normalised": gemma,
}
EVERY = KINDS | NORMALISED | {"unigram": unigram}


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    tokenizer = EVERY[kind]()
    special = [AddedToken(text, normalized=kind in NORMALISED, special=True) for text in SPECIAL]
    tokenizer.add_special_tokens(special)
    begin = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    return tokenizer
