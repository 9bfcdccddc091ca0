"""tokenizer.json and chat template from the metadata of a GGUF file.

`gpt2` vocabularies are byte-level BPE with merges; the file only names the pre-tokeniser, and `_PRE`
holds those that can be rebuilt exactly. `llama` vocabularies are SentencePiece BPE: scores rank the
pieces and the merges follow from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported

Json = dict[str, Any]
Metadata = Mapping[str, Any]
_SPACE = "\u2581"


class _TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


_SPECIAL = (_TokenType.UNKNOWN, _TokenType.CONTROL)


def _byte_level(use_regex: bool) -> Json:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


def _sequence(*steps: Json) -> Json:
    return {"type": "Sequence", "pretokenizers": list(steps)}


def _split(pattern: str) -> Json:
    return {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }


def _cl100k(digits: str) -> str:
    """The pattern GPT-4 introduced; families differ in how many digits make a word."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_DIGITS = {"type": "Digits", "individual_digits": True}
_PRE: dict[str, Json] = {
    "default": _byte_level(use_regex=True),
    "gpt-2": _byte_level(use_regex=True),
    "smollm": _sequence(_DIGITS, _byte_level(use_regex=True)),
    "llama-bpe": _sequence(_split(_cl100k(r"\p{N}{1,3}")), _byte_level(use_regex=False)),
    "qwen2": _sequence(_split(_cl100k(r"\p{N}")), _byte_level(use_regex=False)),
}


def tokenizer_files(metadata: Metadata) -> TokenizerFiles:
    """The tokenizer of a GGUF file in the form of the `tokenizers` library."""
    model = metadata.get("tokenizer.ggml.model")
    builders = {"gpt2": _byte_level_bpe, "llama": _sentencepiece_bpe}
    if model not in builders:
        raise Unsupported(f"GGUF tokenizer {model!r} is not supported: {', '.join(builders)} are")
    content = builders[model](metadata)
    return TokenizerFiles(
        json=json.dumps(content, ensure_ascii=False).encode(),
        chat_template=metadata.get("tokenizer.chat_template"),
        special={f"{role}_token": token for role in ("bos", "eos") if (token := _named(metadata, role))},
    )


def _required(metadata: Metadata, key: str) -> Any:
    if f"tokenizer.ggml.{key}" not in metadata:
        raise BadInput(f"GGUF metadata: tokenizer.ggml.{key} is missing")
    return metadata[f"tokenizer.ggml.{key}"]


def _named(metadata: Metadata, role: str) -> str | None:
    index = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return None if index is None else str(_required(metadata, "tokens")[index])


def _byte_level_bpe(metadata: Metadata) -> Json:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in _PRE:
        supported = ", ".join(_PRE)
        raise Unsupported(f"GGUF pre-tokeniser {pre!r} is not supported: {supported} are")
    merges = [merge.split(" ") for merge in _required(metadata, "merges")]
    tokens = _required(metadata, "tokens")
    return {
        **_frame(metadata, adds_bos=pre == "llama-bpe"),
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": _PRE[pre],
        "decoder": _byte_level(use_regex=True),
        "model": _bpe(tokens, merges, ignore_merges=pre == "llama-bpe"),
    }


def _sentencepiece_bpe(metadata: Metadata) -> Json:
    """As transformers converts Llama 2: spaces become U+2581, unknown characters their bytes."""
    tokens = _required(metadata, "tokens")
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prefix = {"type": "Prepend", "prepend": _SPACE}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    unspaced = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    decoders = [unspaced, {"type": "ByteFallback"}, {"type": "Fuse"}]
    unknown = tokens[metadata.get("tokenizer.ggml.unknown_token_id", 0)]
    return {
        **_frame(metadata, adds_bos=True),
        "normalizer": {"type": "Sequence", "normalizers": [prefix, spaces] if prefixed else [spaces]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [*decoders, strip] if prefixed else decoders},
        "model": _bpe(
            tokens,
            derived_merges(tokens, _normal_scores(metadata)),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _normal_scores(metadata: Metadata) -> list[float | None]:
    """None for pieces that are no text: a merge must never make a control token out of what a user wrote."""
    pairs = zip(_required(metadata, "scores"), _required(metadata, "token_type"), strict=True)
    return [score if kind == _TokenType.NORMAL else None for score, kind in pairs]


def derived_merges(tokens: Sequence[str], scores: Sequence[float | None]) -> list[tuple[str, str]]:
    """Every split of a piece into two pieces, best score of the whole first; longer left parts first.

    A piece without a score is neither made nor merged.
    """
    ids = {token: index for index, token in enumerate(tokens) if scores[index] is not None}
    ranked = []
    for token, score in zip(tokens, scores, strict=True):
        for cut in range(1, len(token)) if score is not None else ():
            left, right = token[:cut], token[cut:]
            if left in ids and right in ids:
                ranked.append((score, len(left), -ids[left], left, right))
    ranked.sort(key=lambda entry: entry[:3], reverse=True)
    return [(left, right) for *_, left, right in ranked]


def _bpe(tokens: Sequence[str], merges: Sequence[Sequence[str]], **changes: Any) -> Json:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": [list(merge) for merge in merges],
        **changes,
    }


def _frame(metadata: Metadata, adds_bos: bool) -> Json:
    """What both kinds share; `adds_bos` holds where the file does not say."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(metadata),
        "post_processor": _post_processor(metadata, adds_bos),
    }


def _added_tokens(metadata: Metadata) -> list[Json]:
    types = _required(metadata, "token_type")
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind in _SPECIAL,
        }
        for index, (token, kind) in enumerate(zip(_required(metadata, "tokens"), types, strict=True))
        if kind in (*_SPECIAL, _TokenType.USER_DEFINED)
    ]


def _post_processor(metadata: Metadata, adds_bos: bool) -> Json | None:
    bos = _named(metadata, "bos")
    if bos is None or not metadata.get("tokenizer.ggml.add_bos_token", adds_bos):
        return None
    first = {"SpecialToken": {"id": bos, "type_id": 0}}
    texts = [{"Sequence": {"id": name, "type_id": index}} for index, name in enumerate("AB")]
    index = metadata["tokenizer.ggml.bos_token_id"]
    return {
        "type": "TemplateProcessing",
        "single": [first, texts[0]],
        "pair": [first, *texts],
        "special_tokens": {bos: {"id": bos, "ids": [index], "tokens": [bos]}},
    }
