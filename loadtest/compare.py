"""Two runs of a load test side by side: `python -m loadtest.compare RUN_A RUN_B`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from loadtest import pages
from loadtest.errors import BenchError, exit_code
from loadtest.measure import result as results
from loadtest.measure.comparison import LATENCIES, Difference, Run, compare, misfits
from loadtest.measure.record import decode_lines
from loadtest.options import decimal, names_of

_FACTOR = decimal("of at least 1", lambda factor: factor >= 1)
_EXAMPLES = """examples:
  python -m loadtest.compare runs/20261101-100000-chat runs/20261102-100000-chat
  python -m loadtest.compare BEFORE AFTER --html versus.html
  python -m loadtest.compare BEFORE AFTER --fail-above 1.1 --on ttft_p99_s,gap_p99_s

exit code: 0, or 3 when a latency of --on got worse by more than --fail-above, 1 where a run cannot be read,
2 for a bad command
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    return exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    runs = read_run(options.run_a), read_run(options.run_b)
    found = compare(*runs)
    warnings = list(misfits(runs[0].result, runs[1].result))
    pages.show_versus(found, runs, warnings, Console())
    if options.html is not None:
        _written(options.html, pages.versus_page(found, runs, warnings))
    return _verdict(found, options.fail_above, options.on)


def read_run(folder: Path) -> Run:
    """BenchError names the file that is missing, of another version, or wrong."""
    text, lines = _text(folder / "result.json"), _text(folder / "records.jsonl")
    try:
        result = results.decode(text)
    except BenchError as error:
        raise BenchError(f"{folder / 'result.json'}: {error}") from error
    try:
        return Run(result, list(decode_lines(lines.splitlines())))
    except BenchError as error:
        raise BenchError(f"{folder / 'records.jsonl'}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}; a run's folder has it") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: is not UTF-8") from error


def _written(path: Path, page: str) -> None:
    try:
        path.write_text(page, "utf-8")
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}") from error


def _verdict(found: Sequence[Difference], factor: float | None, names: Sequence[str]) -> int:
    worse = [d.name for d in found if factor is not None and d.name in names and d.is_worse_than(factor)]
    for name in worse:
        print(f"{name} got worse by more than {factor:g} times", file=sys.stderr)
    return 3 if worse else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.compare",
        description="Compares two runs of `make load`: ratios, and whether they are more than noise.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_a", type=Path, metavar="RUN_A", help="the folder of the run to compare with")
    parser.add_argument("run_b", type=Path, metavar="RUN_B", help="the folder of the other run")
    parser.add_argument("--html", type=Path, metavar="OUT", help="write a page with plots of both")
    parser.add_argument(
        "--fail-above",
        type=_FACTOR,
        metavar="FACTOR",
        help="at least 1, e.g. 1.1",
    )
    parser.add_argument(
        "--on",
        type=names_of(LATENCIES),
        default=LATENCIES,
        metavar="NAMES",
        help=f"the latencies --fail-above looks at, all by default: {','.join(LATENCIES)}",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
