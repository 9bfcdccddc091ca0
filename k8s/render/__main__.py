"""What is made from the chart: its README of values, and manifests for kubectl and kustomize."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from k8s.render.manifests import VARIANTS, manifests
from k8s.render.readme import readme

K8S = Path(__file__).resolve().parents[1]
HELM = K8S.parent / ".cache" / "k8s" / "bin" / "helm4"
EXAMPLES = """\
examples:
  python -m k8s.render                    writes k8s/chart/README.md and k8s/manifests/
  python -m k8s.render --check            exit code 1 where one of them is not what the chart says
  python -m k8s.render --helm helm3
exit codes: 0 done, 1 out of step, 2 helm or the command is at fault
"""


def made(helm: Path) -> dict[Path, str]:
    """The text of every file. Raises RuntimeError where helm refuses."""
    chart = K8S / "chart"
    files = {chart / "README.md": readme(chart)}
    for variant in VARIANTS:
        folder = K8S / "manifests" / variant
        files |= {folder / name: text for name, text in manifests(helm, chart, variant).items()}
    return files


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.render",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="write nothing, tell what is out of step")
    parser.add_argument("--helm", type=Path, default=HELM, help="%(default)s")
    options = parser.parse_args(arguments)
    try:
        files = made(options.helm)
    except (OSError, RuntimeError) as error:
        print(f"k8s.render: {error}", file=sys.stderr)
        return 2
    stale = [path for path, text in files.items() if not path.exists() or path.read_text("utf-8") != text]
    for path in stale:
        print(
            f"{path.relative_to(K8S.parent)}: {'out of step: make manifests' if options.check else 'written'}"
        )
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path], "utf-8")
    return int(options.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
