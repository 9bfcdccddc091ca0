"""A chunk of the engine to the outputs of the ensemble: token ids to text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from engine.tokens import TokenTable


@dataclass(frozen=True, slots=True)
class Answer:
    """`num_input_tokens`, `num_output_tokens` and `logprobs` are None unless the client asked for them."""

    text: str
    finish_reason: str
    num_input_tokens: int | None
    num_output_tokens: int | None
    logprobs: str | None


@dataclass(frozen=True, slots=True)
class Decoded:
    handle: str
    answer: Answer


def decode_chunk(chunk: bytes, table: TokenTable) -> Decoded:
    """Raises ValueError or KeyError for what the engine did not write."""
    fields = json.loads(chunk)
    data = table.join(fields["ids"])[fields["skip"] : fields["limit"]]
    wanted = fields["return"]
    answer = Answer(
        data.decode("utf-8", "replace"),
        fields["finish"],
        fields["prompt_tokens"] if "num_input_tokens" in wanted else None,
        fields["tokens"] if "num_output_tokens" in wanted else None,
        json.dumps(fields["logprobs"], ensure_ascii=False) if "logprobs" in wanted else None,
    )
    return Decoded(fields["handle"], answer)


# What a client gets in place of a chunk that cannot be read; the engine is told, and ends the request.
FALLBACK = Answer("", "", None, None, None)


def read_handle(chunk: bytes) -> str:
    """The handle of a chunk that could not be decoded, or an empty string when even that cannot be read."""
    return _read(rb'"handle":"([^"]*)"', chunk)


def read_table(chunk: bytes) -> str:
    """The key of the token table that decodes a chunk."""
    return _read(rb'"table":"([^"]*)"', chunk)


def _read(pattern: bytes, chunk: bytes) -> str:
    found = re.search(pattern, chunk)
    return found[1].decode("ascii", "replace") if found else ""
