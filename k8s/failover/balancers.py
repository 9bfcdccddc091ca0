"""The real balancers: nginx, whose endpoints are its configuration, and Envoy, which is told of them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from k8s.failover.servers import STOP_LIMIT_S, Broken, Server, answers, tail, wait_until
from loadtest.ports import held_ports

HERE: Final = Path(__file__).parent
READY_LIMIT_S: Final = 120.0
PLACE: Final = re.compile(r"@\{(\w+)\}")
_ASSIGNMENT: Final = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Balancer(ABC):
    """Runs from `start` to `stop`; its files are in `folder`, each request a line of its access log."""

    name: str

    def __init__(self, program: Path, folder: Path, model: str) -> None:
        self._program, self._folder, self._model = program, folder, model
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, servers: Sequence[Server]) -> None:
        """From then on it is at `grpc` and `http`."""
        with held_ports(3) as (grpc, http, admin):
            self._ports = {"grpc_port": grpc, "http_port": http, "admin_port": admin}
            self.grpc, self.http = f"grpc://127.0.0.1:{grpc}", f"http://127.0.0.1:{http}"
            self._write(servers)
            self._run()

    def _run(self) -> None:
        log = self._folder / "output.log"
        with log.open("wb") as output:
            self._process = subprocess.Popen(self._command(), stdout=output, stderr=subprocess.STDOUT)
        ready = f"{self.http}/v2/models/{self._model}/ready"
        wait_until(lambda: self._alive() and answers(ready), READY_LIMIT_S, self.name, log)

    @abstractmethod
    def endpoints(self, servers: Sequence[Server]) -> None:
        """From now on requests go to these alone; those in flight go on."""

    def stop(self) -> None:
        """In order: what is in its logs is whole."""
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOP_LIMIT_S)

    @property
    def access_log(self) -> Path:
        return self._folder / "access.log"

    def counters(self) -> Mapping[str, int]:
        """What it counted itself; none for nginx."""
        return {}

    @abstractmethod
    def _write(self, servers: Sequence[Server]) -> None: ...

    @abstractmethod
    def _command(self) -> list[str]: ...

    def _fill(self, template: str, **more: object) -> str:
        known = {**self._ports, "folder": self._folder, "model": self._model, **more}
        return PLACE.sub(lambda place: str(known[place[1]]), (HERE / template).read_text())

    def _alive(self) -> bool:
        if self._process and self._process.poll() is not None:
            raise Broken(f"{self.name} ended:\n{tail(self._folder / 'output.log')}")
        return True


class Nginx(Balancer):
    """Endpoints change with a reload; new workers take over, old ones end their streams."""

    name = "nginx"

    def endpoints(self, servers: Sequence[Server]) -> None:
        self._write(servers)
        assert self._process
        self._process.send_signal(signal.SIGHUP)

    def _write(self, servers: Sequence[Server]) -> None:
        def lines(addresses: Sequence[str]) -> str:
            return "\n    ".join(f"server {one} max_fails=1 fail_timeout=5s;" for one in addresses)

        text = self._fill(
            "nginx.conf.template",
            grpc_servers=lines([one.grpc for one in servers]),
            http_servers=lines([one.http for one in servers]),
        )
        (self._folder / "nginx.conf").write_text(text)

    def _command(self) -> list[str]:
        errors = str(self._folder / "error.log")  # before its configuration is read
        return [str(self._program), "-c", str(self._folder / "nginx.conf"), "-e", errors]


class Envoy(Balancer):
    """Endpoints are files that it watches: the discovery service of a mesh, without one."""

    name = "envoy"

    def endpoints(self, servers: Sequence[Server]) -> None:
        for cluster in ("grpc", "rest"):
            path = self._folder / f"{cluster}.json"
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(_assignment(cluster, servers)))
            fresh.replace(path)  # it sees files that are moved there, not those written to

    def counters(self) -> Mapping[str, int]:
        wanted = (
            "upstream_rq_retry",
            "upstream_cx_close_notify",
            "ejections_enforced_total",
            "retry_success",
        )
        page = f"http://127.0.0.1:{self._ports['admin_port']}/stats?filter=%5Ecluster"
        with urllib.request.urlopen(page, timeout=5) as answer:
            rows = [line.partition(": ") for line in answer.read().decode().splitlines()]
        return {name: int(value) for name, _, value in rows if name.endswith(wanted) and value != "0"}

    def _write(self, servers: Sequence[Server]) -> None:
        self.endpoints(servers)
        (self._folder / "envoy.yaml").write_text(self._fill("envoy.yaml.template"))

    def _command(self) -> list[str]:
        flags = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        config = str(self._folder / "envoy.yaml")
        return [str(self._program), "-c", config, "--file-flush-interval-msec", "200", *flags]


def _assignment(cluster: str, servers: Sequence[Server]) -> dict[str, Any]:
    endpoints = [_endpoint(one.grpc if cluster == "grpc" else one.http, one.http) for one in servers]
    found = {"@type": _ASSIGNMENT, "cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]}
    return {"resources": [found]}


def _endpoint(address: str, health: str) -> dict[str, Any]:
    """Its health is asked over HTTP, whatever it serves."""
    host, _, port = address.rpartition(":")
    return {
        "endpoint": {
            "address": {"socket_address": {"address": host, "port_value": int(port)}},
            "health_check_config": {"port_value": int(health.rpartition(":")[2])},
        }
    }


BALANCERS: Final[Mapping[str, type[Balancer]]] = {"nginx": Nginx, "envoy": Envoy}
