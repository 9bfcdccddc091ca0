"""How byte-level BPE cuts a text into words: the names that GGUF files have for it, and llama.cpp's patterns.

llama.cpp knows more names; these are the ones whose patterns the `tokenizers` library follows exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

from build.errors import Unsupported
from build.sources.tokenizer_json import Json, byte_level, sequence, split


@dataclass(frozen=True)
class PreTokenizer:
    """`whole_words`: a word that is a token is taken whole, whatever the merges say; `adds_bos` holds where
    the file does not say.
    """

    steps: Json
    whole_words: bool = False
    adds_bos: bool = False


def pre_tokenizer(name: str) -> PreTokenizer:
    """The pre-tokeniser of that name; Unsupported for an unknown one."""
    if name not in _NAMED:
        raise Unsupported(f"GGUF pre-tokeniser {name!r} is not supported: {', '.join(_NAMED)} are")
    return _NAMED[name]


def _words(*patterns: str, use_regex: bool = False) -> Json:
    """Cuts by one pattern after the other, then into bytes."""
    cuts = [split({"Regex": pattern}) for pattern in patterns]
    return sequence("pretokenizers", *cuts, byte_level(use_regex=use_regex))


def _cl100k(digits: str) -> str:
    """The pattern GPT-4 introduced; families differ in how many digits make a word."""
    return (
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_GPT2 = PreTokenizer(byte_level())
_DIGITS = PreTokenizer(_words(r"\p{N}", use_regex=True))
_UNNAMED = PreTokenizer(_words(r"[\p{P}\$\+<=>\^~\|]+", _GPT2_PATTERN, r"\p{N}+", r"[0-9][0-9][0-9]"))
_LLAMA3 = PreTokenizer(_words(_cl100k(r"\p{N}{1,3}")), whole_words=True, adds_bos=True)
_THREE_DIGITS = PreTokenizer(_LLAMA3.steps)
_QWEN2 = PreTokenizer(_words(_cl100k(r"\p{N}")))

_NAMES = (
    (_UNNAMED, "default"),
    (_GPT2, "gpt-2 phi-2 gigachat a.x-4.0 mellum exaone4 mpt olmo jais trillion granite-docling"),
    (_DIGITS, "smollm starcoder refact command-r codeshell exaone minerva-7b mellum2"),
    (_LLAMA3, "llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2"),
    (_THREE_DIGITS, "dbrx smaug-bpe chatglm-bpe glm4"),
    (_QWEN2, "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2"),
)
_NAMED = {name: kind for kind, names in _NAMES for name in names.split()}
