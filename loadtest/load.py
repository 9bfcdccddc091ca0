"""A load test: a profile's requests are sent to a running server and measured. With --minutes it is a soak
test: load for a long time, while the server's memory is read.

`make load` and `make load-soak` run it. Results go to a folder: records.jsonl has every request, result.json
the figures, report.html the plots; a soak adds soak.json and soak.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from loadtest import artifacts, pages
from loadtest.errors import BenchError, TrafficError, exit_code
from loadtest.launched import served
from loadtest.machine import machine_facts
from loadtest.measure import sweep as sweeps
from loadtest.measure.result import Result
from loadtest.measure.soak import Limits, finding, to_json
from loadtest.memory import memory_of_tree
from loadtest.options import above_zero
from loadtest.traffic.profile import Profile, with_overrides
from loadtest.users.live import stopping
from loadtest.users.session import (
    MASTER_PORT,
    Ran,
    add_options,
    folder_of,
    profile_of,
    say,
    session,
)  # fmt: skip
from loadtest.users.watch import fill, watching
from loadtest.users.worker import work

MET, MISSED, INTERRUPTED = 0, 3, 130
_SETTLE_MINUTES = 10.0
# Of a short soak no more than a third goes to settling.
_SETTLE_SHARE = 1 / 3
_EXAMPLES = f"""examples:
  python -m loadtest.load                                     the profile chat against 127.0.0.1:8001
  python -m loadtest.load --profile burst --rate 2 --duration 120
  python -m loadtest.load --profile ./mine.toml --url 10.0.0.7:8001 --model smollm2
  python -m loadtest.load --processes 2                       where one generator is too slow
  python -m loadtest.load --master --expect-workers 4         and on four other machines:
  python -m loadtest.load --worker --master-host 10.0.0.5     they connect to port {MASTER_PORT}
  python -m loadtest.load --minutes 30 --rate 1.5             a soak test of a server of its own
  python -m loadtest.load --minutes 30 --sweep runs/NAME/sweep.json   at the highest rate that met the SLO
  python -m loadtest.load --minutes 30 --rate 1 --url 127.0.0.1:8001 --pid 4711   of one that runs here

Ctrl-C ends the load, waits for the answers that are open and writes what was measured; a second one does
not wait.
A soak test passes if no request fails, memory (RSS of all the server's processes) does not grow, and the p99
of TTFT and gaps in the last third is like that in the first.
Exit codes: 0 the SLO was met, 3 it was missed (a soak test: passed; failed, or was too short to tell),
1 nothing could be measured (no server, every request failed), 2 the command or the profile is wrong, 130
interrupted.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.worker:
        return exit_code(lambda: work(options.master_host, options.master_port))
    return exit_code(lambda: _load(options) if options.minutes is None else _soak(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.load",
        description="Put a profile's load on a server, and measure what its users would see.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    rate, duration = parser.add_mutually_exclusive_group(), parser.add_mutually_exclusive_group()
    rate.add_argument(
        "--rate", type=above_zero, metavar="R", help="requests a second, instead of the profile's"
    )
    rate.add_argument(
        "--sweep", type=Path, metavar="FILE", help="sweep.json: the highest rate within the SLO"
    )
    duration.add_argument("--duration", type=float, metavar="S", help="seconds that are measured")
    duration.add_argument("--minutes", type=above_zero, metavar="M", help="a soak test, measured so long")
    add = parser.add_argument
    add("--users", type=int, metavar="N", help="of closed arrivals")
    add("--warmup", type=float, metavar="S", help="seconds before, which are not")
    add("--speed", type=float, metavar="X", help="of a trace")
    add_options(parser)
    add("--worker", action="store_true", help="work for the master at --master-host; takes no profile")
    add("--master-host", default="127.0.0.1", metavar="HOST", help="default: %(default)s")
    add, limits = parser.add_argument_group("a soak test, --minutes").add_argument, Limits()
    add("--pid", type=int, help="of the first process of the server at --url; without --url one is started")
    add("--repository", type=Path, metavar="DIR", help="to start a server of; default: one is built")
    add("--no-fill", action="store_true", help="start with empty slots; memory then grows as they fill")
    add(
        "--interval",
        type=above_zero,
        default=5.0,
        metavar="S",
        help="between readings of memory; default: 5 s",
    )
    settle = f"that memory may grow in at first; default: {_SETTLE_MINUTES:g}, a third at most"
    add("--settle", type=above_zero, metavar="M", help=f"minutes {settle}")
    growth, drift = limits.growth_mb_per_h, limits.drift
    add("--max-growth", type=above_zero, default=growth, metavar="MB", help="an hour; default: %(default)g")
    add("--max-drift", type=above_zero, default=drift, metavar="X", help="of p99; default: %(default)g")
    return parser


def _load(options: argparse.Namespace) -> int:
    profile = _profile(options)
    folder = folder_of(options, profile.name, "result.json")
    for name in ("pid", "repository"):
        if (value := getattr(options, name)) is not None:
            raise TrafficError(f"--{name} {value}: is for a soak test; give --minutes, too")
    with stopping() as signals, session(options, profile, signals) as running:
        ran = running.run(running.profile)
    result = _report(ran, profile, folder)
    if result is None or ran.interrupted:
        return INTERRUPTED
    return MET if result.slo_met else MISSED


def _soak(options: argparse.Namespace) -> int:
    profile = _profile(options)
    folder = folder_of(options, "soak", "result.json").resolve()
    machine = machine_facts()
    with (
        _server(options, folder) as pid,
        stopping() as signals,
        session(options, profile, signals) as running,
        watching(pid, options.interval, signals.add) as watch,
    ):
        ran = running.run(running.profile)
    result = _report(ran, profile, folder)
    interrupted = signals.count > watch.ended  # the server's end counts as one signal
    if result is None:
        if interrupted:
            return INTERRUPTED
        raise BenchError("the server ended before anything was measured")
    settle_s = min(_SETTLE_MINUTES * 60, watch.looks[-1].at_s * _SETTLE_SHARE)
    found = finding(
        ran.records,
        result.window_s,
        watch.looks,
        options.rate or result.offered_per_s,
        options.settle * 60 if options.settle else settle_s,
        Limits(options.max_growth, options.max_drift),
        ended=watch.ended,
    )
    pages.write_soak(result, watch.looks, found, folder)
    content = to_json(found, watch.looks, machine, interrupted=interrupted)
    (folder / "soak.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    pages.show_soak(found, Console())
    if interrupted:
        return INTERRUPTED
    return MET if found.holds else MISSED


def _profile(options: argparse.Namespace) -> Profile:
    if (path := options.sweep) is not None:
        try:
            options.rate = sweeps.decode(path.read_text("utf-8")).highest_rate_per_s
        except (OSError, BenchError) as error:
            raise TrafficError(f"--sweep {path}: {error}") from error
        if options.rate is None:
            raise TrafficError(f"--sweep {path}: no rate met the SLO; give --rate")
    return with_overrides(
        profile_of(options),
        rate_per_s=options.rate,
        users=options.users,
        duration_s=60 * options.minutes if options.minutes else options.duration,
        warmup_s=options.warmup,
        seed=options.seed,
        speed=options.speed,
    )


def _report(ran: Ran, profile: Profile, folder: Path) -> Result | None:
    """Stores and shows a run's result; None where the run ended in the warm-up. BenchError where a whole run
    measured no request, or all of them failed."""
    ran.store(folder)
    if ran.result is None:
        say(f"interrupted in the warm-up: nothing was measured; {folder} has {len(ran.records)} records")
        return None
    pages.write(ran.result, ran.records, folder)
    pages.show(ran.result, Console())
    print(f"results: {folder}")
    requests = ran.result.requests
    if not ran.interrupted and not requests.total:
        raise BenchError(
            f"{profile.name}: no request was due in the {profile.duration_s:g} s that were measured"
        )
    if not ran.interrupted and requests.unexpected == requests.total:
        raise BenchError(f"{profile.name}: every one of {requests.total} requests failed")
    return ran.result


@contextmanager
def _server(options: argparse.Namespace, folder: Path) -> Iterator[int]:
    """The first process of a soak's server; one that is started here gives `options` its addresses."""
    if options.url is not None:
        if options.pid is None:
            raise TrafficError(f"--url {options.url}: needs --pid, the server's process, to watch its memory")
        if memory_of_tree(options.pid).processes == 0:
            raise TrafficError(f"--pid {options.pid}: no such process, or not one whose memory we may see")
        yield options.pid
        return
    if options.pid is not None:
        raise TrafficError(f"--pid {options.pid}: needs --url, where that server is")
    repository = options.repository.resolve() if options.repository else artifacts.built()
    folder.mkdir(parents=True, exist_ok=True)
    with served(repository, folder / "server.log", options.model) as server:
        if not options.no_fill:
            print(fill(server.urls["grpc"], repository, options.model), flush=True)
        options.url, options.http_url, options.metrics_url = map(server.urls.get, ("grpc", "http", "metrics"))
        yield server.process.pid


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
