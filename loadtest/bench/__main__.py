"""The benchmark: models × rows, side by side in one run; tables, JSON and a chart.

`make bench` and `make bench-peers` run it. It builds the engines that are not there, starts its own servers
on free ports of the loopback interface, and stops them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from loadtest import artifacts
from loadtest.artifacts import CACHE, engine_of
from loadtest.bench import chart, peers, report
from loadtest.bench.engines import Engines
from loadtest.bench.footprint import footprint
from loadtest.bench.measure import Found, Measurement, settle
from loadtest.bench.plan import (
    BARE,
    BUILD,
    COMPARED,
    FOOTPRINT,
    MODELS,
    OWN,
    PEERS,
    REFERENCE,
    ROWS,
    SMOLLM2,
    Model,
    Plan,
    greedy,
    quick,
)
from loadtest.bench.quality import Quality, against, quality, require_same_text
from loadtest.bench.rows import LOGS, Rows, engine_program
from loadtest.errors import BenchError, exit_code
from loadtest.machine import machine_facts, read_bandwidth, warn_if_busy
from loadtest.options import listed, names_of, numbers, positive
from loadtest.prompts import Prompts, windows
from loadtest.streams import require_loopback

_PROFILE_STREAMS = 8
_PROFILE_LINES = 25


def _lines(content: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:14} {text}" for name, text in content.items())


_ROWS = {row.name: f"{row.title}, {row.setting}" for row in ROWS if row.name in OWN} | {
    BARE: "decode steps of the engine's graph without the engine",
    FOOTPRINT: "a server with default settings: start, memory, prefix cache",
    BUILD: "time and memory of a build",
}
_EXAMPLES = f"""models, and their rows by default:
{_lines({model.name: listed(model.rows) for model in MODELS.values()})}

rows:
{_lines(_ROWS)}

examples:
  python -m loadtest.bench --json bench.json           {SMOLLM2.name}: ten minutes on two quiet cores
  python -m loadtest.bench --quick                     does it run? Its figures mean nothing
  python -m loadtest.bench --rows engine,grpc --streams 1,8 --repeats 5
  python -m loadtest.bench --models gpt2,bart-base     random weights, compared with transformers
  python -m loadtest.bench --models bart-large         its build: three minutes and 2.5 GB
  python -m loadtest.bench --peers all --png peers.png
  python -m loadtest.bench --peers openvino,llama.cpp --streams 8
  python -m loadtest.bench --url 127.0.0.1:8001        also a server that runs on this machine
  python -m loadtest.bench --profile                   where the engine's own time goes

Peers are installed into .cache/peers: the first run takes half an hour and 6 GB, and compiles llama.cpp;
later ones take fifteen minutes. A peer that cannot be installed or started is named, and the rest goes on.
Nothing else may run on the machine. A missed target is a result, not an error: exit codes are 0 measured,
1 something failed, 2 the command is wrong.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.bench",
        description="Measure engines alone and through Triton, and compare with transformers and with peers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, plan = parser.add_argument, Plan()
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--png", type=Path, metavar="FILE", help="write a chart of it")
    add("--quick", action="store_true", help="a smoke test of under a minute")
    add("--repeats", type=positive, metavar="N", help=f"default: {plan.repeats}")
    add("--streams", type=numbers, metavar="N,…", help="requests at once, instead of each model's own")
    add(
        "--models",
        type=names_of(MODELS),
        default=(SMOLLM2.name,),
        metavar="NAME,…",
        help=f"listed below; default: {SMOLLM2.name}",
    )
    add("--rows", type=names_of(OWN), default=(), metavar="ROW,…", help="instead of each model's own")
    known = names_of([*PEERS, "all"])
    add("--peers", type=known, default=(), metavar="NAME,…", help=f"of {listed(PEERS)}, or all")
    add("--score", action="store_true", help="measure the rows' perplexity too; with --peers it always is")
    add("--url", help="of a running server for the row url; only loopback addresses are taken")
    add("--repository", type=Path, metavar="DIR", help=f"has {SMOLLM2.name} in int8; default: it is built")
    add("--profile", action="store_true", help="profile the engine in process instead")
    return parser


def plan_of(options: argparse.Namespace) -> Plan:
    """The plan of the command line; BenchError if its parts do not fit together."""
    chosen, rows = PEERS if "all" in options.peers else options.peers, options.rows
    smollm2 = COMPARED if chosen or options.score else SMOLLM2
    if options.url:
        require_loopback(options.url)
        smollm2, rows = replace(smollm2, rows=(*smollm2.rows, "url")), rows and (*rows, "url")
    plan = Plan(
        models=tuple(smollm2 if name == SMOLLM2.name else MODELS[name] for name in options.models),
        rows=rows,
        peers=chosen,
        url=options.url,
        score=options.score or bool(chosen),
    )
    plan = quick(plan) if options.quick else plan
    if options.streams:
        loads = greedy(options.streams)
        plan = replace(plan, models=tuple(replace(model, loads=loads) for model in plan.models))
    plan = replace(plan, repeats=options.repeats or plan.repeats)
    plan.check()
    return plan


def _run(options: argparse.Namespace) -> int:
    plan, machine = plan_of(options), machine_facts()
    engines = Engines(CACHE, options.repository and options.repository.resolve())
    if SMOLLM2.name in options.models:
        engines.manifest(SMOLLM2)
    if options.profile:
        return _profile(plan, engines.repository(SMOLLM2))
    found = Found()
    checkpoint = engines.checkpoint(SMOLLM2) if plan.peers else Path()
    for peer in plan.peers:
        try:
            peers.prepare(peer, checkpoint, _say)
        except BenchError as error:
            found.missing |= {row.name: str(error) for row in plan.loaded(SMOLLM2) if row.peer == peer}
            _say(f"{peer} is left out: {error}")
    warn_if_busy(machine)
    try:
        for model in plan.models:
            _measure(plan, model, engines, found)
    finally:
        _say("")
    qualities = _qualities(plan, found)
    report.show(plan, machine, found, qualities)
    if options.json:
        content = report.to_json(plan, machine, found, qualities)
        options.json.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    if options.png:
        chart.draw(plan, found, qualities, options.png)
    return 0


def _measure(plan: Plan, model: Model, engines: Engines, found: Found) -> None:
    if plan.has(model, BUILD):
        found.builds.append(engines.build(model))
    rows, repository = plan.loaded(model), engines.repository(model)
    found.manifests[model.name] = engines.manifest(model)
    if model.random is not None and not rows:
        engines.forget(model)
        return
    if any(row.peer == REFERENCE for row in rows):
        engines.checkpoint(model)
    if model.random is None and plan.has(model, "engine") and not plan.quick:
        found.bandwidth = read_bandwidth(len(os.sched_getaffinity(0)))
    tokenizer = Tokenizer.from_file(str(engine_of(repository, model.name) / "tokenizer.json"))
    prompts = Prompts(tokenizer)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as folder, ExitStack() as stack:
        if plan.has(model, FOOTPRINT):
            small = {"slots": f"{plan.default_slots}", "max_context": f"{plan.max_context}"}
            default = artifacts.with_parameters(repository, Path(folder, "default"), small)
            found.footprint = footprint(default, LOGS / "server-default.log", plan, prompts, _say)
        large = {"slots": f"{plan.slots_for(model)}"}
        if model.random is None:
            large["max_context"] = f"{plan.max_context}"
        served = artifacts.with_parameters(repository, Path(folder, model.name), large, model.name)
        opener = Rows(plan, model, engines, served, stack)
        scored = windows(tokenizer, plan.windows, plan.window_tokens) if plan.scores(model) else []
        bare = opener.bare() if plan.has(model, BARE) else None
        Measurement(plan, model, prompts, found, _say, settle).run(opener.open, scored, bare)
        found.hits += opener.prefix_cache_hits()


def _qualities(plan: Plan, found: Found) -> dict[str, Quality]:
    """By the rows' weights; if transformers is not among them, the build's reference stands for it."""
    if not found.losses:
        return {}
    built = found.manifests[SMOLLM2.name]["quality"]
    reference = found.losses.get(REFERENCE)
    if reference is None:
        return {name: against(losses, built) for name, losses in found.losses.items()}
    scored = {name: quality(losses, reference) for name, losses in found.losses.items()}
    if not plan.quick:
        require_same_text(built, scored[REFERENCE])
    return scored


def _profile(plan: Plan, repository: Path) -> int:
    tokens_in = plan.models[0].tokens_in
    prompts = Prompts.load(engine_of(repository)).take(_PROFILE_STREAMS, tokens_in)
    with engine_program(repository, SMOLLM2.name, {}, LOGS / "engine.log") as engine:
        ids = [prompt.ids for prompt in prompts]
        answer = engine.ask(do="profile", prompts=ids, max_tokens=plan.tokens_out, lines=_PROFILE_LINES)
    print(f"{_PROFILE_STREAMS} streams, {tokens_in} tokens in, {plan.tokens_out} out")
    print(answer["profile"])
    return 0


def _say(what: str) -> None:
    """On stderr, between measurements only. A terminal shows the last line, a file has all of them."""
    line = f"\r\x1b[K{what}" if sys.stderr.isatty() else f"{what}\n"
    print(line, end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
