"""Check rendered manifests, which are applied together, before a cluster sees them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from k8s.check import crds, kubernetes, rules
from k8s.check.bundle import Bundle, Problem, Unreadable, read, where

CRDS = Path(__file__).resolve().parents[1] / "crds"
EXAMPLES = """\
examples:
  python -m k8s.check k8s/manifests/cpu/halimede.yaml --external PersistentVolumeClaim/halimede-models
  helm template x k8s/chart > out.yaml && python -m k8s.check out.yaml
  python -m k8s.check out.yaml --kube 1.34 --external Secret/keys --crds FOLDER

Custom resources are checked against the CRDs in the *.yaml files of FOLDER, by default k8s/crds. A kind
without a CRD is said to be unchecked.
exit codes: 0 nothing found, 1 problems, 2 a file or an option is at fault
"""


def examined(bundle: Bundle, versions: Sequence[str], known: crds.Crds) -> Iterator[Problem]:
    """Every problem, those of schemas first. Rules need right schemas, so they are asked only then."""
    refused = list(_refused(bundle, versions, known))
    yield from refused or rules.problems(bundle)


def unchecked(bundle: Bundle, known: crds.Crds) -> list[str]:
    """Objects whose schema is not known here."""
    custom = [one for one in bundle.objects if not kubernetes.is_built_in(one)]
    return [where(one) for one in custom if not known.knows(one)]


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        bundle = Bundle(read(options.files), frozenset(options.external))
        known = crds.load(options.crds)
    except Unreadable as fault:
        print(fault, file=sys.stderr)
        return 2
    problems = list(examined(bundle, options.kube or kubernetes.VERSIONS, known))
    for problem in problems:
        print(problem)
    for one in unchecked(bundle, known):
        print(f"{one}: unchecked, no CRD of its kind is here", file=sys.stderr)
    for rule in sorted(known.unevaluated):
        print(f"CEL rule not evaluated: {rule}", file=sys.stderr)
    print(f"{len(bundle.objects)} objects, {len(problems)} problems")
    return int(bool(problems))


def _refused(bundle: Bundle, versions: Sequence[str], known: crds.Crds) -> Iterator[Problem]:
    for one in bundle.objects:
        for version in versions:
            yield from kubernetes.problems(one, version)
        if known.knows(one):
            yield from known.problems(one)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.check",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--kube", action="append", choices=kubernetes.VERSIONS, help="default: each of them")
    parser.add_argument("--crds", type=Path, default=CRDS, metavar="FOLDER")
    parser.add_argument("--external", action="append", default=[], type=_external, metavar="KIND/NAME")
    return parser


def _external(text: str) -> tuple[str, str]:
    kind, slash, name = text.partition("/")
    if not (kind and slash and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND/NAME, such as Secret/keys")
    return kind, name


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
