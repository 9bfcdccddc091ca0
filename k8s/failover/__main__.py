"""Replace and kill real servers behind a real balancer under load; count what became of each request."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from k8s.failover.access_log import served
from k8s.failover.balancers import BALANCERS
from k8s.failover.ledger import account
from k8s.failover.report import Row, as_json, failures, passed, table
from k8s.failover.scenarios import Fleet, Outcome, Scenario, Stage, server_maker
from k8s.failover.servers import ROOT, SMALL, Broken, variant

TOOLS: Final = ROOT / ".cache" / "k8s" / "bin"
PLAYS: Final = {"rolling": Scenario.ROLLING, "late": Scenario.LATE, "kill": Scenario.KILL}
CARELESS: Final = {"careless": Scenario.CARELESS}
EXAMPLES: Final = """\
examples:
  python -m k8s.failover                          both balancers, all three plays: about three minutes
  python -m k8s.failover --balancer envoy --play kill --users 6
  python -m k8s.failover --json failover.json
  python -m k8s.failover --keep DIR               configurations and logs stay in DIR

plays: rolling restarts each server in turn; late does so while the balancer learns of it 1.5 s late; kill
sends SIGKILL to one; careless stops one without the preStop hook, to see what the hook is for. Half of the
users ask over gRPC, half over HTTP; kill and careless have twice as many, and no pauses.

exit codes: 0 nothing failed but streams past their first token on the server that was killed,
1 something else failed, 2 the command is at fault, 3 a server or balancer did not start"""


def main(arguments: Sequence[str] | None = None) -> int:
    found = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # or servers would outlive it
    try:
        with tempfile.TemporaryDirectory(prefix="failover-") as temporary:
            folder = found.keep or Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            return _run(found, folder)
    except Broken as problem:
        print(f"k8s.failover: {problem}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("interrupted; the servers are stopped", file=sys.stderr)
        return 130


def _run(found: argparse.Namespace, folder: Path) -> int:
    variant(found.model_repository, folder / "repository", found.model, SMALL)
    rows: list[Row] = []
    counters: dict[str, Mapping[str, int]] = {}
    fleet = Fleet(server_maker(folder / "repository", found.model, folder), found.servers, _say)
    try:
        fleet.wait_ready()
        for name in found.balancer or list(BALANCERS):
            played, counters[name] = _played(name, fleet, found, folder)
            rows += played
    finally:
        fleet.close()
    print(table(rows))
    if failed := failures(rows):
        print(failed)
    if found.json:
        found.json.write_text(json.dumps(as_json(rows, counters, fleet.restarts), indent=1) + "\n")
    return 0 if passed(rows) else 1


def _played(
    name: str, fleet: Fleet, found: argparse.Namespace, folder: Path
) -> tuple[list[Row], Mapping[str, int]]:
    place = folder / name
    place.mkdir()
    balancer = BALANCERS[name](found.tools / name, place, found.model)
    stage = Stage(fleet, balancer, found.model, found.users, _say)
    outcomes = []
    try:
        balancer.start(fleet.servers)
        for play in found.play or list(PLAYS):
            _say(f"{name}: {(PLAYS | CARELESS)[play].value}")
            outcomes.append(stage.play((PLAYS | CARELESS)[play]))
        counters = balancer.counters()
    finally:
        balancer.stop()
    return list(_rows(name, outcomes, balancer.access_log)), counters


def _rows(name: str, outcomes: Sequence[Outcome], log: Path) -> Sequence[Row]:
    lines = served(log.read_text().splitlines())
    rows = []
    for outcome in outcomes:
        for protocol in ("grpc", "http"):
            asked = [one for one in outcome.requests if one.protocol == protocol]
            counted = account(asked, lines, outcome.death)
            rows.append(Row(name, outcome.scenario.value, protocol, counted, outcome.seconds))
    return rows


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.failover",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--balancer", action="append", choices=BALANCERS, help="repeatable; both")
    add("--play", action="append", choices=PLAYS | CARELESS, help="repeatable; the first three")
    add("--users", type=_count, default=2, metavar="N", help="of each protocol, always asking; %(default)s")
    add("--servers", type=_servers, default=3, metavar="N", help="%(default)s")
    add("--model", default="smollm2", metavar="NAME", help="%(default)s")
    add("--model-repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    add(
        "--tools",
        type=Path,
        default=TOOLS,
        metavar="DIR",
        help="with nginx and envoy; make setup-k8s gets them",
    )
    add("--json", type=Path, metavar="FILE", help="the counts, for programs")
    add("--keep", type=Path, metavar="DIR", help="an empty folder for configurations and logs")
    return parser


def _count(text: str) -> int:
    return _within(text, 1, 64)


def _servers(text: str) -> int:
    return _within(text, 2, 8)


def _within(text: str, least: int, most: int) -> int:
    value = int(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text}, must be {least} to {most}")
    return value


if __name__ == "__main__":
    sys.exit(main())
