"""The study of chunk sizes: a long prompt among running streams; a table, JSON and a plot.

`make bench-chunks` runs it. It builds the engine where there is none, and starts and stops what it measures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from loadtest import artifacts
from loadtest.artifacts import CACHE, ROOT
from loadtest.chunks import plot, report
from loadtest.chunks.arrival import Sample
from loadtest.chunks.judged import points
from loadtest.chunks.plan import SIDES, Plan, Variant, by_time, check, quick, variant
from loadtest.chunks.sides import InProcess, Side, Triton
from loadtest.chunks.study import Key, Study
from loadtest.errors import exit_code
from loadtest.machine import describe, warn_if_busy
from loadtest.options import listed, names_of, numbers, positive
from loadtest.program import Program
from loadtest.progress import Bars, bars
from loadtest.prompts import Prompts
from loadtest.served import served

_EXAMPLES = """examples:
  python -m loadtest.chunks --json chunks.json --plot chunks.png      about six minutes on two quiet cores
  python -m loadtest.chunks --sides engine,grpc --chunks 32,64,128    through Triton as well: as long again
  python -m loadtest.chunks --also threads=1,prefill_chunk=64         one more, of any engine parameters
  python -m loadtest.chunks --quick                                   does it run? Its figures mean nothing

Every chunk size has an engine of its own with that prefill_chunk, all loaded at once: about 0.5 GB each in
process, 1 GB as a server. Nothing else may run on the machine. That no size meets both aims is a result, not
an error: exit codes are 0 measured, 1 something failed, 2 the command is at fault.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.chunks",
        description="What a long prompt does to running streams, and they to it, by the size of its chunks.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--plot", type=Path, metavar="FILE", help="draw both ratios over the chunk size, as PNG")
    add("--quick", action="store_true", help="a smoke test of under a minute")
    add("--repeats", type=positive, metavar="N", help=f"default: {plan.repeats}")
    add("--chunks", type=numbers, metavar="N,…", help=f"default: {listed(plan.chunks)}")
    add("--also", type=_variant, action="append", default=[], metavar="NAME=VALUE,…", help="one more variant")
    add(
        "--sides",
        type=names_of(SIDES),
        metavar="SIDE,…",
        help=f"of {listed(SIDES)}; default: {listed(plan.sides)}",
    )
    add("--repository", type=Path, metavar="DIR", help="has the int8 engine; default: one is built")
    return parser


def _variant(text: str) -> Variant:
    try:
        return variant(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _plan(options: argparse.Namespace) -> Plan:
    plan = quick(Plan()) if options.quick else Plan()
    for name in ("sides", "chunks", "repeats"):
        if getattr(options, name):
            plan = replace(plan, **{name: getattr(options, name)})
    return replace(plan, also=(*(() if options.quick else (by_time(),)), *options.also))


def _run(options: argparse.Namespace) -> int:
    plan, machine = _plan(options), describe()
    warn_if_busy(machine)
    repository = options.repository.resolve() if options.repository else artifacts.built()
    artifacts.manifest_of(repository)
    check(plan, artifacts.parameters_of(repository))
    with bars() as shown:
        samples = _measure(plan, repository, shown)
    report.show(plan, machine, samples)
    if options.json:
        content = report.to_json(plan, machine, samples)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    if options.plot:
        options.plot.write_bytes(plot.png(plan, points(plan, samples)))
    return 0


def _measure(plan: Plan, repository: Path, shown: Bars) -> list[Sample]:
    prompts = Prompts.load(artifacts.engine_of(repository))
    CACHE.mkdir(parents=True, exist_ok=True)
    running: dict[Key, Side] = {}
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder, ExitStack() as stack:
        for number, one in enumerate(plan.variants):
            parameters = {**plan.base, **one.parameters}
            variant_of = artifacts.with_parameters(repository, Path(folder, f"{number}"), parameters)
            for side in plan.sides:
                shown.say(f"starting {SIDES[side]}, {one.name}")
                running[side, one.name] = stack.enter_context(_side(side, variant_of, number))
        steps = len(running) * (plan.repeats + 1)
        return Study(plan, running, prompts, shown.stage("chunks", steps)).run()


@contextmanager
def _side(side: str, repository: Path, number: int) -> Iterator[Side]:
    log = CACHE / f"chunks-{side}-{number}.log"
    if side == "grpc":
        with served(repository, log) as server, closing(Triton(server)) as triton:
            yield triton
        return
    parameters = json.dumps(artifacts.parameters_of(repository))
    program = str(ROOT / "server" / "inprocess.py")
    command = [sys.executable, program, str(artifacts.engine_of(repository)), "--parameters", parameters]
    with Program("the engine in process", command, log) as engine:
        yield InProcess(engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
