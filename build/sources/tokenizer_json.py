"""Parts of a tokenizer.json for the `tokenizers` library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]
SPACE: Final = "\u2581"  # how SentencePiece spells a space


def encoded(content: Json) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode()


def bpe(vocab: Any, merges: Any, **changes: Any) -> Json:
    """Vocabulary and merges, and no option but the changes."""
    plain = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    flags = dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False)
    return {"type": "BPE", **plain, **flags, "vocab": vocab, "merges": merges, **changes}


def unigram(vocab: Any, unknown: int) -> Json:
    return {"type": "Unigram", "unk_id": unknown, "vocab": vocab, "byte_fallback": False}


def byte_level(prefix: bool = False, use_regex: bool = True) -> Json:
    """GPT-2's visible character for every byte, and with `use_regex` its pattern of words."""
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def metaspace(scheme: str = "always", split: bool = True) -> Json:
    """Spaces as SPACE; `scheme` says whether a text gets one before it."""
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split}


def split(pattern: Json, behaviour: str = "Isolated") -> Json:
    return {"type": "Split", "pattern": pattern, "behavior": behaviour, "invert": False}


def replace(pattern: Json, by: str) -> Json:
    return {"type": "Replace", "pattern": pattern, "content": by}


def sequence(of: str, *steps: Json | None) -> Json:
    """The steps that there are; `of` is `normalizers`, `pretokenizers` or `decoders`."""
    return {"type": "Sequence", of: [step for step in steps if step]}


def sentencepiece_decoder(strip: bool) -> Json:
    """Pieces and bytes of SentencePiece's BPE; with `strip` without the space that a text begins with."""
    stripped = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    unspaced = replace({"String": SPACE}, " ")
    return sequence(
        "decoders", unspaced, {"type": "ByteFallback"}, {"type": "Fuse"}, stripped if strip else None
    )


def added_token(index: int, content: str, special: bool) -> Json:
    """One that is found anywhere in a text, as it is written."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": content, **flags, "special": special}


def text_part(name: str) -> Json:
    """The text `A` of a template, or the second of a pair, `B`."""
    return {"Sequence": {"id": name, "type_id": "AB".index(name)}}


def token_part(token: str) -> Json:
    """A special token of a template."""
    return {"SpecialToken": {"id": token, "type_id": 0}}


def template(single: list[Json], pair: list[Json], ids: Mapping[str, int | None]) -> Json:
    """A post-processor that puts special tokens around a text or a pair of texts; `ids` are those tokens'."""
    tokens = {token: {"id": token, "ids": [index], "tokens": [token]} for token, index in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}
