"""What the tests of passes share: text to read, tools, and a model's logits without the passes' code."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from build.architecture import describe
from build.checkpoint import Checkpoint
from build.compress.step import Tools
from build.quantise import Floats, Ids
from build.reference import decoder
from tests.models import tiny

_LETTERS = list("abcdefghijklmnopqrstuvwxyz ,.")


def prose(seed: int, characters: int) -> str:
    """Letters in random order."""
    return "".join(np.random.default_rng(seed).choice(_LETTERS, characters).tolist())


def read_ids() -> Ids:
    """[windows, positions] of text that no pass has read."""
    tokenizer = Tokenizer.from_str(json.dumps(tiny.tokenizer_json()))
    return np.array(tokenizer.encode(prose(1, 200)).ids[:96], np.int64).reshape(4, 24)


@dataclass
class Seen:
    """Tools over the text, with how many steps each stage has left, and what was noted."""

    texts: tuple[str, ...] = (prose(0, 4000),)
    left: dict[str, int] = field(default_factory=dict)
    notes: list[Mapping[str, Any]] = field(default_factory=list)

    def tools(self) -> Tools:
        return Tools(self.texts, 0, self.stage, self.notes.append)

    def stage(self, name: str, steps: int) -> Callable[[], None]:
        self.left[name] = steps

        def advance() -> None:
            self.left[name] -= 1

        return advance

    def is_done(self) -> bool:
        return bool(self.left) and not any(self.left.values())


def opened(folder: Path, family: str = "llama", **changes: Any) -> Checkpoint:
    return tiny.opened(tiny.write_folder(folder, family, **changes))


def logits(checkpoint: Checkpoint, ids: Ids | None = None) -> Floats:
    """[windows, positions, vocab], of the model that its config describes, which must be whole."""
    architecture = describe(checkpoint.config)
    checkpoint.require_exactly(architecture.tensors())
    ids = read_ids() if ids is None else ids
    hidden = decoder.final_hidden(checkpoint, architecture, ids, lambda: None)
    return hidden @ decoder.head_weight(checkpoint, architecture).T
