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
from tests.models import tiny
from tests.models.tokenizers_of_kinds import EVERY, tokenizer_of

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


def test_an_added_token_is_decoded_like_any_other() -> None:
    """The library does not know where a token came from: `é` is a byte of GPT-2's, `Ġ` a space."""
    content = tiny.tokenizer_json()
    for index, text in enumerate(["Ġx", "Āé", "日"]):
        content["added_tokens"].append(
            {**content["added_tokens"][0], "id": COUNT + index, "content": text, "special": False}
        )
    assert token_bytes(as_bytes(content), COUNT + 3)[COUNT:] == [b" x", b"\0\xe9", "日".encode()]


def test_a_token_that_looks_like_a_byte_is_one_for_a_decoder_of_bytes_alone() -> None:
    content = sentencepiece()
    content["model"]["vocab"]["<0xab>"] = 260
    assert token_bytes(as_bytes(content), 261)[260] == b"\xab"
    index = tokenizer_of("unigram").token_to_id("<0x0A>")
    table = token_bytes(tokenizer_of("unigram").to_str().encode(), 100)
    assert index is not None
    assert table[index] == b"<0x0A>" == tokenizer_of("unigram").decode([index]).encode()


@pytest.mark.parametrize("kind", EVERY)
def test_the_table_says_what_the_library_decodes(kind: str) -> None:
    """Behind another token, for the first loses its space. Bytes come in whole characters: a decoder makes a
    mark of each of any others.
    """
    tokenizer = tokenizer_of(kind)
    table = token_bytes(tokenizer.to_str().encode(), 1000)
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    words = {text: index for text, index in tokenizer.get_vocab().items() if index not in special}
    of_bytes = {text for text in words if text.startswith("<0x") and kind != "unigram"}
    whole = [[index] for text, index in sorted(words.items()) if text not in of_bytes]
    if of_bytes:
        whole += [[words[f"<0x{byte:02X}>"] for byte in text.encode()] for text in "\nxé€😀"]
    pieces = st.sampled_from(whole + [[index] for index in sorted(special)])

    @given(st.lists(pieces, max_size=12))
    def check(found: list[list[int]]) -> None:
        ids = [words["e"], *(index for piece in found for index in piece)]
        text = b"".join(table[index] for index in ids).decode(errors="replace")
        assert text == tokenizer.decode([index for index in ids if index not in special])

    check()


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


@pytest.mark.parametrize(
    "steps",
    [
        [{"type": "Strip", "content": " ", "start": 1, "stop": 0}, {"type": "Fuse"}],
        [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 1}],
        [{"type": "Fuse"}, {"type": "ByteFallback"}],
    ],
)
def test_steps_that_change_more_than_the_beginning_are_refused(steps: list[dict[str, Any]]) -> None:
    content = sentencepiece()
    content["decoder"]["decoders"][1:] = steps
    with pytest.raises(Unsupported, match=r"decoder Replace \+ .* is not supported"):
        token_bytes(as_bytes(content), 260)


def test_a_tokenizer_that_cannot_encode_is_refused() -> None:
    content = sentencepiece()
    content["model"] |= {"byte_fallback": False, "unk_token": "<none>"}
    with pytest.raises(BadInput, match=r"tokenizer\.json: encodes nothing: .*<none>"):
        token_bytes(as_bytes(content), 260)


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
