"""The benchmark: one engine, one set of prompts, one run; a table, and JSON.

`make bench` runs it. It builds the engine where there is none, starts its own servers on free ports of the
loopback interface, and stops them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from loadtest import artifacts
from loadtest.artifacts import CACHE, MODEL, ROOT
from loadtest.bench import footprint, report
from loadtest.bench.plan import TITLES, Plan, quick
from loadtest.bench.targets import Measured
from loadtest.bench.throughput import InProcess, Row, Steps, Throughput
from loadtest.errors import BenchError, exit_code
from loadtest.machine import describe, warn_if_busy
from loadtest.options import listed, names_of, numbers, positive
from loadtest.program import Program
from loadtest.progress import Bars, bars
from loadtest.prompts import Prompts
from loadtest.sample import Sample
from loadtest.served import Served, served
from loadtest.streams import Streams, require_loopback

_PROFILE_STREAMS = 8
_PROFILE_LINES = 25
_EXAMPLES = """examples:
  python -m loadtest.bench --json bench.json        everything: about ten minutes on two quiet cores
  python -m loadtest.bench --quick                  does it run? Its figures mean nothing
  python -m loadtest.bench --rows engine,grpc --streams 1,8 --repeats 5
  python -m loadtest.bench --url 127.0.0.1:8001     one more row: a server that runs on this machine
  python -m loadtest.bench --profile                where the engine's own time goes

The throughput rows run with 32 slots, so that 32 streams need not wait; memory and time to start are those
of the default 16. Nothing else may run on the machine. A missed target is a result, not an error: exit codes
are 0 measured, 1 something failed, 2 the command is at fault.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    if options.url:
        require_loopback(options.url)
    return _profile(options) if options.profile else _bench(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench",
        description="Measure the engine alone and through Triton, and compare with transformers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--quick", action="store_true", help="a smoke test of under a minute")
    add("--repeats", type=positive, metavar="N", help=f"default: {plan.repeats}")
    add("--streams", type=numbers, metavar="N,…", help=f"default: {listed(plan.streams)}")
    add(
        "--rows",
        type=names_of(TITLES),
        metavar="ROW,…",
        help=f"of {listed(TITLES)}; default: {listed(plan.rows)}",
    )
    add("--url", help="of a running server for the row url; only loopback addresses are taken")
    add("--repository", type=Path, metavar="DIR", help="has the int8 engine; default: one is built")
    add("--profile", action="store_true", help="profile the engine in process instead")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    """The plan of the command line; BenchError when its parts do not fit together."""
    plan = quick(Plan()) if options.quick else Plan()
    for name in ("rows", "streams", "repeats"):
        if getattr(options, name):
            plan = replace(plan, **{name: getattr(options, name)})
    if options.url and "url" not in plan.rows:
        plan = replace(plan, rows=(*plan.rows, "url"))
    if "url" in plan.rows and not options.url:
        raise BenchError("--rows url: needs --url, the address of a running server")
    if max(plan.streams) > plan.slots:
        raise BenchError(f"--streams {max(plan.streams)}: must be at most {plan.slots}, the slots")
    return plan


def _repository(options: argparse.Namespace) -> Path:
    return options.repository.resolve() if options.repository else artifacts.built()


def _bench(options: argparse.Namespace) -> int:
    plan, machine = _plan(options), describe()
    warn_if_busy(machine)
    repository = _repository(options)
    with bars() as shown:
        found = _measure(plan, repository, options.url, shown)
    report.show(plan, machine, found)
    if options.json:
        content = report.to_json(plan, machine, found)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    return 0


def _measure(plan: Plan, repository: Path, url: str | None, shown: Bars) -> Measured:
    quality = artifacts.manifest_of(repository)["quality"]
    prompts = Prompts.load(artifacts.engine_of(repository))
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder:
        small, large = (
            artifacts.with_parameters(
                repository,
                Path(folder, f"{slots}"),
                {"slots": f"{slots}", "max_context": f"{plan.max_context}"},
            )
            for slots in (plan.default_slots, plan.slots)
        )
        advance = shown.stage("one server", 3)
        cost = footprint.measure(small, CACHE / "server.log", plan, prompts, advance)
        samples, steps, hits = _throughput(plan, large, url, prompts, shown)
    return Measured(samples, steps, cost, quality, hits)


def _throughput(
    plan: Plan, repository: Path, url: str | None, prompts: Prompts, shown: Bars
) -> tuple[list[Sample], list[Steps], float]:
    with ExitStack() as stack:
        rows: dict[str, Row] = {}
        server = None
        shown.say("starting what is measured")
        if {"grpc", "http"} & set(plan.rows):
            server = stack.enter_context(served(repository, CACHE / "server.log"))
        for name in plan.rows:
            rows[name] = stack.enter_context(_row(name, repository, server, url))
        bare = stack.enter_context(_bare(repository)) if "engine" in rows else None
        throughput = Throughput(plan, rows, prompts, shown.stage("throughput", plan.measurements))
        throughput.warm_up()
        samples, steps = throughput.run(bare)
        return samples, steps, server.prefix_cache_hits() if server else 0.0


@contextmanager
def _row(name: str, repository: Path, server: Served | None, url: str | None) -> Iterator[Row]:
    if name in ("engine", "transformers"):
        with _engine(repository) if name == "engine" else _reference(repository) as program:
            yield InProcess(program)
        return
    addresses = {"url": url} | ({"grpc": server.grpc, "http": server.http} if server else {})
    address = addresses[name]
    assert address is not None
    with closing(Streams(address, MODEL)) as streams:
        yield streams


def _engine(repository: Path) -> Program:
    parameters = json.dumps(artifacts.parameters_of(repository))
    program = str(ROOT / "server" / "inprocess.py")
    command = [sys.executable, program, str(artifacts.engine_of(repository)), "--parameters", parameters]
    return Program("the engine in process", command, CACHE / "inprocess.log")


def _bare(repository: Path) -> Program:
    program = str(ROOT / "server" / "bare.py")
    command = [sys.executable, program, str(artifacts.engine_of(repository)), f"{_threads(repository)}"]
    return Program("the bare loop", command, CACHE / "bare.log")


def _reference(repository: Path) -> Program:
    command = [sys.executable, "-m", "loadtest.bench.reference", f"{_threads(repository)}"]
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    return Program("transformers", command, CACHE / "reference.log", offline)


def _threads(repository: Path) -> int:
    """As the engine has them: its parameter, or every core."""
    return int(artifacts.parameters_of(repository)["threads"]) or len(os.sched_getaffinity(0))


def _profile(options: argparse.Namespace) -> int:
    plan, repository = _plan(options), _repository(options)
    prompts = Prompts.load(artifacts.engine_of(repository)).take(_PROFILE_STREAMS, plan.tokens_in)
    with _engine(repository) as engine:
        ids = [prompt.ids for prompt in prompts]
        answer = engine.ask(do="profile", prompts=ids, max_tokens=plan.tokens_out, lines=_PROFILE_LINES)
    print(f"{_PROFILE_STREAMS} streams, {plan.tokens_in} tokens in, {plan.tokens_out} out")
    print(answer["profile"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
