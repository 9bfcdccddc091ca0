"""Write the Grafana dashboard that the chart installs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from k8s.dashboard.board import dashboard

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "k8s" / "chart" / "files" / "dashboards" / "halimede.json"
EXAMPLES = """\
examples:
  python -m k8s.dashboard            writes k8s/chart/files/dashboards/halimede.json
  python -m k8s.dashboard --check    exit code 1 where it is not what the program says
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.dashboard",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing, tell whether it is out of step")
    check = parser.parse_args(arguments).check
    text = dashboard()
    if FILE.exists() and FILE.read_text("utf-8") == text:
        return 0
    print(f"{FILE.relative_to(ROOT)}: {'out of step: make manifests' if check else 'written'}")
    if not check:
        FILE.parent.mkdir(parents=True, exist_ok=True)
        FILE.write_text(text, "utf-8")
    return int(check)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
