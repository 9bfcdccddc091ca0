"""The comparison as a command: checkpoints, builds, measurements; tables, and JSON.

`make bench-models` runs it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadtest.artifacts import CACHE, engine_of
from loadtest.errors import exit_code
from loadtest.machine import describe, warn_if_busy
from loadtest.models import report
from loadtest.models.engine import Engines
from loadtest.models.plan import BUILDS, CASES, Plan, quick
from loadtest.models.sides import sides
from loadtest.models.targets import Measured
from loadtest.models.versus import Sample, Versus
from loadtest.options import listed, names_of, positive
from loadtest.progress import Bars, bars
from loadtest.prompts import Prompts

_EXAMPLES = """examples:
  python -m loadtest.models --json bench-models.json      all but bart-large: about seven minutes, two cores
  python -m loadtest.models --build gpt2,bart-large       the large build too: three minutes and 2.5 GB more
  python -m loadtest.models --models gpt2 --build none --repeats 3
  python -m loadtest.models --models none --build bart-large
  python -m loadtest.models --quick                       does it run? Its figures mean nothing

Nothing else may run on the machine. A missed target is a result, not an error: exit codes are 0 measured,
1 something failed, 2 the command is at fault.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _bench(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.models",
        description="Compare models of a real size, int8 through Triton, with transformers in fp32.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    models = [case.shape.name for case in CASES]
    builds = [limit.shape.name for limit in BUILDS]
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--quick", action="store_true", help="a smoke test, with tiny models")
    add("--repeats", type=positive, metavar="N", help=f"default: {plan.repeats}")
    add(
        "--models",
        type=names_of([*models, "none"]),
        metavar="NAME,…",
        help=f"to compare, of {listed(models)}, or none; default: all",
    )
    add(
        "--build",
        type=names_of([*builds, "none"]),
        metavar="NAME,…",
        help=f"builds to time, of {listed(builds)}, or none; default: {builds[0]}",
    )
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan()
    if options.models:
        plan = replace(plan, cases=tuple(c for c in CASES if c.shape.name in options.models))
    if options.build:
        plan = replace(plan, builds=tuple(b for b in BUILDS if b.shape.name in options.build))
    if options.quick:
        plan = quick(plan)
    return replace(plan, repeats=options.repeats) if options.repeats else plan


def _bench(options: argparse.Namespace) -> int:
    plan, machine = _plan(options), describe()
    warn_if_busy(machine)
    CACHE.mkdir(parents=True, exist_ok=True)
    found = _found(plan, Engines(CACHE))
    report.show(plan, machine, found)
    if options.json:
        content = report.to_json(plan, machine, found)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    return 0


def _found(plan: Plan, engines: Engines) -> Measured:
    """Builds of what is compared come first; the others last, and leave nothing behind."""
    shapes = [case.shape for case in plan.cases]
    builds = [engines.build(limit.shape) for limit in plan.builds if limit.shape in shapes]
    for shape in shapes:
        engines.repository(shape)
    with bars() as shown:
        samples = _samples(plan, engines, shown)
    for limit in plan.builds:
        if limit.shape not in shapes:
            with engines.passing(limit.shape):
                builds.append(engines.build(limit.shape))
    return Measured(samples, builds, {shape.name: engines.manifest(shape) for shape in shapes})


def _samples(plan: Plan, engines: Engines, shown: Bars) -> list[Sample]:
    samples: list[Sample] = []
    if not plan.cases:
        return samples
    advance = shown.stage("side by side", plan.measurements)
    for case in plan.cases:
        repository = engines.repository(case.shape)
        prompts = Prompts.load(engine_of(repository, case.shape.name))
        shown.say(f"starting {case.shape.name}")
        with sides(case.shape, engines.checkpoint(case.shape), repository, CACHE) as both:
            samples += Versus(plan, case, both, prompts, advance).run()
    return samples


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
