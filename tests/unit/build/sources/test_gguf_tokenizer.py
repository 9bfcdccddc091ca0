"""Tokenizers out of GGUF files: what llama.cpp makes of a text, and no control token out of letters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from build.checkpoint import TokenizerFiles
from build.errors import BadInput, Unsupported
from build.sources.gguf import open_gguf
from build.sources.gguf_tokenizer import derived_merges, tokenizer_files
from build.sources.gguf_vocabulary import read_vocabulary
from build.token_table import token_bytes
from tests.models import tiny

SPACE = "\u2581"
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def files(metadata: dict[str, Any]) -> TokenizerFiles:
    return tokenizer_files(metadata, read_vocabulary(metadata))


def written(path: Path, metadata: dict[str, Any], **changes: Any) -> Tokenizer:
    """The tokenizer of a file in which these keys stand otherwise."""
    content = open_gguf(tiny.write_gguf(path / "model.gguf", metadata=metadata, **changes)).tokenizer.json
    return Tokenizer.from_str(content.decode())


def test_a_byte_level_vocabulary_encodes_as_before(tmp_path: Path) -> None:
    ours = written(tmp_path, {})
    original = Tokenizer.from_str(json.dumps(tiny.tokenizer_json()))
    for text in ("<|im_start|>user\nSay the thing in 2 words: 你好\n\n  <|im_end|>", "", " the the"):
        assert ours.encode(text).ids == original.encode(text).ids


# Tokens that show where a word ends, and what llama-tokenize makes of a text with them.
MERGES = ["2 0", "20 2", "202 4", "' s", "' S", "Ġ a", "+ b", "Ċ Ċ", "ĊĊ Ċ", "Ġ Ġ", "e Ì", "eÌ ģ", ". Ċ"]
CUT = [*tiny.SPECIALS, *tiny.ALPHABET, *(merge.replace(" ", "") for merge in MERGES)]
TEXT = "Ab 2024's it'S a+b.\n\n\n  x e\u0301 <|im_end|>"
END = "Ġa + b . ĊĊĊ Ġ Ġ x Ġ e Ì ģ Ġ <|im_end|>"
UNNAMED = f"A b Ġ 202 4 ' s Ġ i t ' S {END}"
GPT2 = f"A b Ġ 2024 's Ġ i t ' S {END}"
DIGITS = f"A b Ġ 2 0 2 4 's Ġ i t ' S {END}"
QWEN2 = f"A b Ġ 2 0 2 4 's Ġ i t 'S {END}".replace("+ b", "+b")
LLAMA3 = f"A b Ġ 202 4 's Ġ i t 'S {END}".replace("+ b", "+b")


@pytest.mark.parametrize(
    ("names", "tokens"),
    [
        ([None, "default"], UNNAMED),
        (["gpt-2", "phi-2", "mpt", "olmo", "exaone4", "granite-docling"], GPT2),
        (["smollm", "starcoder", "refact", "command-r", "codeshell", "minerva-7b"], DIGITS),
        (["qwen2", "deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "grok-2"], QWEN2),
        (["dbrx", "smaug-bpe", "chatglm-bpe"], LLAMA3),
        (["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"], f"<|im_start|> {LLAMA3}"),
    ],
    ids=["none", "gpt-2", "digits", "qwen2", "dbrx", "llama3"],
)
def test_texts_are_cut_as_llama_cpp_cuts_them(names: list[str | None], tokens: str, tmp_path: Path) -> None:
    """A name may stand for another's pattern; a file without one has a pattern that no family has."""
    for name in names:
        found = written(
            tmp_path,
            {
                "tokenizer.ggml.pre": name,
                "tokenizer.ggml.tokens": CUT,
                "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(CUT) - 3),
                "tokenizer.ggml.merges": MERGES,
                "tokenizer.ggml.add_bos_token": None,
            },
            vocab_size=len(CUT),
        )
        assert found.encode(TEXT).tokens == tokens.split(), name


def test_of_two_merges_that_are_alike_the_first_counts(tmp_path: Path) -> None:
    tokens = [*tiny.VOCAB, "her"]
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(tokens),
        "tokenizer.ggml.merges": ["h e", "Ġ t", "i n", "Ġt he", "he r", "h e"],
    }
    assert written(tmp_path, metadata, vocab_size=len(tokens)).encode(" ther").tokens == ["Ġthe", "r"]


@pytest.mark.parametrize("merge", ["the", "h x", "x y", "he q"])
def test_a_merge_that_makes_no_token_is_refused(merge: str, tmp_path: Path) -> None:
    metadata = {"tokenizer.ggml.merges": ["h e", merge]}
    with pytest.raises(BadInput, match=rf"tokenizer\.ggml\.merges: '{merge}', must be two tokens"):
        written(tmp_path, metadata)


def test_sentencepiece_merges_follow_the_scores() -> None:
    pieces = ["a", "b", "c", "ab", "bc", "abc"]
    scores = [0.0, 0.0, 0.0, -2.0, -1.0, -3.0]
    assert derived_merges(pieces, scores) == [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]


def sentencepiece(more: list[tuple[str, float, int]], **keys: Any) -> dict[str, Any]:
    """Metadata with these pieces and those that every file has: text, score, type."""
    common = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3), *((byte, 0.0, 6) for byte in BYTES)]
    texts, scores, types = zip(*common, *more, strict=True)
    given = {f"tokenizer.ggml.{key}": value for key, value in keys.items()}
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(texts),
        "tokenizer.ggml.scores": list(scores),
        "tokenizer.ggml.token_type": list(types),
        **given,
    }


def test_no_merge_makes_a_control_token_out_of_text() -> None:
    """Its letters would otherwise become the token, and what a user wrote an order to the model."""
    letters = [(text, -1.0, 1) for text in (*"<end>", "<e", "nd>", "nd")]
    content = files(sentencepiece([("<end>", -1000.0, 3), *letters], add_space_prefix=False)).json.decode()
    tokenizer = Tokenizer.from_str(content)
    assert tokenizer.encode("<end>").tokens == ["<s>", "<end>"]
    tokenizer.encode_special_tokens = True
    assert tokenizer.encode("<end>").tokens == ["<s>", "<e", "nd>"]


TH = [("t", -1.0, 1), ("h", -2.0, 1), (SPACE, -3.0, 1), ("th", -4.0, 1), (f"{SPACE}th", -5.0, 1)]


@pytest.mark.parametrize("named", [{}, {"bos_token_id": 1, "eos_token_id": 2, "unknown_token_id": 0}])
def test_a_sentencepiece_vocabulary_encodes_like_llama_2(named: dict[str, int]) -> None:
    """It has the ids of Llama's special tokens where it names none."""
    made = files(sentencepiece(TH, **named))
    assert made.special == {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = Tokenizer.from_str(made.json.decode())
    encoded = tokenizer.encode("th é")
    assert encoded.tokens == ["<s>", f"{SPACE}th", SPACE, "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(encoded.ids) == "th é"


@pytest.mark.parametrize(
    ("keys", "tokens"),
    [
        ({"add_space_prefix": False}, ["<s>", "th", SPACE, SPACE, "t"]),
        ({"add_bos_token": False}, [f"{SPACE}th", SPACE, SPACE, "t"]),
        ({"add_eos_token": True}, ["<s>", f"{SPACE}th", SPACE, SPACE, "t", "</s>"]),
        ({"remove_extra_whitespaces": True}, ["<s>", f"{SPACE}th", SPACE, SPACE, "t"]),
        ({"pre": "qwen2"}, ["<s>", f"{SPACE}th", SPACE, SPACE, "t"]),
    ],
    ids=str,
)
def test_keys_of_a_sentencepiece_vocabulary(keys: dict[str, Any], tokens: list[str]) -> None:
    """As llama-tokenize has it: the last two are none of this kind's."""
    tokenizer = Tokenizer.from_str(files(sentencepiece(TH, **keys)).json.decode())
    assert tokenizer.encode("th  t").tokens == tokens


@pytest.mark.parametrize("kind", [4, 5], ids=["user-defined", "unused"])
def test_pieces_of_every_kind_are_made_of_what_a_text_holds(kind: int) -> None:
    """A type keeps no piece from being merged, unless it is a control token's."""
    pieces = [*TH[:4], (f"{SPACE}th", -5.0, kind)]
    tokenizer = Tokenizer.from_str(files(sentencepiece(pieces)).json.decode())
    assert tokenizer.encode("th").tokens == ["<s>", f"{SPACE}th"]


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_what_pads_a_vocabulary_shows_nothing(model: str) -> None:
    metadata = sentencepiece([*TH, ("[PAD1]", -1000.0, 5)], eos_token_id=2)
    if model == "gpt2":
        tokens = [*tiny.VOCAB, "[PAD1]"]
        merges = [" ".join(merge) for merge in tiny.MERGES]
        metadata |= {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": tokens}
        metadata |= {
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.token_type": [1] * len(tiny.VOCAB) + [5],
        }
    count = len(metadata["tokenizer.ggml.tokens"])
    made = files(metadata).json
    assert token_bytes(made, count)[-1] == b""
    assert Tokenizer.from_str(made.decode()).decode([count - 1]) == ""


@pytest.mark.parametrize("role", ["bos", "eos"])
def test_a_token_that_is_added_must_be_named(role: str, tmp_path: Path) -> None:
    """llama.cpp would add token 11, which is a comma in many vocabularies."""
    metadata = {f"tokenizer.ggml.{role}_token_id": None, f"tokenizer.ggml.add_{role}_token": True}
    with pytest.raises(BadInput, match=rf"tokenizer\.ggml\.{role}_token_id is missing"):
        written(tmp_path, metadata)


@pytest.mark.parametrize(
    ("keys", "template"),
    [
        ({"tokenizer.chat_template": None}, None),
        ({"tokenizer.chat_template.tool_use": "tools"}, tiny.CHAT_TEMPLATE),
        ({"tokenizer.chat_template": None, "tokenizer.chat_template.tool_use": "tools"}, "tools"),
        ({"tokenizer.chat_template": None, "tokenizer.chat_template.rag": "documents"}, None),
    ],
    ids=["none", "both", "tools", "another"],
)
def test_of_several_templates_the_unnamed_one_is_for_chat(
    keys: dict[str, Any], template: str | None, tmp_path: Path
) -> None:
    names = [key.removeprefix("tokenizer.chat_template.") for key in keys if key.count(".") == 2]
    metadata = {**keys, "tokenizer.chat_templates": names or None}
    path = tiny.write_gguf(tmp_path / "model.gguf", metadata=metadata)
    assert open_gguf(path).tokenizer.chat_template == template


@pytest.mark.parametrize("template", ["chatml", ["{{ messages }}"]], ids=str)
def test_an_invalid_template_is_refused(template: Any, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=r"tokenizer\.chat_template: .*chatml|messages.* must be a Jinja"):
        written(tmp_path, {"tokenizer.chat_template": template})


def test_vocabularies_nobody_can_rebuild_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="pre-tokeniser 'tekken' is not supported"):
        open_gguf(tiny.write_gguf(tmp_path / "model.gguf", pre="tekken"))
    with pytest.raises(Unsupported, match="tokenizer 'bert' is not supported: gpt2, llama are"):
        written(tmp_path, {"tokenizer.ggml.model": "bert"})
    with pytest.raises(BadInput, match=r"tokenizer\.ggml\.merges is missing"):
        written(tmp_path, {"tokenizer.ggml.merges": None})
    with pytest.raises(BadInput, match=r"tokenizer\.ggml\.scores is missing"):
        written(tmp_path, {"tokenizer.ggml.model": "llama"})
    with pytest.raises(BadInput, match=rf"tokenizer\.ggml\.scores has 2 values, must have {len(tiny.VOCAB)}"):
        written(tmp_path, {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": [0.0, 0.0]})
