"""The tokenizer of a served model, from its tokenizer.json."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from loadtest.errors import TrafficError


class TokenizerFile:
    """An Encoder for prompts. TrafficError when the file holds no tokenizer."""

    def __init__(self, path: Path) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises no other class
            raise TrafficError(f"{path}: is no tokenizer.json: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids
