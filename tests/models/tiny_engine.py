"""A tiny engine as the builder publishes it, with a chat template."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from build.engine import build_engine
from build.quantise import Precision
from build.recipe import Limits, Recipe
from build.sources.resolve import open_source
from tests.models import tiny

NAME = "mini"
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}<|endoftext|>"


class Quiet:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        assert name
        assert steps
        return lambda: None


def publish(folder: Path, precision: Precision = Precision.INT8, template: str | None = TEMPLATE) -> Path:
    """The repository; the checkpoint that it was built of is in the folder `checkpoint` beside it."""
    checkpoint = tiny.write_folder(folder / "checkpoint")
    settings = checkpoint / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text("utf-8")) | {"chat_template": template}))
    limits = {kind.value: Limits() for kind in Precision}
    recipe = Recipe(name=NAME, source=str(checkpoint), precision=precision, limits=limits)
    build_engine(recipe, open_source, folder / "repository", Quiet(), verify_tokens=96)
    return folder / "repository"
