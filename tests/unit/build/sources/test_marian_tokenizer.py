"""The tokenizer built from Marian's files, and the reader of SentencePiece models behind it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources.marian_tokenizer import tokenizer_files
from build.sources.sentencepiece_model import PieceKind, read_sentencepiece
from build.token_table import token_bytes
from tests.models.spm import write_spm, write_vocabulary

SOURCE = ["\u2581", "\u2581the", "\u2581c", "at", "s", "t", "h", "e", "c", "a", ".", ">", "<", "d", "b"]
TARGET = ["\u2581die", "\u2581Katze", "K", "n", ".", "Ж"]
CODES = [">>de<<", ">>fra<<"]
VOCAB = ["</s>", "<unk>", *SOURCE, *(t for t in TARGET if t not in SOURCE), *CODES, "<pad>"]


def scored(pieces: list[str]) -> list[tuple[str, float]]:
    return [(piece, -1.0 - len(piece) ** -1 - index / 100) for index, piece in enumerate(pieces)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_spm(tmp_path / "source.spm", scored(SOURCE))
    write_spm(tmp_path / "target.spm", scored(TARGET))
    write_vocabulary(tmp_path / "vocab.json", VOCAB)
    return tmp_path


def tokens_of(files: TokenizerFiles, text: str) -> list[str]:
    return [VOCAB[index] for index in Tokenizer.from_str(files.json.decode()).encode(text).ids]


def test_a_text_is_cut_into_pieces_of_the_source(folder: Path) -> None:
    files = tokenizer_files(folder, {})
    assert tokens_of(files, "  the   cat. ") == ["\u2581the", "\u2581c", "at", ".", "</s>"]
    assert tokens_of(files, "") == ["</s>"]


def test_pieces_of_the_target_alone_are_not_found_in_a_source(folder: Path) -> None:
    """`die` could be a piece, but SentencePiece does not know it as one of the source's."""
    files = tokenizer_files(folder, {})
    assert tokens_of(files, "die")[:2] == ["\u2581", "d"]
    assert "\u2581die" not in tokens_of(files, "die die die")


def test_characters_the_source_lacks_are_unknown_or_a_token_of_the_target(folder: Path) -> None:
    files = tokenizer_files(folder, {})
    assert tokens_of(files, "s☃☃s") == ["\u2581", "s", "<unk>", "s", "</s>"]
    assert tokens_of(files, "sЖs") == ["\u2581", "s", "Ж", "s", "</s>"]
    assert tokens_of(files, "☃Ж☃") == ["\u2581", "<unk>", "Ж", "<unk>", "</s>"]


def test_language_codes_and_special_tokens_are_whole(folder: Path) -> None:
    files = tokenizer_files(folder, {})
    assert tokens_of(files, ">>de<< the cat") == [">>de<<", "\u2581the", "\u2581c", "at", "</s>"]
    assert tokens_of(files, ">>xx<<")[0] == "\u2581"
    assert tokens_of(files, "s</s>")[-2:] == ["</s>", "</s>"]


def test_answers_are_read_with_all_tokens_but_special_ones(folder: Path) -> None:
    files = tokenizer_files(folder, {})
    assert files.target is not None
    table = token_bytes(files.target, len(VOCAB))
    ids = [VOCAB.index(t) for t in (">>de<<", "\u2581die", "\u2581Katze", "s", ".", "</s>", "<pad>")]
    assert b"".join(table[index] for index in ids) == b" die Katzes."


def test_vocabularies_apart_give_answers_ids_of_their_own(folder: Path) -> None:
    write_vocabulary(folder / "target_vocab.json", ["</s>", "<unk>", *TARGET, "<pad>"])
    files = tokenizer_files(folder, {"separate_vocabs": True})
    assert files.target is not None
    assert token_bytes(files.target, len(TARGET) + 3)[2:4] == [b" die", b" Katze"]


def test_other_names_of_special_tokens_are_taken_from_the_settings(folder: Path) -> None:
    write_vocabulary(folder / "vocab.json", ["[E]" if token == "</s>" else token for token in VOCAB])
    files = tokenizer_files(folder, {"eos_token": {"content": "[E]"}})
    assert files.special == {"eos_token": "[E]", "unk_token": "<unk>", "pad_token": "<pad>"}
    assert Tokenizer.from_str(files.json.decode()).encode("s").ids[-1] == 0


def test_an_added_token_of_the_vocabulary_is_refused(folder: Path) -> None:
    declared = {"</s>", "<pad>", "<nowhere>", ">>de<<"}
    assert tokenizer_files(folder, {}, declared) == tokenizer_files(folder, {})
    with pytest.raises(Unsupported, match=r"'s': added tokens of a Marian checkpoint are not supported"):
        tokenizer_files(folder, {}, declared | {"s"})


def test_a_wrong_vocabulary_is_named(folder: Path) -> None:
    write_vocabulary(folder / "vocab.json", VOCAB[2:])
    with pytest.raises(BadInput, match=r"vocab\.json: lacks '</s>'"):
        tokenizer_files(folder, {})
    (folder / "vocab.json").write_text(json.dumps({"</s>": 0, "<unk>": 5}))
    with pytest.raises(BadInput, match=r"vocab\.json: must map tokens to the ids from 0 on"):
        tokenizer_files(folder, {})
    (folder / "vocab.json").write_text("{")
    with pytest.raises(BadInput, match=r"vocab\.json: is damaged"):
        tokenizer_files(folder, {})
    write_vocabulary(folder / "vocab.json", VOCAB)
    with pytest.raises(BadInput, match=r"target_vocab\.json: no such file"):
        tokenizer_files(folder, {"separate_vocabs": True})


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    model = read_sentencepiece(write_spm(tmp_path / "m.spm", [("▁a", -0.5)], charsmap=b"\x01" * 300))
    assert [(piece.text, piece.kind) for piece in model.pieces] == [
        ("<unk>", PieceKind.UNKNOWN),
        ("<s>", PieceKind.CONTROL),
        ("</s>", PieceKind.CONTROL),
        ("▁a", PieceKind.NORMAL),
    ]
    assert model.pieces[3].score == -0.5
    assert len(model.charsmap) == 300
    assert model.adds_prefix
    assert model.removes_extra_spaces


def test_a_model_of_another_algorithm_is_refused(folder: Path) -> None:
    write_spm(folder / "source.spm", scored(SOURCE), algorithm=2)
    with pytest.raises(Unsupported, match=r"source\.spm: only Unigram models"):
        tokenizer_files(folder, {})


def test_a_damaged_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    whole = write_spm(tmp_path / "m.spm", scored(SOURCE)).read_bytes()
    for content in (whole[:-3], whole[:41], b"\xff" * 9, b"\x0a\x02\x0b\x00", b"garbage, not a model"):
        (tmp_path / "m.spm").write_bytes(content)
        with pytest.raises(BadInput, match=r"m\.spm: is no SentencePiece model, or damaged"):
            read_sentencepiece(tmp_path / "m.spm")
    with pytest.raises(BadInput, match=r"absent\.spm: No such file"):
        read_sentencepiece(tmp_path / "absent.spm")
