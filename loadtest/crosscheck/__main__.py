"""The cross-check of our load test: the same load by an independent tool, aiperf, run in turn.

`make load-crosscheck` runs it. It installs aiperf into an environment of its own, starts its own server on
free ports of the loopback interface, and stops it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadtest import artifacts
from loadtest.crosscheck import report
from loadtest.crosscheck.aiperf import tokenizer_folder
from loadtest.crosscheck.environment import AIPERF, FOLDER, installed
from loadtest.crosscheck.plan import TITLES, Plan
from loadtest.crosscheck.runs import Run, Runs
from loadtest.errors import exit_code
from loadtest.machine import describe, warn_if_busy
from loadtest.options import listed, names_of, positive
from loadtest.progress import bars
from loadtest.prompts import Prompts
from loadtest.served import Served, served
from loadtest.streams import Streams

AGREE, DIFFER = 0, 3
_WARM_UP_STREAMS = 4
_EXAMPLES = """examples:
  python -m loadtest.crosscheck --json crosscheck.json     everything: about twelve minutes on two quiet cores
  python -m loadtest.crosscheck --quick                    does it run? Its figures mean nothing
  python -m loadtest.crosscheck --loads closed --users 8 --repeats 7

The first run installs aiperf, which takes some minutes and 1.2 GB. Nothing else may run on the machine.
Exit codes: 0 the tools agree, 3 they differ, 1 something failed, 2 the command is at fault, 130 interrupted.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _crosscheck(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.crosscheck",
        description="Put the same load on a server by our tool and by aiperf, in turn, and compare.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--quick", action="store_true", help="two repeats of four seconds")
    add("--repeats", type=_repeats, metavar="N", help=f"at least 2; default: {plan.repeats}")
    add("--duration", type=positive, metavar="S", help=f"seconds of a run; default: {plan.duration_s}")
    add("--loads", type=names_of(TITLES), metavar="LOAD,…", help=f"default: {listed(plan.loads)}")
    add("--users", type=positive, metavar="N", help=f"of the closed loop; default: {plan.users}")
    add("--rate", type=_rate, metavar="R", help=f"requests/s of the open loop; default: {plan.rate_per_s:g}")
    add("--keep", type=Path, metavar="DIR", help="the files of each run; default: none are kept")
    add("--repository", type=Path, metavar="DIR", help="has the int8 engine; default: one is built")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    plan = Plan(repeats=2, duration_s=4) if options.quick else Plan()
    given = {
        "loads": options.loads,
        "repeats": options.repeats,
        "duration_s": options.duration,
        "users": options.users,
        "rate_per_s": options.rate,
    }
    return replace(plan, **{name: value for name, value in given.items() if value})


def _repeats(text: str) -> int:
    """A single value has no spread to compare with."""
    number = positive(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"{text}, must be at least 2")
    return number


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 100:
        raise argparse.ArgumentTypeError(f"{text}, must be a number above 0, at most 100")
    return rate


def _crosscheck(options: argparse.Namespace) -> int:
    plan, machine = _plan(options), describe()
    program = installed()
    repository = options.repository.resolve() if options.repository else artifacts.built()
    artifacts.manifest_of(repository)
    warn_if_busy(machine)
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="run-") as folder:
        runs, version = _measure(plan, program, repository, options.keep or Path(folder))
    versions = {"aiperf": AIPERF, "server": version}
    if options.json:
        content = report.to_json(plan, machine, versions, runs)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    report.show(plan, runs, Console())
    return AGREE if report.agree(plan, runs) else DIFFER


def _measure(plan: Plan, program: Path, repository: Path, folder: Path) -> tuple[list[Run], str]:
    engine = artifacts.engine_of(repository)
    tokenizer = tokenizer_folder(engine, folder / "tokenizer")
    with bars() as shown, served(repository, folder / "server.log") as server:
        shown.say(f"server {server.version} is ready")
        _warm_up(server, plan, engine)
        advance = shown.stage("runs", 2 * len(plan.loads) * plan.repeats)
        runs = list(Runs(plan, server, program, tokenizer, folder).all(advance))
    return runs, server.version


def _warm_up(server: Served, plan: Plan, engine: Path) -> None:
    """The server's first requests take longer than any later one, whoever asks."""
    streams = Streams(server.http, plan.model)
    try:
        streams.run(Prompts.load(engine).take(_WARM_UP_STREAMS, plan.tokens_in), plan.tokens_out)
    finally:
        streams.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
