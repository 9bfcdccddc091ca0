"""The life of a build: checkpoint, graph, verification, manifest, publication."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from build import verify
from build.architecture import describe, view
from build.architecture.parts import Architecture
from build.checkpoint import Checkpoint
from build.dialects.contents import store_decoder
from build.dialects.encoding import require_blocks
from build.dialects.onnxruntime.graph import build_graph, require_runnable
from build.dialects.onnxruntime.store import Store
from build.dialects.scored import Scored
from build.dialects.weight_file import WeightFile
from build.errors import BadInput, BuildError
from build.manifest import MANIFEST_FILE, Json, encode_manifest, generation, manifest
from build.passes.smooth import smooth
from build.publish import Slot, staged, write_new
from build.quantise import Precision
from build.recipe import Recipe, Task
from build.token_table import encode_table, token_bytes
from build.triton_config import configs

_GRAPH = "model.onnx"
_WEIGHTS = "model.onnx.data"
_ALL_POSITIONS = "all_positions.onnx"


class Progress(Protocol):
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        """A stage of so many steps begins; call the result after each."""


@dataclass(frozen=True)
class Result:
    target: Path
    manifest: Json


def build_engine(
    recipe: Recipe,
    open_source: Callable[[str], Checkpoint],
    repository: Path,
    progress: Progress,
    force: bool = False,
    verify_tokens: int = verify.DEFAULT_TOKENS,
) -> Result:
    """Publishes REPOSITORY/NAME_engine/1 and the configs that are absent; BuildError leaves all as it was."""
    target = repository / f"{recipe.name}_engine" / "1"
    with _space_errors(repository), staged(target, force) as slot:
        opened = progress.stage("source", 1)
        checkpoint = view(open_source(recipe.source))
        opened()
        recipe = replace(recipe, task=recipe.task or _task(checkpoint))
        architecture = describe(checkpoint.config)
        _require_buildable(recipe, checkpoint, architecture)
        content = _fill(slot.staging, recipe, checkpoint, architecture, progress, verify_tokens)
        _publish(slot, configs(recipe.name, architecture.max_positions), repository)
    return Result(target, content)


def _task(checkpoint: Checkpoint) -> Task:
    return Task.COMPLETE if checkpoint.tokenizer.chat_template is None else Task.CHAT


def _require_buildable(recipe: Recipe, checkpoint: Checkpoint, architecture: Architecture) -> None:
    """All that can be refused before the long work."""
    checkpoint.require_exactly(architecture.tensors())
    require_runnable(architecture)
    require_blocks(checkpoint, recipe.precision)
    if recipe.task is Task.CHAT and checkpoint.tokenizer.chat_template is None:
        raise BadInput('the checkpoint has no chat template: set task = "complete", or add one')
    if not generation(checkpoint)["eos_token_ids"]:
        raise BadInput("the checkpoint names no end of sequence: add eos_token_id to config.json")


def _fill(
    folder: Path,
    recipe: Recipe,
    checkpoint: Checkpoint,
    architecture: Architecture,
    progress: Progress,
    verify_tokens: int,
) -> Json:
    _write_tokenizer(folder, checkpoint, architecture)
    _write_graphs(
        folder, recipe, _prepared(recipe, checkpoint, architecture, progress), architecture, progress
    )
    ids = verify.windows(checkpoint.tokenizer.json, architecture.max_positions, verify_tokens)
    advance = progress.stage("verify", len(architecture.layers) + len(ids))
    every = folder / _ALL_POSITIONS
    quality = verify.measure(checkpoint, architecture, every, ids, advance)
    verify.require_same_graph(every, folder / _GRAPH, architecture, ids[0])
    every.unlink()
    verify.require(quality, recipe.limit())
    content = manifest(recipe, checkpoint, architecture, quality, folder)
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(content))
    return content


def _prepared(
    recipe: Recipe, checkpoint: Checkpoint, architecture: Architecture, progress: Progress
) -> Checkpoint:
    """What is written: the same model, its ranges made easier where it will be rounded."""
    if recipe.precision not in (Precision.INT8, Precision.INT4):
        return checkpoint
    return smooth(checkpoint, architecture, progress.stage("smooth", len(architecture.layers)))


def _write_tokenizer(folder: Path, checkpoint: Checkpoint, architecture: Architecture) -> None:
    files = checkpoint.tokenizer
    table = token_bytes(files.json, architecture.vocab_size)
    (folder / "tokenizer.json").write_bytes(files.json)
    (folder / "tokens.bin").write_bytes(encode_table(table))
    if files.chat_template is not None:
        (folder / "chat_template.jinja").write_text(files.chat_template, encoding="utf-8")


def _write_graphs(
    folder: Path,
    recipe: Recipe,
    checkpoint: Checkpoint,
    architecture: Architecture,
    progress: Progress,
) -> None:
    advance = progress.stage("weights", len(architecture.layers))
    with WeightFile(folder / _WEIGHTS) as file:
        store = Store(checkpoint, recipe.precision, file)
        store_decoder(store, architecture, advance)
    ir.save(build_graph(architecture, store, Scored.LAST), folder / _GRAPH)
    ir.save(build_graph(architecture, store, Scored.ALL), folder / _ALL_POSITIONS)


def _publish(slot: Slot, texts: Mapping[str, str], repository: Path) -> None:
    """Configs first: they are small, harmless alone, and an engine must not stand without them."""
    for model, text in texts.items():
        config = repository / model / "config.pbtxt"
        if not config.exists():
            write_new(config, text.encode())
        (repository / model / "1").mkdir(exist_ok=True)
    slot.publish()


@contextmanager
def _space_errors(repository: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise BuildError(f"{error.filename or repository}: {error.strerror or error}") from error
        raise BuildError(
            f"{repository}: no space left on the device: nothing was published; free some or give"
            " --repository on another"
        ) from error
