"""Prometheus and Alertmanager as processes, the chart's rules in the one and a webhook behind the other."""

from __future__ import annotations

import json
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.failover.servers import NotStarted, answers, tail, wait_until
from k8s.live.alertmanager import runnable
from k8s.live.pace import faster_rules
from loadtest.ports import held_ports

RULES: Final = Path(__file__).parents[1] / "chart" / "files" / "rules"
JOB: Final = "halimede"  # the one that the rule files name
NAMESPACE: Final = "serving"
FACTOR: Final = 60  # a minute of the rules is a second
SCRAPE: Final = "1s"  # a minute on the rules' clock
EVALUATION: Final = "500ms"
START_LIMIT_S: Final = 120.0


class QueryFault(Exception):
    """Prometheus refused an expression; says why."""


class Stack:
    """Ready when it is given out by `running`."""

    def __init__(self, folder: Path, prometheus: str) -> None:
        self._folder = folder
        self._url = f"http://{prometheus}"

    def watch(self, targets: Mapping[str, str]) -> None:
        """Scrape these from now on: the address of each pod."""
        groups = [
            {"targets": [address], "labels": {"namespace": NAMESPACE, "pod": pod}}
            for pod, address in targets.items()
        ]
        new = self._folder / "targets.new"
        new.write_text(json.dumps(groups))
        new.replace(self._folder / "targets.json")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. Raises QueryFault."""
        asked = urllib.parse.urlencode({"query": expression})
        result: list[dict[str, Any]] = self._get(f"query?{asked}")["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """As Prometheus evaluates them, with `name`, `query`, `health` and, where it failed, `lastError`."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise QueryFault(f"{path}: {refused.read().decode(errors='replace')}") from refused


@contextmanager
def running(programs: Path, folder: Path, webhook: str) -> Iterator[Stack]:
    """`programs` has prometheus and alertmanager; `folder` takes their files. Raises NotStarted."""
    with ExitStack() as processes:
        ports = processes.enter_context(held_ports(2))
        prometheus, alertmanager = (f"127.0.0.1:{port}" for port in ports)
        stack = Stack(folder, prometheus)
        stack.watch({})
        (folder / "alertmanager.yml").write_text(json.dumps(_alertmanager_config(webhook)))
        (folder / "prometheus.yml").write_text(json.dumps(_prometheus_config(folder, alertmanager)))
        _write_rules(folder)
        for command, address in (
            (_alertmanager_command(programs, folder, alertmanager), alertmanager),
            (_prometheus_command(programs, folder, prometheus), prometheus),
        ):
            processes.enter_context(_process(command, folder, address))
        yield stack


@contextmanager
def _process(command: Sequence[str], folder: Path, address: str) -> Iterator[None]:
    log = folder / f"{Path(command[0]).name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        ready = lambda: process.poll() is not None or answers(f"http://{address}/-/ready")  # noqa: E731
        wait_until(ready, START_LIMIT_S, command[0], log)
        if process.poll() is not None:
            raise NotStarted(f"{command[0]} ended with {process.returncode}:\n{tail(log)}")
        yield
    finally:
        process.terminate()
        process.wait()


def _write_rules(folder: Path) -> None:
    (folder / "rules").mkdir()
    for path in sorted(RULES.glob("*.yaml")):
        rules = faster_rules(yaml.safe_load(path.read_text()), FACTOR)
        (folder / "rules" / path.name).write_text(json.dumps(rules))


def _alertmanager_config(webhook: str) -> dict[str, Any]:
    return {
        "route": {
            "receiver": "webhook",
            "group_by": ["..."],  # each alert by itself
            "group_wait": "0s",
            "group_interval": "1s",
        },
        "receivers": [
            {"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]},
        ],
    }


def _prometheus_config(folder: Path, alertmanager: str) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": EVALUATION},
        "rule_files": [str(folder / "rules" / "*.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [
            {
                "job_name": JOB,
                "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}],
            }
        ],
    }


def _alertmanager_command(programs: Path, folder: Path, address: str) -> list[str]:
    return [
        str(runnable(programs / "alertmanager", folder)),
        f"--config.file={folder / 'alertmanager.yml'}",
        f"--storage.path={folder / 'silences'}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",  # alone
        "--log.level=warn",
    ]


def _prometheus_command(programs: Path, folder: Path, address: str) -> list[str]:
    return [
        str(programs / "prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'series'}",
        f"--web.listen-address={address}",
        "--query.lookback-delta=5s",  # 5 minutes on the rules' clock
        "--log.level=warn",
    ]
