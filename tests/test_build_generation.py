"""What a checkpoint says of generating, as the manifest tells it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from build.generation import generation
from build.sources.folder import open_folder
from tests import tiny


def test_the_end_of_a_sequence_is_no_bad_word(tmp_path: Path) -> None:
    checkpoint = open_folder(tiny.write_folder(tmp_path, "llama"))
    settings = {"eos_token_id": [2, 7], "bad_words_ids": [[5], [2], [8, 9], [7]], "suppress_tokens": [4]}
    assert generation(replace(checkpoint, generation=settings))["suppress_tokens"] == [4, 5]
