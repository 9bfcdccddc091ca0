from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from build.errors import BadInput
from build.tokenizer_fit import fitted
from tests.models import tiny
from tests.models.tiny_seq2seq import T5_VOCAB, t5_tokenizer

COUNT = len(tiny.VOCAB)


def as_bytes(content: dict[str, Any]) -> bytes:
    return json.dumps(content).encode()


def with_mask() -> dict[str, Any]:
    content = tiny.tokenizer_json()
    content["model"]["vocab"]["<mask>"] = COUNT
    content["added_tokens"].append({**content["added_tokens"][0], "content": "<mask>", "id": COUNT})
    return content


def test_what_fits_is_kept_byte_for_byte() -> None:
    content = as_bytes(tiny.tokenizer_json())
    assert fitted(content, COUNT) is content
    assert fitted(as_bytes(with_mask()), COUNT + 1) == as_bytes(with_mask())


def test_an_added_token_without_a_row_is_spelled_like_any_text() -> None:
    tokenizer = Tokenizer.from_str(fitted(as_bytes(with_mask()), COUNT).decode())
    ids = tokenizer.encode("in <mask>").ids
    assert max(ids) < COUNT
    assert tokenizer.decode(ids) == "in <mask>"


def test_the_last_pieces_of_a_unigram_model_can_go() -> None:
    content = t5_tokenizer().to_str().encode()
    tokenizer = Tokenizer.from_str(fitted(content, len(T5_VOCAB) - 2).decode())
    assert tokenizer.get_vocab_size() == len(T5_VOCAB) - 2
    assert max(tokenizer.encode("the <extra_id_0>").ids) < len(T5_VOCAB) - 2


def test_texts_are_neither_cut_nor_padded() -> None:
    tokenizer = Tokenizer.from_str(as_bytes(tiny.tokenizer_json()).decode())
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    whole = Tokenizer.from_str(fitted(tokenizer.to_str().encode(), COUNT).decode())
    assert len(whole.encode("the thing").ids) == 6


def test_a_damaged_file_is_refused() -> None:
    for content in (b"{", b"[]"):
        with pytest.raises(BadInput, match=r"tokenizer\.json: "):
            fitted(content, 3)
