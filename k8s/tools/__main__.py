"""Get the programs that the tests of k8s/ run into .cache/k8s, with links in .cache/k8s/bin."""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

from k8s.tools.failure import SetupFailure
from k8s.tools.setup import items, set_up

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = """\
examples:
  python -m k8s.tools              get what is missing; `make setup-k8s` does this
  python -m k8s.tools --list       say what is there, and get nothing
  python -m k8s.tools --into DIR   into another folder than .cache/k8s

Stopped in between, it goes on with the tool at which it stopped.
exit codes: 0 all are there, 1 one could not be had (or, with --list, is missing), 2 wrong usage
"""


def main() -> int:
    options = _parser().parse_args()
    if options.list:
        return _listed(options.into)
    try:
        _refuse_other_machines()
        links = set_up(options.into.resolve(), lambda line: print(line, flush=True))
    except SetupFailure as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"links: {links}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.tools",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--into", type=Path, default=ROOT / ".cache" / "k8s", metavar="DIR")
    parser.add_argument("--list", action="store_true", help="say what is there, and get nothing")
    return parser


def _listed(cache: Path) -> int:
    wanted = items(cache)
    for item in wanted:
        print(f"{'there  ' if item.complete else 'missing'} {item.title}")
    return int(not all(item.complete for item in wanted))


def _refuse_other_machines() -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise SetupFailure(
            f"the tools are programs of Linux on x86_64; this is {sys.platform} {platform.machine()}"
        )


if __name__ == "__main__":
    sys.exit(main())
