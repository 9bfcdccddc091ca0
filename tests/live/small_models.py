"""Random models of a few layers: built in a second, each with a tokenizer and answers of its own."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

from build.cli import main as build
from engine.core.tokens import load_table
from tests.live.artifacts import edited, replace
from tests.models import tiny

POSITIONS = 4096  # so that a stream outlasts what is done meanwhile
SLOTS = 4


@dataclass(frozen=True, slots=True)
class SmallModel:
    """A checkpoint. `backwards` numbers the tokens of its vocabulary the other way round."""

    folder: Path
    family: str
    seed: int
    backwards: bool = False

    def write(self) -> SmallModel:
        changes = {"n_positions" if self.family == "gpt2" else "max_position_embeddings": POSITIONS}
        tiny.write_folder(self.folder, self.family, self.seed, **changes)
        if self.backwards:
            path = self.folder / "tokenizer.json"
            content = json.loads(path.read_text("utf-8"))
            plain = tiny.VOCAB[len(tiny.SPECIALS) :]
            names = [*tiny.SPECIALS, *reversed(plain)]
            content["model"]["vocab"] = {token: index for index, token in enumerate(names)}
            path.write_text(json.dumps(content), "utf-8")
        return self

    def publish(self, repository: Path, name: str, *options: str) -> Path:
        """The new version's folder in NAME_engine."""
        before = set(repository.glob(f"{name}_engine/[0-9]*"))
        command = ["--name", name, "--source", str(self.folder), "--precision", "fp32"]
        command += ["--repository", str(repository), "--verify-tokens", "64", *options]
        assert build(command) == 0
        (version,) = set(repository.glob(f"{name}_engine/[0-9]*")) - before
        return version

    def answer(self, prompt: str, tokens: int, version: Path) -> str:
        """What transformers generates, greedily and past any end, in the bytes of the built table."""
        ids = Tokenizer.from_file(str(self.folder / "tokenizer.json")).encode(prompt).ids
        model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=torch.float32).eval()
        with torch.no_grad():
            found = model.generate(
                torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, eos_token_id=None, pad_token_id=0
            )
        new = np.asarray(found[0, len(ids) :]).tolist()
        return load_table(version / "tokens.bin").join(new).decode("utf-8", "replace")


def give_slots(repository: Path, name: str, count: int = SLOTS) -> None:
    """And all the context that the model has."""
    config = repository / f"{name}_engine" / "config.pbtxt"
    parameters = {"slots": f"{count}", "max_context": f"{POSITIONS}"}
    replace(config, edited(config.read_text(), parameters).encode())


def break_version(repository: Path, name: str) -> Path:
    """The newest version once more, its weights cut short; its folder."""
    versions = (repository / f"{name}_engine").glob("[0-9]*")
    newest = max(versions, key=lambda path: int(path.name))
    broken = newest.with_name(f"{int(newest.name) + 1}")
    shutil.copytree(newest, broken)
    (broken / "model.onnx.data").write_bytes(b"short")
    return broken
