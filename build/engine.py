"""The steps of a build, in order: checkpoint, graphs, verification, manifest, publication."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from build import verify
from build.architecture import Model, describe_model, view
from build.architecture.seq2seq import EncoderDecoder
from build.assemble_onnxruntime import DecoderAssembly, EncoderDecoderAssembly
from build.assemble_tensorrt import PlanOptions, TensorRtAssembly
from build.assembly import WEIGHTS, Also, Assembly, Progress
from build.checkpoint import Checkpoint, TokenizerFiles
from build.compress.chain import require_within
from build.compress.lab import Compressed
from build.errors import BadInput, BuildError
from build.generation import generation, unserved
from build.manifest import MANIFEST_FILE, Json, encode_manifest, manifest
from build.publish import Slot, place, staged, write_new
from build.recipe import Recipe, Runtime
from build.tasks import settled
from build.token_table import encode_table, token_bytes
from build.tokenizer_fit import fitted
from build.triton_config import configs


@dataclass(frozen=True)
class Independent:
    """`build.independent`, which needs torch: `compare` advances so many `steps`."""

    compare: Callable[[str, Checkpoint, Model, Json, Path, Callable[[], None]], Json]
    steps: int


@dataclass(frozen=True)
class Result:
    """`unserved` names settings for generation of the checkpoint that no engine serves."""

    target: Path
    manifest: Json
    unserved: list[str]


def build_engine(
    recipe: Recipe,
    open_source: Callable[[str], Checkpoint],
    repository: Path,
    progress: Progress,
    force: bool = False,
    new_version: bool = False,
    verify_tokens: int = verify.DEFAULT_TOKENS,
    plans: PlanOptions | None = None,
    independent: Independent | None = None,
    compress: Callable[[Recipe, Checkpoint], Compressed] | None = None,
) -> Result:
    """Publishes NAME_engine/VERSION and the configs that are absent; BuildError leaves all as it was.

    The version is 1, or the newest there is, which `force` replaces; with `new_version` it is the next.
    `plans` are for a recipe whose engine is TensorRT; Unbuilt is raised if this host can only check it.
    `independent` reads the source too, and raises BuildError if it finds another model. `compress` runs the
    steps of a recipe that has some.
    """
    target = place(repository / f"{recipe.name}_engine", new_version)
    with _space_errors(repository), staged(target, force) as slot:
        opened = progress.stage("source", 1)
        recipe, checkpoint = settled(recipe, view(open_source(recipe.source)))
        opened()
        compressed = compress(recipe, checkpoint) if compress and recipe.steps else None
        if compressed:
            checkpoint = compressed.checkpoint
            recipe = replace(recipe, precision=compressed.precision or recipe.precision)
        model = describe_model(checkpoint.config)
        checkpoint = replace(checkpoint, tokenizer=_served(checkpoint.tokenizer, model))
        assembly = _assembly(recipe, checkpoint, model, plans, bool(compressed and compressed.carried))
        # First everything that can be refused in seconds, the tokenizer last; then the steps that take
        # minutes.
        _require_buildable(checkpoint, model, assembly)
        _write_tokenizer(slot.staging, checkpoint.tokenizer, model.vocab_size)
        assembly.write(slot.staging, progress)
        lineage: Json | None = None
        if compressed:
            lineage, also = _lineage(compressed, recipe, slot.staging)
        quality = assembly.verify(slot.staging, progress, verify_tokens, also if compressed else None)
        verify.require(quality, recipe.limit())
        if lineage:
            require_within("engine", lineage["engine"], recipe.budget)
        facts = assembly.facts()
        content = manifest(recipe, checkpoint, model, quality, slot.staging, facts, lineage)
        _write_manifest(slot.staging, content)
        if independent:  # the server's program reads the folder, so the manifest is written before and after
            advance = progress.stage("check", independent.steps)
            content["check"] = independent.compare(
                recipe.source, checkpoint, model, content, slot.staging, advance
            )
            _write_manifest(slot.staging, content)
        _publish(slot, configs(recipe.name, model.max_positions, facts.settings), repository)
    return Result(target, content, unserved(checkpoint))


def _lineage(compressed: Compressed, recipe: Recipe, folder: Path) -> tuple[Json, Also]:
    """What the manifest says of a chain, and what adds the engine's own figures to it."""
    lineage: Json = {"steps": compressed.lineage, "budget": asdict(recipe.budget), "engine": {}}

    def measure(open_engine: Callable[[int], verify.Session]) -> None:
        lineage["engine"] = compressed.measured(open_engine, (folder / WEIGHTS).stat().st_size)

    return lineage, measure


def _assembly(
    recipe: Recipe, checkpoint: Checkpoint, model: Model, plans: PlanOptions | None, carried: bool
) -> Assembly:
    if recipe.engine is Runtime.TENSORRT:
        assert plans is not None
        return TensorRtAssembly(checkpoint, model, recipe.precision, recipe.limit(), plans)
    if isinstance(model, EncoderDecoder):
        return EncoderDecoderAssembly(checkpoint, model, recipe.precision)
    return DecoderAssembly(checkpoint, model, recipe.precision, carried)


def _require_buildable(checkpoint: Checkpoint, model: Model, assembly: Assembly) -> None:
    """Refuses everything that can be refused before the long work."""
    checkpoint.require_exactly(model.tensors())
    assembly.require_buildable()
    if not generation(checkpoint)["eos_token_ids"]:
        raise BadInput("the checkpoint names no end of sequence: add eos_token_id to config.json")


def _served(files: TokenizerFiles, model: Model) -> TokenizerFiles:
    source = model.encoder.vocab_size if isinstance(model, EncoderDecoder) else model.vocab_size
    target = files.target and fitted(files.target, model.vocab_size)
    return replace(files, json=fitted(files.json, source), target=target)


def _write_tokenizer(folder: Path, files: TokenizerFiles, vocabulary: int) -> None:
    """Writes the tokenizer's files; the table of bytes is for answers."""
    (folder / "tokenizer.json").write_bytes(files.json)
    (folder / "tokens.bin").write_bytes(encode_table(token_bytes(files.target or files.json, vocabulary)))
    if files.chat_template is not None:
        (folder / "chat_template.jinja").write_text(files.chat_template, encoding="utf-8")


def _write_manifest(folder: Path, content: Json) -> None:
    (folder / MANIFEST_FILE).write_bytes(encode_manifest(content))


def _publish(slot: Slot, texts: Mapping[str, str], repository: Path) -> None:
    """Writes missing configs, then the engine: configs alone are harmless, an engine needs them."""
    for model, text in texts.items():
        config = repository / model / "config.pbtxt"
        if not config.exists():
            write_new(config, text.encode())
        if model != slot.target.parent.name:  # Triton wants a version of each; steps read the engine's files
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
            f"{repository}: no space left on the device: nothing was published; free space or give"
            " --repository on another"
        ) from error
