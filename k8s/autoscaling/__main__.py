"""Rehearses the chart's autoscaling on simulated replicas of a measured server."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from k8s.autoscaling import chart, measure, strategies
from k8s.autoscaling.arrivals import SHAPES, lengths_of, poisson
from k8s.autoscaling.calibration import Calibration, load
from k8s.autoscaling.capacity import capacity
from k8s.autoscaling.compare import compare
from k8s.autoscaling.fleet import Start
from k8s.autoscaling.objects import Unreadable
from k8s.autoscaling.prometheus import Prometheus, PrometheusFault
from k8s.autoscaling.rehearsal import Outcome, Setting, Slo, rehearse
from k8s.autoscaling.replica import StepTimes
from k8s.autoscaling.report import as_json, plot, read_all, table
from k8s.autoscaling.scaler import Scaler
from k8s.autoscaling.server import Unmeasured

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = ROOT / ".cache" / "k8s" / "bin"
DEFAULT: Final = "chart,cpu:60,cpu:80,waiting:2,in-flight:2,ttft:2,fixed:5"
EXAMPLES: Final = """\
examples:
  python -m k8s.autoscaling                       calibrates for five minutes, then two for each load
  python -m k8s.autoscaling --save calibration.json --loads burst
  python -m k8s.autoscaling --calibration k8s/autoscaling/smollm2-int8-2-cores.json --json out.json
  python -m k8s.autoscaling --scalers chart,cpu:80 --node-seconds 180      a node must be added first
  python -m k8s.autoscaling --scalers in-flight:3,waiting:1+ttft:2         other signals, and two at once
  python -m k8s.autoscaling --set autoscaling.maxReplicas=20               other values of the chart
  python -m k8s.autoscaling --calibration calibration.json --check runs/one     how far off is the model?
  python -m k8s.autoscaling --results 1.json 2.json --only HPA,cpu --png out.png     of several seeds

Signals: cpu (per cent of the request), waiting, in-flight (waiting and running requests), steady (the same, a
minute's mean), kv (share of the cache), each the average of the pods; ttft (seconds, the 95th percentile of
two minutes); fixed (replicas).

Exit codes: 0 rehearsed, 1 a server or Prometheus did not work, 2 the command is at fault."""


def main(arguments: Sequence[str] | None = None) -> int:
    found = _parser().parse_args(arguments)
    # A kill ends it as Ctrl-C does, so that the server under measurement is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        _check(found)
        return _run(found)
    except (ValueError, Unreadable) as problem:
        print(f"k8s.autoscaling: {problem}", file=sys.stderr)
        return 2
    except (Unmeasured, PrometheusFault) as problem:
        print(f"k8s.autoscaling: {problem}", file=sys.stderr)
        return 1


def _run(found: argparse.Namespace) -> int:
    if found.results:
        return _told(read_all(found.results, found.only), found)
    calibration = _calibration(found)
    if found.check:
        print(compare(found.check, calibration))
        return 0
    slo = Slo(found.ttft, found.tpot)
    times = StepTimes(calibration)
    scalers = _scalers(found, float(calibration.cores))
    units = {name: capacity(times, lengths_of(name)) for name in found.loads}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in found.loads}
    for name in found.loads:
        _say(f"{name}: one replica serves {units[name]:.2f} requests/s, planned with headroom")
        for scaler in scalers:
            seconds = SHAPES[name][-1][0]
            start = Start(found.node_seconds, calibration.cold_start)
            setting = Setting(times, start, slo, seconds)
            outcomes[name].append(_rehearsed(scaler, name, units[name], setting, found))
    if found.json:
        found.json.write_text(json.dumps(as_json(outcomes, calibration, units), indent=1) + "\n")
    return _told(outcomes, found)


def _told(outcomes: dict[str, list[Outcome]], found: argparse.Namespace) -> int:
    print(table(outcomes))
    if found.png:
        plot(outcomes, found.png)
    return 0


def _rehearsed(
    scaler: Scaler, name: str, unit_per_s: float, setting: Setting, found: argparse.Namespace
) -> Outcome:
    arrivals = poisson(SHAPES[name], unit_per_s, lengths_of(name), found.seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        epoch_s = time.time() - setting.seconds - setting.tail_s - 60
        with Prometheus(found.prometheus, Path(folder), epoch_s) as prometheus:
            outcome = rehearse(scaler, arrivals, setting, prometheus)
    factor = setting.seconds / (time.monotonic() - began)
    figures = f"{outcome.good_share:.1%} good, {outcome.replica_hours:.2f} replica-h"
    _say(f"  {scaler.name}: {figures}, {factor:.0f} times as fast as the clock")
    return outcome


def _scalers(found: argparse.Namespace, cores: float) -> list[Scaler]:
    """The chart's two, and others with the same limits and behaviour."""
    ours = list(chart.scalers(found.helm, cores, found.set))
    limits = ours[0].limits
    others = [group for group in found.scalers if group != "chart"]
    return [
        *(ours if "chart" in found.scalers else []),
        *(strategies.parse(one, cores, limits) for one in others),
    ]


def _calibration(found: argparse.Namespace) -> Calibration:
    if found.calibration:
        return load(found.calibration)
    with tempfile.TemporaryDirectory() as folder:
        measured = measure.calibrate(found.model_repository, found.model, Path(folder), found.starts, _say)
    if found.save:
        measured.save(found.save)
    return measured


def _check(found: argparse.Namespace) -> None:
    for name in found.loads:
        if name not in SHAPES:
            raise ValueError(f"--loads {name}: must be of {', '.join(SHAPES)}")
    for group in found.scalers:
        if group != "chart":
            strategies.parse(group, 1.0)
    for program in (found.prometheus, found.helm):
        if not program.is_file():
            raise ValueError(f"{program} is missing; make setup-k8s gets it")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m k8s.autoscaling",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    names = lambda text: text.split(",")  # noqa: E731
    add("--loads", type=names, default=list(SHAPES), metavar="A,B", help=f"of {', '.join(SHAPES)}; all")
    add(
        "--scalers",
        type=names,
        default=DEFAULT.split(","),
        metavar="A,B",
        help=f"chart, or SIGNAL:TARGET, several with +; {DEFAULT}",
    )
    add("--calibration", type=Path, metavar="FILE", help="measured before; else the server is measured now")
    add("--save", type=Path, metavar="FILE", help="where to write what was measured")
    add("--model-repository", type=Path, default=ROOT / "model_repository", metavar="DIR")
    add("--model", default="smollm2")
    add("--starts", type=int, default=5, help="cold starts that are measured; 5")
    add("--node-seconds", type=float, default=30.0, metavar="S", help="ASSUMED: node, image, probe; 30")
    add("--ttft", type=float, default=2.0, metavar="S", help="of a good request; 2.0")
    add("--tpot", type=float, default=0.2, metavar="S", help="of a good request, for each token; 0.2")
    add("--seed", type=int, default=1, help="of the arrivals; 1")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a value of the chart; repeatable")
    add("--helm", type=Path, default=TOOLS / "helm4", metavar="FILE")
    add("--prometheus", type=Path, default=TOOLS / "prometheus", metavar="FILE")
    add(
        "--results",
        type=Path,
        nargs="+",
        metavar="JSON",
        help="rehearse nothing: the tables and plot of these; several seeds of a load are pooled",
    )
    add(
        "--only",
        type=names,
        default=[],
        metavar="A,B",
        help="with --results: of these scalers",
    )
    add(
        "--check",
        type=Path,
        metavar="RUN",
        help="rehearse nothing: a run of make load beside the model of it",
    )
    add("--json", type=Path, metavar="FILE")
    add("--png", type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main())
