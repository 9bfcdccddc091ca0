"""The part of the command line that is about TensorRT's plans."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from build.assemble_tensorrt import Plans
from build.dialects.tensorrt.host import find_host
from build.dialects.tensorrt.rounding import BLOCK_SIZES
from build.dialects.tensorrt.sizes import Room
from build.dialects.tensorrt.toolkit import rtx
from build.errors import BadInput
from build.recipe import Engine

_TIMINGS = Path(".cache/tensorrt.timings")
_BLOCKS = "columns that share a scale at precision int4 (default: 32, which loses least)"
_SIZES = {
    "slots": "sequences generated at once",
    "max_context": "tokens of prompt and answer together",
    "max_source": "source tokens of an encoder-decoder",
    "prefill_chunk": "prompt tokens of a step",
}


def add_plan_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "engine tensorrt",
        "A plan has a fixed size, at most the model's: no setting of the server's may exceed it.",
    )
    for name, about in _SIZES.items():
        usual = getattr(Room(), name)
        group.add_argument(_flag(name), type=_count, metavar="N", help=f"{about} (default: {usual})")
    group.add_argument("--int4-block", type=int, choices=BLOCK_SIZES, help=_BLOCKS)
    group.add_argument("--keep-onnx", type=Path, metavar="DIR", help="keep the checked ONNX files there")
    about = f"what earlier builds measured (default: {_TIMINGS})"
    group.add_argument("--timing-cache", type=Path, metavar="FILE", help=about)


def plans(engine: Engine, options: argparse.Namespace) -> Plans | None:
    """None for another engine; BadInput where an option is given that only a plan has."""
    given = {name: getattr(options, name) for name in _SIZES if getattr(options, name) is not None}
    if engine is Engine.TENSORRT:
        find = partial(find_host, options.timing_cache or _TIMINGS)
        return Plans(rtx, find, Room(**given), options.keep_onnx, options.int4_block or BLOCK_SIZES[0])
    for name in (*_SIZES, "int4_block", "keep_onnx", "timing_cache"):
        if getattr(options, name) is not None:
            raise BadInput(f"{_flag(name)}: only with --engine tensorrt; engine {engine.value} has no plan")
    return None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}, must be at least 1")
    return value
