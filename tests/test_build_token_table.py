from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from build.errors import BadInput, BuildError, Unsupported
from build.token_table import encode_table, token_bytes
from tests import tiny

COUNT = len(tiny.VOCAB)
SPACE = "\u2581"


def as_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def sentencepiece(strip: bool = True) -> dict[str, Any]:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE]
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unspaced = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    decoders: list[dict[str, Any]] = [unspaced, {"type": "ByteFallback"}, {"type": "Fuse"}]
    if strip:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": piece, "special": True, **flags}
            for index, piece in enumerate(pieces[:3])
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [{"type": "Prepend", "prepend": SPACE}, spaces],
        },
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "byte_fallback": True,
            "vocab": {piece: index for index, piece in enumerate(pieces)},
            "merges": [],
        },
    }


def test_the_file_is_laid_out_as_its_readers_expect() -> None:
    assert encode_table([b"", b"ab", b"c"]) == (
        b"HLTK" + struct.pack("<II", 1, 3) + struct.pack("<3H", 0, 2, 1) + b"abc"
    )
    with pytest.raises(BuildError, match="65536 bytes, limit 65535"):
        encode_table([b"x" * 65536])


def test_specials_are_empty_and_the_rest_are_bytes() -> None:
    table = token_bytes(as_bytes(tiny.tokenizer_json()), COUNT)
    assert table[:3] == [b"", b"", b""]
    assert table[tiny.VOCAB.index("Ġthe")] == b" the"
    assert {entry for entry in table if len(entry) == 1} == {bytes([b]) for b in range(256)}


def test_an_added_token_that_is_not_special_is_its_text() -> None:
    content = tiny.tokenizer_json()
    content["added_tokens"][1]["special"] = False
    assert token_bytes(as_bytes(content), COUNT)[1] == b"<|im_start|>"


def test_ids_beyond_the_tokenizer_add_nothing() -> None:
    table = token_bytes(as_bytes(tiny.tokenizer_json()), COUNT + 5)
    assert table[COUNT:] == [b""] * 5


@given(st.text(max_size=40))
def test_the_bytes_of_the_ids_are_the_bytes_of_the_text(text: str) -> None:
    content = as_bytes(tiny.tokenizer_json())
    table = token_bytes(content, COUNT)
    ids = Tokenizer.from_str(content.decode()).encode(text, add_special_tokens=False).ids
    if not any(special in text for special in tiny.SPECIALS):
        assert b"".join(table[index] for index in ids) == text.encode()


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters=SPACE), min_size=1, max_size=40))
def test_byte_fallback_and_metaspace_give_the_text_after_its_leading_space(text: str) -> None:
    content = as_bytes(sentencepiece())
    table = token_bytes(content, 260)
    ids = Tokenizer.from_str(content.decode()).encode(text, add_special_tokens=False).ids
    if "<" not in text:
        assert b"".join(table[index] for index in ids) == b" " + text.encode()


def test_metaspace_as_a_decoder() -> None:
    content = sentencepiece()
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": True}
    steps = [metaspace, {"type": "ByteFallback"}, {"type": "Fuse"}]
    content["decoder"] = {"type": "Sequence", "decoders": steps}
    assert token_bytes(as_bytes(content), 260)[-1] == b" "


@pytest.mark.parametrize("decoder", [None, {"type": "WordPiece", "prefix": "##", "cleanup": True}])
def test_a_decoder_without_a_table_is_refused(decoder: dict[str, Any] | None) -> None:
    with pytest.raises(Unsupported, match=r"decoder (none|WordPiece) is not supported"):
        token_bytes(as_bytes({**tiny.tokenizer_json(), "decoder": decoder}), COUNT)


def test_a_damaged_file_is_refused() -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.json: is damaged"):
        token_bytes(b'{"version": "1.0"', COUNT)


def test_ids_the_model_has_no_logits_for_are_refused() -> None:
    with pytest.raises(BadInput, match="vocab_size of 3"):
        token_bytes(as_bytes(tiny.tokenizer_json()), 3)


def test_a_table_the_library_contradicts_is_refused() -> None:
    content = sentencepiece()
    odd = {"type": "Metaspace", "replacement": "x", "prepend_scheme": "always", "split": True}
    content["decoder"] = {"type": "Sequence", "decoders": [odd, {"type": "ByteFallback"}]}
    with pytest.raises(BuildError, match=r"tokens\.bin: decodes .* as "):
        token_bytes(as_bytes(content), 260)
