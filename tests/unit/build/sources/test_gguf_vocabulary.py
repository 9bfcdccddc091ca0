"""The kind that llama.cpp gives each token of a GGUF file by its text, above all to those that end a turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from build.checkpoint import Checkpoint
from build.errors import BadInput, Unsupported
from build.generation import generation
from build.sources.gguf import open_gguf
from build.sources.gguf_vocabulary import TokenType, read_vocabulary
from tests.models import tiny


def with_tokens(folder: Path, texts: list[str], kind: int = 1, **keys: Any) -> Checkpoint:
    """A model with these tokens of this type, too. Its one named end is <|endoftext|>."""
    tokens = [*tiny.VOCAB, *texts]
    types = [3] * len(tiny.SPECIALS) + [1] * (len(tiny.VOCAB) - len(tiny.SPECIALS)) + [kind] * len(texts)
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.eot_token_id": None,
        **{f"tokenizer.ggml.{key}": value for key, value in keys.items()},
    }
    path = folder / "model.gguf"
    return open_gguf(tiny.write_gguf(path, metadata=metadata, vocab_size=len(tokens)))


def ends(checkpoint: Checkpoint) -> list[str]:
    """With <|endoftext|> and <|im_end|>, which all of these vocabularies have."""
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    found = [str(tokenizer.id_to_token(index)) for index in generation(checkpoint)["eos_token_ids"]]
    assert found[:2] == ["<|endoftext|>", "<|im_end|>"]
    return found[2:]


TURN_ENDS = ["<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<|end|>", "<EOT>", "[EOT]", "</s>", "<turn|>"]


@pytest.mark.parametrize("kind", [1, 3, 4], ids=["normal", "control", "user-defined"])
def test_a_turn_ends_in_the_token_that_llama_cpp_knows(kind: int, tmp_path: Path) -> None:
    """`llama-cli` lists these as its end-of-generation tokens, whatever their type."""
    checkpoint = with_tokens(tmp_path, ["<plain>", *TURN_ENDS], kind)
    assert ends(checkpoint) == TURN_ENDS
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    for text in TURN_ENDS:
        ids = tokenizer.encode(f"x{text}", add_special_tokens=False).ids
        assert len(ids) == 2
        assert tokenizer.decode(ids) == "x"


@pytest.mark.parametrize("role", ["eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep"])
def test_a_key_names_an_end_of_any_text(role: str, tmp_path: Path) -> None:
    index = len(tiny.VOCAB)
    checkpoint = with_tokens(tmp_path, ["<stop>"], **{f"{role}_token_id": index})
    assert generation(checkpoint)["eos_token_ids"] == [0, 2, index]


@pytest.mark.parametrize(
    ("texts", "left"),
    [
        (["<|end|>", "<|return|>"], ["<|end|>", "<|return|>"]),
        (["<|end|>", "<|return|>", "<|call|>"], ["<|return|>", "<|call|>"]),
        (["<|end|>", "<|calls|>", "<|flush|>"], ["<|calls|>", "<|flush|>"]),
        (["</s>", "<|tool_response>"], ["<|tool_response>"]),
    ],
    ids=" ".join,
)
def test_a_token_that_ends_a_part_does_not_end_the_answer(
    texts: list[str], left: list[str], tmp_path: Path
) -> None:
    """The part of an answer ends there, not the answer."""
    checkpoint = with_tokens(tmp_path, texts, 3)
    assert ends(checkpoint) == left
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    (text,) = set(texts) - set(left) or {"x"}
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"], []),
        (["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"], ["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"]),
    ],
    ids=["marks of a gap", "what stands between files"],
)
def test_tokens_for_gaps_are_control_tokens(texts: list[str], found: list[str], tmp_path: Path) -> None:
    """Qwen2.5 has them as user-defined ones; `llama-tokenize --no-parse-special` spells them."""
    checkpoint = with_tokens(tmp_path, texts, 4)
    assert ends(checkpoint) == found
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    tokenizer.encode_special_tokens = True
    assert all(len(tokenizer.encode(text).ids) > 3 for text in texts)


def test_a_key_for_a_gap_counts_more_than_a_text(tmp_path: Path) -> None:
    """Its older spelling most of all."""
    index = len(tiny.VOCAB)
    keys = {"fim_pre_token_id": 5, "prefix_token_id": index}
    checkpoint = with_tokens(tmp_path, ["<gap>", "<PRE>"], 1, **keys)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    assert len(tokenizer.encode("<PRE>").ids) == 5


def test_marks_of_channels_are_shown(tmp_path: Path) -> None:
    checkpoint = with_tokens(tmp_path, ["<|channel|>", "<|message|>"], 3)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    ids = tokenizer.encode("<|channel|>x<|message|>").ids
    assert (len(ids), tokenizer.decode(ids)) == (3, "<|channel|>x<|message|>")


def test_tokens_that_are_never_chosen(tmp_path: Path) -> None:
    suppressed = [5, 7, len(tiny.VOCAB), -1]
    checkpoint = with_tokens(tmp_path, [], suppress_tokens=suppressed)
    assert generation(checkpoint)["suppress_tokens"] == [5, 7]


def test_types_may_be_absent(tmp_path: Path) -> None:
    """All are text then, but for those that are known by their own."""
    checkpoint = with_tokens(tmp_path, [], token_type=None)
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer.json.decode())
    assert len(tokenizer.encode("<|im_end|>").ids) == 1
    assert len(tokenizer.encode("<|im_start|>").ids) > 5
    assert ends(checkpoint) == []


def test_an_empty_token_has_a_name(tmp_path: Path) -> None:
    checkpoint = with_tokens(tmp_path, ["", ""])
    vocabulary = Tokenizer.from_str(checkpoint.tokenizer.json.decode()).get_vocab()
    count = len(tiny.VOCAB)
    assert [vocabulary[f"[EMPTY_{index}]"] for index in (count, count + 1)] == [count, count + 1]


def test_a_token_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=rf"tokens: 'he' is there twice, as 260 and {len(tiny.VOCAB)}"):
        with_tokens(tmp_path, ["he"])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"eos_token_id": 300}, "eos_token_id: 300, must be below 263, the number of tokens"),
        ({"bos_token_id": "x"}, "bos_token_id: 'x', must be below 263"),
        ({"eos_token_id": None}, "eos_token_id is missing"),
        ({"token_type": [1, 1]}, "token_type has 2 values, must have 263"),
        ({"tokens": None}, "tokens is missing"),
        ({"tokens": 7}, "metadata is damaged: TypeError"),
    ],
    ids=str,
)
def test_what_no_vocabulary_can_have_is_named(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=rf"^model\.gguf: .*{message}"):
        with_tokens(tmp_path, [], **keys)


@given(
    extra=st.lists(st.sampled_from([*TURN_ENDS, "<plain>", "a", "b"]), unique=True),
    kinds=st.lists(st.sampled_from(TokenType), min_size=11, max_size=11),
    eos=st.integers(0, 2),
)
def test_ends_are_control_tokens_and_hold_the_named_one(
    extra: list[str], kinds: list[TokenType], eos: int
) -> None:
    tokens = ["<x>", "<y>", "<z>", *extra]
    types = [int(kind) for kind in [*kinds[:3], *kinds[: len(extra)]]]
    found = read_vocabulary(
        {
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.eos_token_id": eos,
        }
    )
    assert found.ends == {eos} | {tokens.index(text) for text in set(extra) & set(TURN_ENDS)}
    assert all(found.types[index] is TokenType.CONTROL for index in found.ends - {eos})
    unmarked = set(range(len(tokens))) - found.ends
    assert all(found.types[index] == types[index] for index in unmarked)
