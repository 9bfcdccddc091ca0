"""The tokens of a GGUF file, and what llama.cpp takes each for: by its type, by a key, or by its text.

Many files name one end, such as <|endoftext|>, though a turn ends in <|im_end|>: llama.cpp knows the ends of
all families by their text, and makes control tokens of them whatever their type.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum

from build.errors import BadInput, Unsupported
from build.sources.gguf_config import Metadata, required


class TokenType(IntEnum):
    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


SPECIAL = (TokenType.UNKNOWN, TokenType.CONTROL)

_ENDS = (
    "<|eot_id|> <|im_end|> <|end|> <|return|> <|call|> <|flush|> <|calls|> <end_of_turn> <|endoftext|> </s>"
    " <|eom_id|> <EOT> _<EOT> [EOT] [EOS] <|end_of_text|> <end_of_utterance> <eos> <turn|> <|tool_response>"
    " <｜end▁of▁sentence｜> [e~["
)
# Texts that end nothing in a vocabulary that has all of others, and what they are there.
_NO_ENDS: dict[str, tuple[TokenType, tuple[set[str], ...]]] = {
    "<|end|>": (
        TokenType.USER_DEFINED,
        tuple({one, other} for one in ("<|return|>", "<|flush|>") for other in ("<|call|>", "<|calls|>")),
    ),
    "</s>": (TokenType.NORMAL, ({"<|tool_response>"},)),
}
_SHOWN = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}


@dataclass(frozen=True)
class _Infill:
    """A mark of texts with a gap: its keys, of which the last counts, or else the first of these texts."""

    keys: tuple[str, ...]
    texts: str
    ends: bool = False


_INFILL = (
    _Infill(
        ("fim_pre", "prefix"),
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>",
    ),
    _Infill(
        ("fim_suf", "suffix"),
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>",
    ),
    _Infill(
        ("fim_mid", "middle"),
        "<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>",
    ),
    _Infill(("fim_pad",), "<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]", ends=True),
    _Infill(("fim_rep",), "<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>", ends=True),
    _Infill(("fim_sep",), "<|file_sep|>", ends=True),
)
# A SentencePiece vocabulary that does not say has these.
_LLAMA_IDS = {"unknown": 0, "bos": 1, "eos": 2}


@dataclass(frozen=True)
class Vocabulary:
    """`ends` are the tokens after which an answer is over, `suppressed` those that are never chosen."""

    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    bos: int | None
    eos: int | None
    unknown: int | None
    ends: frozenset[int]
    suppressed: tuple[int, ...]

    def text(self, index: int | None) -> str | None:
        return None if index is None else self.tokens[index]


def read_vocabulary(metadata: Metadata) -> Vocabulary:
    """The vocabulary of a file; BadInput names the faulty key."""
    tokens = _tokens(metadata)
    ids = {token: index for index, token in enumerate(tokens)}
    types = _types(metadata, len(tokens))
    named = _named(metadata, len(tokens))
    # The order matters: a later rule wins.
    # 1. Ends by their keys.
    ends = {index for role in ("eos", "eot", "eom") if (index := named[role]) is not None}
    # 2. Marks of texts with a gap, some of which end too; those found by their text become control tokens.
    for mark, index, by_text in _infill(metadata, ids):
        ends |= {index} if mark.ends else set()
        types[index] = TokenType.CONTROL if by_text else types[index]
    # 3. Ends by their text, whatever their type.
    for text in ids.keys() & _ENDS.split():
        ends.add(ids[text])
        types[ids[text]] = TokenType.CONTROL
    # 4. Texts that are shown, and ends that others rule out.
    for text in ids.keys() & _SHOWN:
        types[ids[text]] = TokenType.USER_DEFINED
    for text, (kind, companies) in _NO_ENDS.items():
        found = {tokens[index] for index in ends}
        if text in found and any(company <= found for company in companies):
            ends.remove(ids[text])
            types[ids[text]] = kind
    suppressed = metadata.get("tokenizer.ggml.suppress_tokens", [])
    return Vocabulary(
        tokens=tokens,
        types=tuple(types),
        bos=named["bos"],
        eos=named["eos"],
        unknown=named["unknown"],
        ends=frozenset(ends),
        suppressed=tuple(index for index in suppressed if 0 <= index < len(tokens)),
    )


def _tokens(metadata: Metadata) -> tuple[str, ...]:
    """The tokens by id; an empty one gets a name that no text becomes, a repeated one is refused."""
    listed = required(metadata, "tokenizer.ggml.tokens")
    tokens = tuple(token or f"[EMPTY_{index}]" for index, token in enumerate(listed))
    seen: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if seen.setdefault(token, index) != index:
            where = f"{seen[token]} and {index}"
            raise Unsupported(f"GGUF metadata: tokenizer.ggml.tokens: {token!r} is there twice, as {where}")
    return tokens


def _types(metadata: Metadata, count: int) -> list[TokenType]:
    key = "tokenizer.ggml.token_type"
    numbers = metadata.get(key, [TokenType.NORMAL] * count)
    if len(numbers) < count:
        raise BadInput(f"GGUF metadata: {key} has {len(numbers)} values, must have {count}")
    known = {kind.value: kind for kind in TokenType}
    return [known.get(number, TokenType.UNDEFINED) for number in numbers[:count]]


def _named(metadata: Metadata, count: int) -> dict[str, int | None]:
    """The ids of special tokens by role.

    A byte-level vocabulary must name its end: llama.cpp would take token 11, in many a comma.
    """
    sentencepiece = metadata.get("tokenizer.ggml.model") == "llama"
    if not sentencepiece:
        required(metadata, "tokenizer.ggml.eos_token_id")
    defaults = {role: index for role, index in _LLAMA_IDS.items() if sentencepiece and index < count}
    roles = ("bos", "eos", "eot", "eom", "unknown")
    return {role: _id(metadata, role, count, defaults.get(role)) for role in roles}


def _id(metadata: Metadata, role: str, count: int, default: int | None = None) -> int | None:
    key = f"tokenizer.ggml.{role}_token_id"
    if key not in metadata:
        return default
    index = metadata[key]
    if not isinstance(index, int) or not 0 <= index < count:
        raise BadInput(f"GGUF metadata: {key}: {index!r}, must be below {count}, the number of tokens")
    return index


def _infill(metadata: Metadata, ids: Mapping[str, int]) -> Iterator[tuple[_Infill, int, bool]]:
    """Each mark that the vocabulary has, its id, and whether it was found by its text."""
    for mark in _INFILL:
        given = [index for key in mark.keys if (index := _id(metadata, key, len(ids))) is not None]
        told = [ids[text] for text in mark.texts.split() if text in ids]
        if given or told:
            yield mark, given[-1] if given else told[0], not given
