"""The engine beside its peers: `make bench-peers` runs it.

Each peer is installed into an environment of its own under .cache/peers, its model converted there from the
reference weights; both are kept for the next run. A peer that cannot be had is named, and the rest goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from loadtest import artifacts
from loadtest.artifacts import manifest_of
from loadtest.errors import BenchError, exit_code
from loadtest.machine import describe, warn_if_busy
from loadtest.options import listed, names_of, numbers, positive
from loadtest.peers import chart, models, report, roofline
from loadtest.peers.environment import CACHE
from loadtest.peers.measure import Found, Measurement
from loadtest.peers.plan import PEERS, Plan, quick
from loadtest.peers.quality import Quality, against, quality, require_same_text
from loadtest.peers.rows import Rows
from loadtest.peers.windows import windows
from loadtest.progress import Bars, bars
from loadtest.prompts import Prompts

_REFERENCE = "transformers"
_EXAMPLES = """examples:
  python -m loadtest.peers --json bench-peers.json --png bench-peers.png
  python -m loadtest.peers --quick                            does it run? Its figures mean nothing
  python -m loadtest.peers --peers openvino,llama.cpp --streams 8 --repeats 5
  python -m loadtest.peers --peers none --also stream_interval=1    our own server, as it comes and otherwise
  python -m loadtest.peers --prepare                          install and convert only

The first run installs 6 GB and compiles llama.cpp, for half an hour; later ones take about fifteen minutes.
Nothing else may run on the machine. A goal missed is a result, not an error: exit codes are 0 measured,
1 something failed, 2 the command is at fault.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _bench(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.peers",
        description="Compare the engine with what else serves the same weights on a CPU.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--png", type=Path, metavar="FILE", help="write a chart of it")
    add("--quick", action="store_true", help="a smoke test")
    add("--prepare", action="store_true", help="install and convert, measure nothing")
    add("--repeats", type=positive, metavar="N", help=f"default: {plan.repeats}")
    add("--streams", type=numbers, metavar="N,…", help=f"at once; default: {listed(plan.streams)}")
    add("--peers", type=names_of([*PEERS, "none"]), metavar="NAME,…", help=f"of {listed(PEERS)}, or none")
    add("--also", type=_parameters, action="append", metavar="NAME=VALUE,…", help="one more server of ours")
    add("--repository", type=Path, metavar="DIR", help="has the int8 engine; default: one is built")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """The plan of the command line; BenchError when it asks for more than there are slots."""
    plan = quick(Plan()) if options.quick else Plan()
    for name in ("streams", "repeats"):
        if getattr(options, name):
            plan = replace(plan, **{name: getattr(options, name)})
    if options.peers:
        plan = replace(plan, peers=tuple(name for name in options.peers if name != "none"))
    plan = replace(plan, also=tuple(options.also or ()))
    if max(plan.streams) > plan.slots:
        raise BenchError(f"--streams {max(plan.streams)}: must be at most {plan.slots}, the slots")
    return plan


def _parameters(text: str) -> str:
    for part in text.split(","):
        name, _, value = part.partition("=")
        if not name or not value:
            raise argparse.ArgumentTypeError(f"{part!r}, must be NAME=VALUE of the engine's parameters")
    return text


def _bench(options: argparse.Namespace) -> int:
    plan, machine = _plan(options), describe()
    repository = options.repository.resolve() if options.repository else artifacts.built()
    missing = _prepare(plan, repository)
    if options.prepare:
        return int(bool(missing))
    warn_if_busy(machine)
    roof = roofline.measure(models.CHECKPOINT, len(os.sched_getaffinity(0)))
    with bars() as shown:
        found = _measure(plan, repository, missing, shown)
    qualities = _qualities(plan, repository, found)
    report.show(plan, machine, found, qualities, roof)
    if options.json:
        content = report.to_json(plan, machine, found, qualities, roof)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    if options.png:
        chart.draw(plan, found, qualities, options.png)
    return 0


def _prepare(plan: Plan, repository: Path) -> dict[str, str]:
    """Of each peer that cannot be had, why."""
    missing: dict[str, str] = {}
    models.checkpoint(artifacts.engine_of(repository), _say)
    for peer in plan.peers:
        try:
            models.prepare(peer, _say)
        except BenchError as error:
            missing[peer] = str(error)
            _say(f"{peer} is left out: {error}")
    return missing


def _measure(plan: Plan, repository: Path, missing: dict[str, str], shown: Bars) -> Found:
    engine = artifacts.engine_of(repository)
    tokenizer = Tokenizer.from_file(str(engine / "tokenizer.json"))
    text = windows(tokenizer, plan.windows, plan.window_tokens)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder:
        parameters = {"slots": f"{plan.slots}", "max_context": f"{plan.max_context}"}
        served = artifacts.with_parameters(repository, Path(folder, "repository"), parameters)
        advance = shown.stage("peers", plan.steps)
        return Measurement(plan, Rows(plan, served), Prompts(tokenizer), text, advance).run(missing)


def _qualities(plan: Plan, repository: Path, found: Found) -> dict[str, Quality]:
    """By model; where transformers is not compared, the build's reference stands for it."""
    built = manifest_of(repository)["quality"]
    reference = found.losses.get(_REFERENCE)
    if reference is None:
        scored = {name: against(losses, built) for name, losses in found.losses.items()}
    else:
        scored = {name: quality(losses, reference) for name, losses in found.losses.items()}
        if not plan.quick:
            require_same_text(built, scored[_REFERENCE])
    return scored


def _say(what: str) -> None:
    """Installing takes minutes: a terminal hears of it line by line."""
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
