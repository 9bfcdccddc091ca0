"""The real balancers: nginx, whose endpoints are its configuration, and Envoy, which reads files."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtest.ports import held_ports
from tests.k8s.charts import BIN
from tests.k8s.programs import program
from tests.live.artifacts import MODEL
from tests.live.serving import Server
from tests.paths import ROOT

TEMPLATES = ROOT / "k8s" / "proxies"
PLACE = re.compile(r"@\{(\w+)\}")
ASSIGNMENT = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"


class Balancer(ABC):
    """Each request is a line of its access log, which is whole once it has ended."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.folder = folder
        self.grpc, self.http, self.admin = (f"127.0.0.1:{port}" for port in ports)
        self._ports = dict(zip(("grpc_port", "http_port", "admin_port"), ports, strict=True))
        self.process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def endpoints(self, servers: Sequence[Server]) -> None:
        """From now on requests go to these alone; those in flight go on."""

    @abstractmethod
    def command(self, servers: Sequence[Server]) -> list[str]:
        """What starts it; its files are written."""

    @property
    def access_log(self) -> list[str]:
        return (self.folder / "access.log").read_text().splitlines()

    def fill(self, name: str, **more: object) -> Path:
        """The template of that name in `folder`."""
        known = {**self._ports, "folder": self.folder, "model": MODEL, **more}
        text = (TEMPLATES / f"{name}.template").read_text()
        (self.folder / name).write_text(PLACE.sub(lambda place: str(known[place[1]]), text))
        return self.folder / name


class Nginx(Balancer):
    """Endpoints change with a reload; new workers take over, old ones end their streams."""

    def endpoints(self, servers: Sequence[Server]) -> None:
        self._write(servers)
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def command(self, servers: Sequence[Server]) -> list[str]:
        errors = str(self.folder / "error.log")  # before its configuration is read
        return [str(BIN / "nginx"), "-c", str(self._write(servers)), "-e", errors]

    def _write(self, servers: Sequence[Server]) -> Path:
        def lines(addresses: Sequence[str]) -> str:
            return "\n    ".join(f"server {one} max_fails=1 fail_timeout=5s;" for one in addresses)

        return self.fill(
            "nginx.conf",
            grpc_servers=lines([one.at("grpc") for one in servers]),
            http_servers=lines([one.at("http") for one in servers]),
        )


class Envoy(Balancer):
    """Endpoints are files that it watches: the discovery service of a mesh, without one."""

    def endpoints(self, servers: Sequence[Server]) -> None:
        for cluster, service in (("grpc", "grpc"), ("rest", "http")):
            fresh = self.folder / f"{cluster}.new"
            found = [_endpoint(one.at(service), one.ports["http"]) for one in servers]
            assignment = {
                "@type": ASSIGNMENT,
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": found}],
            }
            fresh.write_text(json.dumps({"resources": [assignment]}))
            fresh.replace(
                self.folder / f"{cluster}.json"
            )  # it sees files that are moved, not those written to

    def command(self, servers: Sequence[Server]) -> list[str]:
        self.endpoints(servers)
        flags = ["--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        config = str(self.fill("envoy.yaml"))
        return [str(BIN / "envoy"), "-c", config, "--file-flush-interval-msec", "200", *flags]


def _endpoint(address: str, health_port: int) -> dict[str, Any]:
    """Its health is asked over HTTP, whatever it serves."""
    host, _, port = address.rpartition(":")
    return {
        "endpoint": {
            "address": {"socket_address": {"address": host, "port_value": int(port)}},
            "health_check_config": {"port_value": health_port},
        }
    }


BALANCERS: Mapping[str, type[Balancer]] = {"nginx": Nginx, "envoy": Envoy}


@contextmanager
def balancing(name: str, folder: Path, servers: Sequence[Server]) -> Iterator[Balancer]:
    """A balancer in front of these servers, which are ready. Makes `folder` for its files."""
    folder.mkdir()
    with held_ports(3) as ports:
        balancer = BALANCERS[name](folder, ports)
        ready = f"http://{balancer.http}/v2/models/{MODEL}/ready"
        with program(balancer.command(servers), folder, ready) as balancer.process:
            yield balancer
