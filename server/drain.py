"""Wait until a server has answered all of its requests: the preStop hook of a Pod.

Kubernetes removes a Pod from the endpoints and runs its preStop hook at the same time, so requests still
arrive for a while. Therefore the hook first waits for a settle time. Then it reads the engines' own gauges
until they are zero several times in a row: nothing runs and nothing waits. Triton's pending count cannot be
used: it shows 0 while requests are in flight. Only after the hook does the launcher get SIGTERM.

This program needs only the standard library, and reads no other file of the project.
"""

from __future__ import annotations

import argparse
import http.client
import math
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

GAUGES = re.compile(r"^halimede_num_requests_(?:running|waiting)(?:\{.*\})? (\S+)", re.MULTILINE)
LOOK_TIMEOUT_S = 5.0
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
EPILOG = """\
examples:
  drain.py                                    the server of this Pod, metrics on port 8002
  drain.py --settle-s 10 --timeout-s 600      a slow load balancer, long answers
  drain.py --metrics http://127.0.0.1:9002/metrics --settle-s 0

exit codes:
  0 nothing runs or waits, or the server has ended; 2 the command is wrong;
  4 timed out with requests still in flight, or without readable metrics
terminationGracePeriodSeconds must exceed --timeout-s by the launcher's --exit-timeout.
"""


class Exit(IntEnum):
    DRAINED = 0
    TIME_UP = 4


class Silence(Enum):
    """Why a reading has no number."""

    GONE = "the server has ended"
    UNCLEAR = "the metrics cannot be read"


Sight = int | Silence


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds; `timeout_s` counts from the start and includes `settle_s`.

    `looks` is how many readings in a row must be zero; `every_s` times `looks` has to exceed the half second
    after which engines publish their gauges.
    """

    settle_s: float = 5.0
    timeout_s: float = 300.0
    every_s: float = 0.5
    looks: int = 4


def in_flight(page: str) -> int | None:
    """Requests that run or wait, over all engines of a page; None without such gauges, or if one is no
    number.
    """
    found = GAUGES.findall(page)
    try:
        counts = [float(text) for text in found]
    except ValueError:
        return None
    if not counts or not all(map(math.isfinite, counts)):
        return None
    # A negative gauge must not cancel out another one.
    return math.ceil(sum(max(count, 0.0) for count in counts))


def look(url: str) -> Sight:
    """One scrape of the metrics page."""
    try:
        with NO_PROXY.open(url, timeout=LOOK_TIMEOUT_S) as answer:
            count = in_flight(answer.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError:
        return Silence.UNCLEAR
    except urllib.error.URLError as error:
        return Silence.GONE if isinstance(error.reason, ConnectionRefusedError) else Silence.UNCLEAR
    except (http.client.HTTPException, OSError):
        return Silence.UNCLEAR
    return Silence.UNCLEAR if count is None else count


def drain(
    see: Callable[[], Sight],
    patience: Patience,
    say: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Exit:
    """Reads until the server was idle, or had ended, `looks` times in a row, or until the timeout."""
    began = clock()
    sleep(min(patience.settle_s, patience.timeout_s))
    quiet, last = 0, None
    while True:
        sight = see()
        if sight != last:
            say(f"{clock() - began:.1f} s: {shown(sight)}")
        quiet = quiet + 1 if is_quiet(sight) and (not quiet or sight == last) else int(is_quiet(sight))
        last = sight
        if quiet >= patience.looks:
            say(f"drained after {clock() - began:.1f} s")
            return Exit.DRAINED
        if clock() - began >= patience.timeout_s:
            say(f"timed out after {patience.timeout_s:g} s: {shown(sight)}; the Pod stops anyway")
            return Exit.TIME_UP
        sleep(patience.every_s)


def is_quiet(sight: Sight) -> bool:
    return sight is Silence.GONE or sight == 0


def shown(sight: Sight) -> str:
    return sight.value if isinstance(sight, Silence) else f"{sight} requests in flight"


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    patience = Patience(options.settle_s, options.timeout_s, options.every_s, options.looks)
    return drain(lambda: look(options.metrics), patience, _say)


def _say(line: str) -> None:
    # Kubernetes drops the output of a preStop hook: the container's log has only its first process's.
    print(f"drain: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drain.py",
        description="Wait until a server has answered all of its requests: the preStop hook of a Pod.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = Patience()
    add = parser.add_argument
    add("--metrics", type=_url, default="http://127.0.0.1:8002/metrics", metavar="URL", help="%(default)s")
    add(
        "--settle-s",
        type=_seconds,
        default=default.settle_s,
        metavar="S",
        help="before the first reading; %(default)s",
    )
    add("--timeout-s", type=_seconds, default=default.timeout_s, metavar="S", help="in total; %(default)s")
    add("--every-s", type=_seconds, default=default.every_s, metavar="S", help="between them; %(default)s")
    add("--looks", type=_looks, default=default.looks, metavar="N", help="idle in a row; %(default)s")
    return parser


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r}, must be a URL such as http://127.0.0.1:8002/metrics")
    return text


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text}, must be 0 to 86400 seconds")
    return value


def _looks(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text}, must be 1 to 1000")
    return value


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
