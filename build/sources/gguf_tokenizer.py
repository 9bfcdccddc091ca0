"""tokenizer.json and chat template from the metadata of a GGUF file.

A GGUF names the pre-tokeniser its vocabulary was trained with and leaves the rest to the reader;
`_PRE` holds those that can be rebuilt exactly.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported

Json = dict[str, Any]


class _TokenType(IntEnum):
    CONTROL = 3
    USER_DEFINED = 4


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


def tokenizer_files(metadata: Mapping[str, Any]) -> TokenizerFiles:
    """The tokenizer of a GGUF file in the form of the `tokenizers` library."""
    model = metadata.get("tokenizer.ggml.model")
    if model != "gpt2":
        raise Unsupported(f"GGUF tokenizer {model!r} is not supported: gpt2 is")
    return TokenizerFiles(
        json=json.dumps(_byte_level_bpe(metadata), ensure_ascii=False, indent=1).encode(),
        chat_template=metadata.get("tokenizer.chat_template"),
        bos_token=_named(metadata, "bos"),
        eos_token=_named(metadata, "eos"),
    )


def _named(metadata: Mapping[str, Any], role: str) -> str | None:
    index = metadata.get(f"tokenizer.ggml.{role}_token_id")
    return None if index is None else str(metadata["tokenizer.ggml.tokens"][index])


def _byte_level_bpe(metadata: Mapping[str, Any]) -> Json:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in _PRE:
        supported = ", ".join(_PRE)
        raise Unsupported(f"GGUF pre-tokeniser {pre!r} is not supported: {supported} are")
    tokens = metadata["tokenizer.ggml.tokens"]
    if "tokenizer.ggml.merges" not in metadata:
        raise BadInput("GGUF metadata: tokenizer.ggml.merges is missing")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(tokens, metadata.get("tokenizer.ggml.token_type", [])),
        "normalizer": {"type": "NFC"} if pre == "qwen2" else None,
        "pre_tokenizer": _PRE[pre],
        "post_processor": _post_processor(metadata, default=pre == "llama-bpe"),
        "decoder": {**_byte_level(use_regex=True), "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def _added(tokens: list[str], types: list[int]) -> list[Json]:
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _TokenType.CONTROL,
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=False))
        if kind in (_TokenType.CONTROL, _TokenType.USER_DEFINED)
    ]


def _post_processor(metadata: Mapping[str, Any], default: bool) -> Json | None:
    bos = _named(metadata, "bos")
    if bos is None or not metadata.get("tokenizer.ggml.add_bos_token", default):
        return None
    special = {"SpecialToken": {"id": bos, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            special,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {
            bos: {
                "id": bos,
                "ids": [metadata["tokenizer.ggml.bos_token_id"]],
                "tokens": [bos],
            }
        },
    }
