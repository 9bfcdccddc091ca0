"""tokenizer.json and chat template from the metadata of a GGUF file: a text has the ids of llama.cpp.

`gpt2` vocabularies are byte-level BPE with merges; the file only names the pre-tokeniser. `llama`
vocabularies are SentencePiece BPE: scores rank the pieces and the merges follow from them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources.gguf_config import Metadata, required
from build.sources.gguf_pretokenizers import pre_tokenizer
from build.sources.gguf_vocabulary import SPECIAL, TokenType, Vocabulary
from build.sources.tokenizer_json import (
    SPACE,
    Json,
    added_token,
    bpe,
    byte_level,
    encoded,
    replace,
    sentencepiece_decoder,
    sequence,
    template,
    text_part,
    token_part,
)

Merges = Sequence[tuple[str, str]]
_NAMED_TEMPLATE = "chatml"  # llama.cpp has it built in


def tokenizer_files(metadata: Metadata, vocabulary: Vocabulary) -> TokenizerFiles:
    """The tokenizer of a GGUF file in the form of the `tokenizers` library."""
    model = required(metadata, "tokenizer.ggml.model")
    builders = {"gpt2": _byte_level_bpe, "llama": _sentencepiece_bpe}
    if model not in builders:
        raise Unsupported(f"GGUF tokenizer {model!r} is not supported: {', '.join(builders)} are")
    content = builders[model](metadata, vocabulary)
    named = {"bos_token": vocabulary.text(vocabulary.bos), "eos_token": vocabulary.text(vocabulary.eos)}
    return TokenizerFiles(
        json=encoded(content),
        chat_template=_chat_template(metadata),
        special={name: text for name, text in named.items() if text is not None},
    )


def _chat_template(metadata: Metadata) -> str | None:
    """The unnamed chat template, or else the one for tools; None where there is neither."""
    keys = ("tokenizer.chat_template", "tokenizer.chat_template.tool_use")
    key = next((key for key in keys if metadata.get(key)), keys[0])
    template = metadata.get(key)
    if template == _NAMED_TEMPLATE or not isinstance(template, (str, type(None))):
        raise Unsupported(f"GGUF metadata: {key}: {template!r} is not supported: must be a Jinja template")
    return template or None


def _byte_level_bpe(metadata: Metadata, vocabulary: Vocabulary) -> Json:
    """A tokenizer.json of a `gpt2` vocabulary; llama.cpp does not normalise its texts."""
    before = pre_tokenizer(metadata.get("tokenizer.ggml.pre") or "default")
    merges = _merges(metadata, vocabulary)
    return {
        **_frame(metadata, vocabulary, before.adds_bos),
        "normalizer": None,
        "pre_tokenizer": before.steps,
        "decoder": byte_level(),
        "model": _bpe(vocabulary, merges, ignore_merges=before.whole_words),
    }


def _merges(metadata: Metadata, vocabulary: Vocabulary) -> Merges:
    """The merges of the file, each once."""
    key = "tokenizer.ggml.merges"
    known = set(vocabulary.tokens)
    merges = []
    for merge in dict.fromkeys(required(metadata, key)):
        cut = merge.find(" ", 1)
        left, right = merge[: max(cut, 0)], merge[cut + 1 :]
        if not {left, right, left + right} <= known:
            raise BadInput(f"GGUF metadata: {key}: {merge!r}, must be two tokens that make a third")
        merges.append((left, right))
    return merges


def _sentencepiece_bpe(metadata: Metadata, vocabulary: Vocabulary) -> Json:
    """A tokenizer.json of a `llama` vocabulary, as transformers converts Llama 2.

    Spaces become U+2581, unknown characters their bytes.
    """
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    prefix = {"type": "Prepend", "prepend": SPACE} if prefixed else None
    return {
        **_frame(metadata, vocabulary, adds_bos=True),
        "normalizer": sequence("normalizers", prefix, replace({"String": " "}, SPACE)),
        "pre_tokenizer": None,
        "decoder": sentencepiece_decoder(strip=prefixed),
        "model": _bpe(
            vocabulary,
            derived_merges(vocabulary.tokens, _scores(metadata, vocabulary)),
            unk_token=vocabulary.text(vocabulary.unknown),
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def _scores(metadata: Metadata, vocabulary: Vocabulary) -> list[float | None]:
    """The scores of pieces, None for control tokens: no merge may make one of a user's text."""
    key = "tokenizer.ggml.scores"
    scores, count = required(metadata, key), len(vocabulary.tokens)
    if len(scores) < count:
        raise BadInput(f"GGUF metadata: {key} has {len(scores)} values, must have {count}")
    pairs = zip(scores, vocabulary.types, strict=False)
    return [None if kind in SPECIAL else score for score, kind in pairs]


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


def _bpe(vocabulary: Vocabulary, merges: Merges, **changes: Any) -> Json:
    return bpe(_written(vocabulary, merges), [list(merge) for merge in merges], **changes)


def _written(vocabulary: Vocabulary, merges: Merges) -> dict[str, int]:
    """The vocabulary by token, without unused tokens that pad it and that no text becomes."""
    used = {part for left, right in merges for part in (left, right, left + right)}
    entries = zip(vocabulary.tokens, vocabulary.types, strict=True)
    return {
        token: index
        for index, (token, kind) in enumerate(entries)
        if kind is not TokenType.UNUSED or len(token) == 1 or token in used
    }


def _frame(metadata: Metadata, vocabulary: Vocabulary, adds_bos: bool) -> Json:
    """The parts that both kinds share; `adds_bos` holds where the file does not say."""
    kinds = enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(index, token, special=kind in SPECIAL)
            for index, (token, kind) in kinds
            if kind in (*SPECIAL, TokenType.USER_DEFINED)
        ],
        "post_processor": _post_processor(metadata, vocabulary, adds_bos),
    }


def _post_processor(metadata: Metadata, vocabulary: Vocabulary, adds_bos: bool) -> Json | None:
    ends = {"bos": (vocabulary.bos, adds_bos), "eos": (vocabulary.eos, False)}
    added = {}
    for role, (index, default) in ends.items():
        key = f"tokenizer.ggml.add_{role}_token"
        if not metadata.get(key, default):
            continue
        if index is None:
            raise BadInput(f"GGUF metadata: tokenizer.ggml.{role}_token_id is missing, which {key} needs")
        added[role] = vocabulary.tokens[index], index
    if not added:
        return None
    before, after = ([token_part(added[role][0])] if role in added else [] for role in ends)
    single = [*before, text_part("A"), *after]
    return template(single, [*before, text_part("A"), text_part("B"), *after], dict(added.values()))
