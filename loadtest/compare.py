"""Two runs of a load test side by side: `python -m loadtest.compare RUN_A RUN_B`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from loadtest import pages
from loadtest.errors import BenchError, exit_code
from loadtest.measure import result as results
from loadtest.measure.comparison import LATENCIES, Run, compare, misfits
from loadtest.measure.record import decode_lines
from loadtest.options import decimal, names_of

_T = TypeVar("_T")

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
        try:
            options.html.write_text(pages.versus_page(found, runs, warnings), "utf-8")
        except OSError as error:
            raise BenchError(f"{options.html}: {error.strerror}") from error
    factor: float | None = options.fail_above
    worse = [d.name for d in found if factor is not None and d.name in options.on and d.is_worse_than(factor)]
    for name in worse:
        print(f"{name} got worse by more than {factor:g} times", file=sys.stderr)
    return 3 if worse else 0


def read_run(folder: Path) -> Run:
    """BenchError names the file that is missing, of another version, or wrong."""
    result = _read(folder / "result.json", results.decode)
    return Run(result, _read(folder / "records.jsonl", lambda text: list(decode_lines(text.splitlines()))))


def _read(path: Path, decode: Callable[[str], _T]) -> _T:
    try:
        return decode(path.read_text("utf-8"))
    except OSError as error:
        raise BenchError(f"{path}: {error.strerror}; a run's folder has it") from error
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: is not UTF-8") from error
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtest.compare",
        description="Compares two runs of `make load`: ratios, and whether they are more than noise.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, factor = parser.add_argument, decimal("of at least 1", lambda factor: factor >= 1)
    add("run_a", type=Path, metavar="RUN_A", help="the folder of the run to compare with")
    add("run_b", type=Path, metavar="RUN_B", help="the folder of the other run")
    add("--html", type=Path, metavar="OUT", help="write a page with plots of both")
    add("--fail-above", type=factor, metavar="FACTOR", help="at least 1, e.g. 1.1")
    on = f"the latencies --fail-above looks at, all by default: {','.join(LATENCIES)}"
    add("--on", type=names_of(LATENCIES), default=LATENCIES, metavar="NAMES", help=on)
    return parser


if __name__ == "__main__":
    sys.exit(main())
