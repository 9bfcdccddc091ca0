"""The highest rate at which the SLO holds: runs of a profile at one rate after the other.

`make load-sweep` runs it. The rate is doubled until the SLO is missed, then the interval is cut in two until
it is as small as the profile's resolution; between two runs the server gets time to finish what it has.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from loadtest import pages
from loadtest.errors import BenchError, TrafficError, exit_code
from loadtest.measure import sweep as sweeps
from loadtest.measure.result import Result
from loadtest.measure.sweep import Rung, Search, next_rate, sweep_of
from loadtest.options import above_zero
from loadtest.traffic.arrivals import Closed, Trace
from loadtest.traffic.profile import Profile, with_overrides
from loadtest.users.live import stopping
from loadtest.users.server import cool_down
from loadtest.users.session import Session, add_options, folder_of, profile_of, say, session

HELD, MISSED, INTERRUPTED = 0, 3, 130
_EXAMPLES = """examples:
  python -m loadtest.sweep                                    the profile chat against 127.0.0.1:8001
  python -m loadtest.sweep --profile burst --start 1 --max 8 --step 60
  python -m loadtest.sweep --protocol http --resolution 0.05

Ctrl-C ends the sweep with the rates that are done. Exit codes: 0 the SLO holds at some rate, 3 it is missed
at each, 1 nothing could be measured, 2 the command or the profile is wrong, 130 interrupted.
"""


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _sweep(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.sweep",
        description="Find the highest rate of a profile's requests at which its SLO holds: the goodput.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--start", type=above_zero, metavar="R", help="the first rate, in requests a second")
    add("--max", type=above_zero, metavar="R", help="the highest")
    add("--step", type=above_zero, metavar="S", help="seconds that are measured at each rate")
    add("--resolution", type=above_zero, metavar="X", help="how near the answer must be; 0.1 is ten per cent")
    add_options(parser)
    return parser


def _sweep(options: argparse.Namespace) -> int:
    profile = _profile(options)
    search = Search(profile.sweep.start_per_s, profile.sweep.max_per_s, profile.sweep.resolution)
    folder = folder_of(options, f"{profile.name}-sweep", "sweep.json")
    with stopping() as signals, session(options, profile, signals) as running:
        found = _climb(running, running.profile, search, folder)
    if not found:
        say("interrupted: no rate is done")
        return INTERRUPTED
    sweep = sweep_of(profile.as_table(), found)
    pages.write_sweep(sweep, folder)
    pages.show_sweep(sweep, Console())
    print(f"results: {folder}")
    if signals.count:
        return INTERRUPTED
    return MISSED if sweep.highest_rate_per_s is None else HELD


def _climb(running: Session, profile: Profile, search: Search, folder: Path) -> list[Rung]:
    """The rates that were measured; what is done is stored after each."""
    found: list[Rung] = []
    while (rate_per_s := next_rate(search, [rung.outcome for rung in found])) is not None:
        cool_down(running.addresses.metrics, running.stopping)
        if running.stopping.count:
            break
        # The same requests in the same order, nearer to each other.
        ran = running.run(with_overrides(profile, rate_per_s=rate_per_s, duration_s=profile.sweep.step_s))
        if ran.interrupted or ran.result is None:
            break
        ran.store(folder / f"rate-{rate_per_s:.4g}")
        found.append(Rung(rate_per_s, ran.result))
        (folder / "sweep.json").write_text(sweeps.encode(sweep_of(profile.as_table(), found)), "utf-8")
        say(_words(rate_per_s, ran.result))
        requests = ran.result.requests
        if len(found) == 1 and requests.total and requests.unexpected == requests.total:
            raise BenchError(f"every one of {requests.total} requests failed: {requests.errors}")
    return found


def _profile(options: argparse.Namespace) -> Profile:
    profile = with_overrides(profile_of(options), seed=options.seed)
    arrivals = profile.arrivals
    if isinstance(arrivals, Closed):
        raise TrafficError(f"{profile.name}: closed arrivals have no rate to search for; choose open ones")
    if isinstance(arrivals, Trace) and arrivals.file:
        raise TrafficError(f"{profile.name}: a trace's file brings its own times, there is no rate to search")
    names = {"start": "start_per_s", "max": "max_per_s", "step": "step_s", "resolution": "resolution"}
    given = {name: value for key, name in names.items() if (value := getattr(options, key)) is not None}
    sweep = replace(profile.sweep, **given)
    if sweep.start_per_s > sweep.max_per_s:
        raise TrafficError(f"--start {sweep.start_per_s:g}: must be at most --max, {sweep.max_per_s:g}")
    return replace(profile, sweep=sweep)


def _words(rate_per_s: float, result: Result) -> str:
    ttft = result.ttft_s
    verdict = "met" if result.slo_met else "missed"
    missed = ", ".join(found.name for found in result.slo if not found.met)
    return (
        f"{rate_per_s:6.3g}/s: SLO {verdict}{f' ({missed})' if missed else ''},"
        f" goodput {result.goodput_per_s:.2f}/s, {result.tokens_per_s:.0f} tokens/s,"
        f" TTFT p99 {'-' if ttft is None else f'{1e3 * ttft.p99:.0f} ms'},"
        f" {result.requests.unexpected} of {result.requests.total} failed"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
