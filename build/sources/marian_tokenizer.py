"""tokenizer.json from the files of a Marian checkpoint: source.spm, target.spm and vocab.json.

A text is cut by SentencePiece, and each piece is looked up in vocab.json, which holds the pieces of both
languages where they share one. The `tokenizers` library does both in one Unigram model over the ids of
vocab.json: pieces of the source keep their scores, and those it does not know are spelled so that no text
matches them. Language codes such as `>>de<<` choose the language of the answer and are whole tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources.files import read_object
from build.sources.sentencepiece_model import (
    Algorithm,
    PieceKind,
    SentencePieceModel,
    read_sentencepiece,
)
from build.sources.tokenizer_json import (
    SPACE,
    Json,
    added_token,
    encoded,
    metaspace,
    replace,
    sequence,
    template,
    text_part,
    token_part,
    unigram,
)

FILES = ("source.spm", "target.spm", "vocab.json", "target_vocab.json")
_SPECIALS = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def is_marian(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES[:3])


def tokenizer_files(
    folder: Path, settings: Mapping[str, Any], declared: Collection[str] = ()
) -> TokenizerFiles:
    """The tokenizers of sources and of answers; BadInput names the faulty file.

    `settings` is tokenizer_config.json, `declared` are the tokens that it and other files add.
    """
    names = {role: _text(settings.get(role)) or token for role, token in _SPECIALS.items()}
    vocabulary = _vocabulary(folder / "vocab.json", names)
    added = sorted({*declared} & {*vocabulary} - {*_added_tokens(vocabulary, names)})
    if added:
        raise Unsupported(f"{folder}: {added[0]!r}: added tokens of a Marian checkpoint are not supported")
    apart = folder / "target_vocab.json"
    answers = _vocabulary(apart, names) if settings.get("separate_vocabs") else vocabulary
    source, target = (_unigram_model(folder / name) for name in FILES[:2])
    return TokenizerFiles(
        json=encoded(_tokenizer(source, _questions(source, vocabulary, names), names)),
        chat_template=None,
        special=names,
        target=encoded(_tokenizer(target, _answers(target, answers), names)),
    )


def _text(value: Any) -> str | None:
    return value.get("content") if isinstance(value, dict) else value


def _unigram_model(path: Path) -> SentencePieceModel:
    model = read_sentencepiece(path)
    if model.algorithm is not Algorithm.UNIGRAM or model.byte_fallback or model.whitespace_suffix:
        raise Unsupported(f"{path}: only Unigram models without byte fallback are supported")
    return model


def _vocabulary(path: Path, names: Mapping[str, str]) -> list[str]:
    """The tokens by id."""
    ids = read_object(path)
    if sorted(ids.values()) != list(range(len(ids))):
        raise BadInput(f"{path}: must map tokens to the ids from 0 on")
    missing = [token for token in names.values() if token not in ids]
    if missing:
        raise BadInput(f"{path}: lacks {missing[0]!r}, which tokenizer_config.json names")
    return sorted(ids, key=ids.__getitem__)


def _scores(model: SentencePieceModel) -> dict[str, float]:
    return {piece.text: piece.score for piece in model.pieces if piece.kind is PieceKind.NORMAL}


def _questions(
    model: SentencePieceModel, vocabulary: list[str], names: Mapping[str, str]
) -> list[tuple[str, float]]:
    """Pieces of the source and added tokens unchanged, the rest respelled so that no text matches.

    SentencePiece leaves a run of unknown characters unchanged, and vocab.json may contain it. If vocab.json
    has only parts of the run, transformers takes `<unk>` for the whole, while these parts are used here.
    """
    scores = _scores(model)
    lowest, known = min(scores.values()), set().union(*scores)
    kept = {*scores, *_added_tokens(vocabulary, names)}
    return [
        (token if token in kept or not known & set(token) else f" {token}", scores.get(token, lowest))
        for token in vocabulary
    ]


def _answers(model: SentencePieceModel, vocabulary: list[str]) -> list[tuple[str, float]]:
    """All tokens unchanged: answers are only decoded."""
    scores = _scores(model)
    lowest = min(scores.values())
    return [(token, scores.get(token, lowest)) for token in vocabulary]


def _tokenizer(model: SentencePieceModel, pieces: list[tuple[str, float]], names: Mapping[str, str]) -> Json:
    vocabulary = [token for token, _ in pieces]
    index = {token: number for number, token in enumerate(vocabulary)}
    end, whole = names["eos_token"], any(SPACE in piece.text[1:] for piece in model.pieces)
    scheme = "always" if model.adds_prefix else "never"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            added_token(index[token], token, special=True) for token in _added_tokens(vocabulary, names)
        ],
        "normalizer": sequence("normalizers", *_normalisers(model)),
        "pre_tokenizer": metaspace(scheme, split=not whole),
        "post_processor": template(
            [text_part("A"), token_part(end)],
            [text_part("A"), text_part("B"), {"SpecialToken": {"id": end, "type_id": 1}}],
            {end: index[end]},
        ),
        "decoder": metaspace(scheme),
        "model": unigram([list(piece) for piece in pieces], index[names["unk_token"]]),
    }


def _added_tokens(vocabulary: list[str], names: Mapping[str, str]) -> list[str]:
    """Special tokens and language codes, in the order of their ids."""
    codes = {token for token in vocabulary if token.startswith(">>") and token.endswith("<<")}
    return [token for token in vocabulary if token in codes or token in names.values()]


def _normalisers(model: SentencePieceModel) -> list[Json]:
    steps: list[Json] = []
    if model.charsmap:
        compiled = base64.b64encode(model.charsmap).decode()
        steps.append({"type": "Precompiled", "precompiled_charsmap": compiled})
    if model.removes_extra_spaces:
        steps += [replace({"Regex": r"\A +| +\z"}, ""), replace({"Regex": " {2,}"}, " ")]
    return steps
