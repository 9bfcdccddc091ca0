"""Prometheus and Alertmanager as processes, the chart's rules in the one and a webhook behind the other."""

from __future__ import annotations

import json
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.ports import held_ports
from tests.k8s.charts import NAMESPACE, RULES
from tests.k8s.pace import faster
from tests.k8s.programs import program

JOB = "halimede"  # the one that the rule files name
FACTOR = 60  # a minute of the rules is a second
SCRAPE = "1s"  # a minute on the rules' clock
EVALUATION = "500ms"


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
    """`programs` has prometheus and alertmanager; `folder` takes their files."""
    with held_ports(2) as ports:
        prometheus, alertmanager = (f"127.0.0.1:{port}" for port in ports)
        stack = Stack(folder, prometheus)
        stack.watch({})
        _write_configuration(folder, alertmanager, webhook)
        notifier = [
            str(_runnable(programs / "alertmanager", folder)),
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'silences'}",
            f"--web.listen-address={alertmanager}",
            "--cluster.listen-address=",  # alone
            "--log.level=warn",
        ]
        database = [
            str(programs / "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address={prometheus}",
            "--query.lookback-delta=5s",  # 5 minutes on the rules' clock
            "--log.level=warn",
        ]
        with (
            program(notifier, folder, f"http://{alertmanager}/-/ready"),
            program(database, folder, f"http://{prometheus}/-/ready"),
        ):
            yield stack


def _write_configuration(folder: Path, alertmanager: str, webhook: str) -> None:
    route = {
        "receiver": "webhook",
        "group_by": ["..."],  # each alert by itself
        "group_wait": "0s",
        "group_interval": "1s",
    }
    receiver = {"name": "webhook", "webhook_configs": [{"url": webhook, "send_resolved": True}]}
    (folder / "alertmanager.yml").write_text(json.dumps({"route": route, "receivers": [receiver]}))
    found = [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}]
    scrape = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": EVALUATION}
    config = {
        "global": scrape,
        "rule_files": [str(folder / "rules" / "*.yaml")],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]},
        "scrape_configs": [{"job_name": JOB, "file_sd_configs": found}],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    (folder / "rules").mkdir()
    for path in RULES.glob("*.yaml"):
        (folder / "rules" / path.name).write_text(faster(path.read_text("utf-8"), FACTOR))


_BUILT_IN = "/usr/share/prometheus/alertmanager"
_HERE = "templates"


def _runnable(alertmanager: Path, folder: Path) -> Path:
    """Debian's Alertmanager has the path of its templates built in. Where they are not installed: a copy in
    `folder`, to be run from there, with a path of the same length that leads to the unpacked ones.
    """
    if (Path(_BUILT_IN) / "default.tmpl").exists():
        return alertmanager
    (folder / _HERE).symlink_to(alertmanager.resolve().parents[1] / Path(_BUILT_IN).relative_to("/usr"))
    copy = folder / alertmanager.name
    shutil.copy2(alertmanager, copy)
    other = "." + _HERE.rjust(len(_BUILT_IN) - 1, "/")
    copy.write_bytes(copy.read_bytes().replace(_BUILT_IN.encode(), other.encode()))
    return copy
