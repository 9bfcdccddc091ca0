"""tokens.bin: what each token id adds to a text, in bytes, so that the engine can match stop bytes.

Little-endian: b"HLTK", u32 version, u32 count, count u16 lengths, then the bytes of all ids in order.
Special tokens add nothing. The text of an answer is the bytes of its ids, decoded as UTF-8.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

from build.errors import BadInput, BuildError, Unsupported

_MAGIC = b"HLTK"
_VERSION = 1
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_METASPACE = "\u2581"
_SAMPLES = (
    "The quick brown fox jumps over the lazy dog, 1234567890 times.",
    "def f(x):\n    return {'a': x**2}  # ok?\n\n\tif True:\r\n",
    "Zażółć gęślą jaźń · 你好,世界 · Привет · مرحبا · 🙂👩‍👩‍👧 · e\u0301",
)


def token_bytes(tokenizer_json: bytes, count: int) -> list[bytes]:
    """Bytes per id, for `count` ids; Unsupported names a decoder that cannot be tabulated."""
    tokenizer = load_tokenizer(tokenizer_json)
    to_bytes = _converter(json.loads(tokenizer_json).get("decoder"))
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    highest = max(vocabulary.values())
    if highest >= count:
        raise BadInput(f"tokenizer.json: has an id {highest}, config.json a vocab_size of {count}")
    table = [b""] * count
    for index in vocabulary.values():
        # The library's text of an id: an added token that is normalised is spelled so.
        table[index] = to_bytes(tokenizer.id_to_token(index) or "")
    for index, added in tokenizer.get_added_tokens_decoder().items():
        table[index] = b"" if added.special else table[index]
    _check(tokenizer, table)
    return table


def leading_space(tokenizer_json: bytes) -> bool:
    """Whether the bytes of a text begin with a space that the library takes off when it decodes."""
    tokenizer = load_tokenizer(tokenizer_json)
    to_bytes = _converter(json.loads(tokenizer_json).get("decoder"))
    encoded = tokenizer.encode(_SAMPLES[0], add_special_tokens=False)
    spelled = b"".join(map(to_bytes, encoded.tokens))
    return spelled.startswith(b" ") and not tokenizer.decode(encoded.ids).startswith(" ")


def load_tokenizer(tokenizer_json: bytes) -> Tokenizer:
    """The tokenizer of a tokenizer.json; BadInput when the file is damaged."""
    try:
        return Tokenizer.from_str(tokenizer_json.decode())
    except Exception as error:  # the library raises nothing narrower
        raise BadInput(f"tokenizer.json: is damaged: {error}") from error


def encode_table(table: Sequence[bytes]) -> bytes:
    """The content of tokens.bin; BuildError for a token of more than 65535 bytes."""
    longest = max(map(len, table))
    if longest > 0xFFFF:
        raise BuildError(f"tokenizer.json: a token of {longest} bytes, limit 65535")
    lengths = struct.pack(f"<{len(table)}H", *map(len, table))
    return _MAGIC + struct.pack("<II", _VERSION, len(table)) + lengths + b"".join(table)


_UNSPACED = {"type": "Replace", "pattern": {"String": _METASPACE}, "content": " "}
_STRIPPED = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def _converter(decoder: Any) -> Callable[[str], bytes]:
    """The bytes that a decoder makes of any token, but for the space that a text begins with."""
    steps = decoder["decoders"] if decoder and decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] if step else "none" for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level
    spaces = kinds[0] == "Metaspace" or steps[0] == _UNSPACED
    rest = steps[1:]
    from_bytes = rest[:1] == [{"type": "ByteFallback"}]
    joined = rest[1:] if from_bytes else rest
    if spaces and joined in ([], [{"type": "Fuse"}], [{"type": "Fuse"}, _STRIPPED]):
        return _metaspace_and_bytes if from_bytes else _metaspace
    raise Unsupported(
        f"tokenizer.json: decoder {' + '.join(kinds)} is not supported: ByteLevel, Metaspace and"
        " Replace with ByteFallback are"
    )


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's visible character for every byte: printable ones stand for themselves."""
    kept = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in kept]
    return {chr(byte): byte for byte in kept} | {chr(256 + i): b for i, b in enumerate(others)}


_ALPHABET = _byte_alphabet()


def _byte_level(token: str) -> bytes:
    if not all(character in _ALPHABET for character in token):
        return token.encode()
    return bytes(_ALPHABET[character] for character in token)


def _metaspace(token: str) -> bytes:
    return token.replace(_METASPACE, " ").encode()


def _metaspace_and_bytes(token: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else _metaspace(token)


def _check(tokenizer: Tokenizer, table: Sequence[bytes]) -> None:
    """The table must decode as the library does, which may strip one leading space."""
    for sample in _SAMPLES:
        try:
            ids = tokenizer.encode(sample, add_special_tokens=False).ids
        except Exception as error:  # the library raises nothing narrower
            raise BadInput(f"tokenizer.json: encodes nothing: {error}") from error
        ours = b"".join(table[index] for index in ids).decode(errors="replace")
        theirs = tokenizer.decode(ids, skip_special_tokens=True)
        if ours != theirs and ours != " " + theirs:
            raise BuildError(f"tokens.bin: decodes {theirs!r} as {ours!r}: tokenizer unsupported")
