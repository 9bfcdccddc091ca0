"""A load test: a profile's requests against a server that runs, and what came of them.

`make load` runs it. Results go to a folder: records.jsonl has every request, result.json the figures,
report.html the plots.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtest import pages
from loadtest.errors import BenchError, exit_code
from loadtest.measure.record import Record
from loadtest.traffic.overrides import with_overrides
from loadtest.traffic.profile import Profile
from loadtest.users.options import (
    MASTER_PORT,
    add_options,
    fitting,
    folder_of,
    guarded,
    profile_of,
    say,
    session_of,
)  # fmt: skip
from loadtest.users.session import Ran, store
from loadtest.users.stopping import stopping
from loadtest.users.worker import work

MET, FAILED, MISSED, INTERRUPTED = 0, 1, 3, 130
_EXAMPLES = f"""examples:
  python -m loadtest.load                                     the profile chat against 127.0.0.1:8001
  python -m loadtest.load --profile steady --rate 2 --duration 120
  python -m loadtest.load --profile ./mine.toml --url 10.0.0.7:8001 --model smollm2
  python -m loadtest.load --processes 2                       where one generator is too slow
  python -m loadtest.load --master --expect-workers 4         and on four other machines:
  python -m loadtest.load --worker --master-host 10.0.0.5     they come to port {MASTER_PORT}

Ctrl-C ends the load, waits for the answers that are open and writes what was measured; a second one does
not wait.
Exit codes: 0 the SLO was met, 3 it was missed, 1 nothing could be measured (no server, every request failed),
2 the command or the profile is at fault, 130 interrupted.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.worker:
        return exit_code(lambda: work(options.master_host, options.master_port))
    return exit_code(guarded(lambda: _load(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.load",
        description="Put a profile's load on a server, and measure what its users would see.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--rate", type=float, metavar="R", help="requests a second, instead of the profile's")
    add("--users", type=int, metavar="N", help="of closed arrivals")
    add("--duration", type=float, metavar="S", help="seconds that are measured")
    add("--warmup", type=float, metavar="S", help="seconds before, which are not")
    add("--speed", type=float, metavar="X", help="of a trace")
    add_options(parser)
    add("--worker", action="store_true", help="work for the master at --master-host; takes no profile")
    add("--master-host", default="127.0.0.1", metavar="HOST", help="default: %(default)s")
    return parser


def _load(options: argparse.Namespace) -> int:
    profile = with_overrides(
        profile_of(options),
        rate_per_s=options.rate,
        users=options.users,
        duration_s=options.duration,
        warmup_s=options.warmup,
        seed=options.seed,
        speed=options.speed,
    )
    folder = folder_of(options, profile.name, "result.json")
    with stopping() as wishes, session_of(options, profile, wishes) as session:
        ran = session.run(fitting(options, profile))
    return _told(ran, profile, folder)


def _told(ran: Ran, profile: Profile, folder: Path) -> int:
    store(ran, folder)
    if ran.result is None:
        say(f"interrupted in the warm-up: nothing was measured; {folder} has {len(ran.records)} records")
        return INTERRUPTED
    pages.write(ran.result, ran.records, folder)
    pages.show(ran.result, Console())
    print(f"results: {folder}")
    if ran.interrupted:
        return INTERRUPTED
    _require_some(ran.records, profile)
    return MET if ran.result.slo_met else MISSED


def _require_some(records: Sequence[Record], profile: Profile) -> None:
    measured = [record for record in records if record.phase == "measure"]
    if not measured:
        raise BenchError(
            f"{profile.name}: no request was due in the {profile.duration_s:g} s that were measured"
        )
    if not any(record.expected for record in measured):
        raise BenchError(f"{profile.name}: every one of {len(measured)} requests failed")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
