"""Makes a tokenizer.json fit for serving: it cuts no text, and every id has a row in the model."""

from __future__ import annotations

import json
from typing import Any

from build.errors import BadInput
from build.token_table import load_tokenizer

Json = dict[str, Any]


def fitted(tokenizer_json: bytes, vocabulary: int) -> bytes:
    """The tokenizer.json without truncation, padding, and added tokens from id `vocabulary` on.

    It keeps its bytes where there are none of these. BadInput where such a token stands before or after every
    text. bart-large-cnn, for one, has no row for `<mask>`: that text is then encoded like any other.
    """
    content = _parsed(tokenizer_json)
    changed = any(content.get(key) for key in ("truncation", "padding"))
    beyond = {token["content"] for token in content.get("added_tokens") or [] if token["id"] >= vocabulary}
    if not changed and not beyond:
        return tokenizer_json
    content |= {"truncation": None, "padding": None}
    if beyond:
        content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] not in beyond]
        content["model"]["vocab"] = _without(content["model"]["vocab"], beyond)
    fits = json.dumps(content, ensure_ascii=False).encode()
    around = load_tokenizer(fits).encode("").ids
    if beyond and max(around, default=0) >= vocabulary:
        raise BadInput(
            f"tokenizer.json: adds id {max(around)} to texts, config.json has a vocab_size of {vocabulary}"
        )
    return fits


def _parsed(tokenizer_json: bytes) -> Json:
    try:
        content = json.loads(tokenizer_json)
    except ValueError as error:
        raise BadInput(f"tokenizer.json: is damaged: {error}") from error
    if not isinstance(content, dict):
        raise BadInput("tokenizer.json: must hold a JSON object")
    return content


def _without(vocab: Any, tokens: set[str]) -> Any:
    """The vocabulary without the tokens. In a list the place is the id: only the last can go."""
    if isinstance(vocab, dict):
        return {token: index for token, index in vocab.items() if token not in tokens}
    while vocab and vocab[-1][0] in tokens:
        vocab = vocab[:-1]
    return vocab
