"""A soak test: load for a long time at a rate that the server holds, and a watch on its memory.

`make load-soak` runs it, by default against a server of its own, which it starts and stops.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from loadtest import artifacts
from loadtest.artifacts import MODEL, ROOT
from loadtest.errors import BenchError, exit_code
from loadtest.machine import describe
from loadtest.measure import result as results
from loadtest.measure.record import decode_lines
from loadtest.measure.sweep import decode as decode_sweep
from loadtest.memory import memory_of_tree
from loadtest.pages.canvas import render, save
from loadtest.served import served
from loadtest.soak import report
from loadtest.soak.filling import fill
from loadtest.soak.finding import Finding, finding
from loadtest.soak.offered import Addresses, Load, has_result, put
from loadtest.soak.plot import soak_plot
from loadtest.soak.verdicts import Limits
from loadtest.soak.watch import Watch
from loadtest.traffic.errors import TrafficError
from loadtest.users.options import guarded
from loadtest.users.stopping import stopping

HOLDS, USAGE, MISSED, INTERRUPTED = 0, 2, 3, 130
RESULT = "result.json"
_SETTLE_MINUTES = 10.0
# Of a short test no more than a third goes to settling.
_SETTLE_SHARE = 1 / 3
_EXAMPLES = """examples:
  python -m loadtest.soak --minutes 30 --rate 1.5               against a server of its own
  python -m loadtest.soak --sweep runs/20261124-chat/sweep.json   at the highest rate that met the SLO
  python -m loadtest.soak --rate 2 --profile ./mine.toml --minutes 480
  python -m loadtest.soak --rate 1 --url 127.0.0.1:8001 --pid 4711   a server that runs on this machine

It asks for: no error, memory (RSS of all the server's processes) that does not grow, and a p99 of TTFT and
gaps in the last third like in the first. Ctrl-C ends the load and keeps what was measured.
Exit codes: 0 all of it holds, 3 it does not or cannot be told, 1 something failed, 2 the command is at fault,
130 interrupted.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(guarded(lambda: _soak(options)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.soak",
        description="Put load on a server for a long time; watch its memory, its errors and its latency.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, limits = parser.add_argument, Limits()
    rate = parser.add_mutually_exclusive_group(required=True)
    rate.add_argument("--rate", type=_above_zero, metavar="R", help="requests a second")
    rate.add_argument(
        "--sweep", type=Path, metavar="FILE", help="sweep.json: the highest rate within the SLO"
    )
    add("--minutes", type=_above_zero, default=30.0, metavar="M", help="default: %(default)g")
    add("--profile", default="chat", metavar="NAME|FILE", help="of the load; default: %(default)s")
    add("--url", help="of a running server, gRPC; default: one is started")
    add("--http-url", metavar="URL", help="default: the port below")
    add("--metrics-url", metavar="URL", help="default: the port above")
    add("--pid", type=int, help="of that server's first process")
    add("--model", default=MODEL, help="default: %(default)s")
    add("--repository", type=Path, metavar="DIR", help="to start a server of; default: one is built")
    add("--no-fill", action="store_true", help="start with empty slots; memory then grows as they fill")
    add(
        "--interval", type=_above_zero, default=5.0, metavar="S", help="between looks; default: %(default)g s"
    )
    settle = f"of the beginning that memory may grow in; default: {_SETTLE_MINUTES:g}, a third at most"
    add("--settle", type=_above_zero, metavar="M", help=f"minutes {settle}")
    growth, drift = limits.growth_mb_per_h, limits.drift
    add("--max-growth", type=_above_zero, default=growth, metavar="MB", help="an hour; default: %(default)g")
    add("--max-drift", type=_above_zero, default=drift, metavar="X", help="of p99; default: %(default)g")
    add("--out", type=Path, metavar="DIR", help="for the results; default: runs/TIME-soak")
    return parser


def _above_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}, must be a number above 0")
    return value


def _soak(options: argparse.Namespace) -> int:
    rate_per_s: float = options.rate or _rate_of(options.sweep)
    folder, machine = _folder(options), describe()
    load = Load(options.profile, rate_per_s, options.minutes * 60, options.model)
    with (
        _server(options, folder) as (pid, addresses),
        stopping() as wishes,
        Watch(pid, options.interval) as watch,
    ):
        code = put(load.command(addresses, folder), wishes, lambda: not watch.ended)
    interrupted = wishes.wishes > 0
    if not (folder / RESULT).is_file() or not has_result(code):
        return _without_result(code, interrupted=interrupted, ended=watch.ended)
    found = _found(options, folder, rate_per_s, watch)
    content = report.to_json(found, watch.looks, machine, interrupted=interrupted)
    (folder / "soak.json").write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", "utf-8")
    report.show(found, Console())
    print(f"results: {folder}")
    if interrupted:
        return INTERRUPTED
    return HOLDS if found.holds else MISSED


def _without_result(code: int, *, interrupted: bool, ended: bool) -> int:
    """The load says itself what is wrong with it; a profile at fault is our command at fault."""
    if interrupted:
        return INTERRUPTED
    if code == USAGE:
        return USAGE
    server = ", and the server ended" if ended else ""
    raise BenchError(f"the load ended with code {code}{server}; its words are above")


def _found(options: argparse.Namespace, folder: Path, rate_per_s: float, watch: Watch) -> Finding:
    result = results.decode((folder / RESULT).read_text("utf-8"))
    with (folder / "records.jsonl").open(encoding="utf-8") as lines:
        records = list(decode_lines(lines))
    limits = Limits(options.max_growth, options.max_drift)
    found = finding(
        records,
        result.window_s,
        watch.looks,
        rate_per_s,
        _settle_s(options, watch.looks[-1].at_s),
        limits,
        ended=watch.ended,
    )
    save(render(soak_plot(result, watch.looks, found)), folder)
    return found


def _settle_s(options: argparse.Namespace, watched_s: float) -> float:
    if options.settle:
        return float(options.settle) * 60
    return min(_SETTLE_MINUTES * 60, watched_s * _SETTLE_SHARE)


def _rate_of(path: Path) -> float:
    """TrafficError where the file is no sweep, or its every rate missed the SLO."""
    try:
        rate_per_s = decode_sweep(path.read_text("utf-8")).highest_rate_per_s
    except (OSError, BenchError) as error:
        raise TrafficError(f"--sweep {path}: {error}") from error
    if rate_per_s is None:
        raise TrafficError(f"--sweep {path}: no rate met the SLO; give --rate")
    return rate_per_s


def _folder(options: argparse.Namespace) -> Path:
    time = datetime.now(UTC).astimezone().strftime("%Y%m%d-%H%M%S")
    folder: Path = (options.out or ROOT / "runs" / f"{time}-soak").resolve()
    if (folder / RESULT).exists():
        raise TrafficError(f"--out {folder}: has a {RESULT} already; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _server(options: argparse.Namespace, folder: Path) -> Iterator[tuple[int, Addresses]]:
    """Its first process and where it is."""
    if options.url is None:
        if options.pid is not None:
            raise TrafficError(f"--pid {options.pid}: needs --url, where that server is")
        repository = options.repository.resolve() if options.repository else artifacts.built()
        with served(repository, folder / "server.log", options.model) as server:
            if not options.no_fill:
                print(fill(server.grpc, repository, options.model), flush=True)
            yield server.pid, Addresses(server.grpc, server.http, server.metrics)
        return
    if options.pid is None:
        raise TrafficError(f"--url {options.url}: needs --pid, the server's process, to watch its memory")
    if memory_of_tree(options.pid).processes == 0:
        raise TrafficError(f"--pid {options.pid}: no such process, or not one whose memory we may see")
    yield options.pid, Addresses(options.url, options.http_url, options.metrics_url)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
