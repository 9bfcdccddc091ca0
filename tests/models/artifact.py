"""A small artifact on disk, as the builder publishes it, without a graph."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)


def byte_tokenizer(backwards: bool = False) -> Tokenizer:
    """A token for each byte, numbered in either order, and two special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=backwards)
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(text, normalized=False, special=True) for text in ("<|im_start|>", "<|im_end|>")]
    tokenizer.add_special_tokens(special)
    return tokenizer


def token_bytes(tokenizer: Tokenizer) -> list[bytes]:
    special = tokenizer.get_added_tokens_decoder()
    size = tokenizer.get_vocab_size()
    return [
        b"" if token in special else _bytes_of(tokenizer.id_to_token(token) or "") for token in range(size)
    ]


def _bytes_of(piece: str) -> bytes:
    return bytes(_BYTE_OF[letter] for letter in piece)


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's: printable bytes stand for themselves, the others follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


def write_artifact(folder: Path, spelling: Tokenizer | None = None, **changes: Any) -> Path:
    """`changes` replace fields of the manifest. Returns the folder."""
    folder.mkdir(parents=True)
    tokenizer = spelling or byte_tokenizer()
    entries = token_bytes(tokenizer)
    lengths = struct.pack(f"<{len(entries)}H", *map(len, entries))
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokens.bin": struct.pack("<4sII", b"HLTK", 1, len(entries)) + lengths + b"".join(entries),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
    }
    manifest = {
        "manifest_version": 2,
        "name": "toy",
        "task": "chat",
        "prefix": "",
        "dialect": "onnxruntime",
        "precision": "fp32",
        "source": {"licence": "Apache-2.0"},
        "model": {
            "architecture": "decoder", "layers": 1, "kv_heads": 1, "head_dim": 8, "vocab_size": len(entries),
            "max_positions": 128, "max_source_positions": 0, "encoder_layers": 0, "kv_dtype": "float32",
        },
        "generation": {"eos_token_ids": [tokenizer.token_to_id("<|im_end|>")], "temperature": 0.0},
        "tokenizer": {"bos_token": None, "eos_token": "<|im_end|>"},
        "quality": {},
        "files": listed,
        "size_bytes": sum(map(len, files.values())),
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))
    return folder
