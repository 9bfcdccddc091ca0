"""What the launcher asks a running tritonserver over HTTP: whether it is ready, and to drain.

A signal alone does not stop Triton 2.51 well: the request of a client that disconnected just before SIGTERM
stays in flight, and a single idle keep-alive connection delays the exit, both until the exit timeout. While
it serves, neither happens. So the launcher drains it first: it unloads the models that clients call,
including those loaded later, and then the steps that they used. A model that unloads refuses new requests and
finishes the running ones.

Even then Triton may keep a model that has nothing left to do: the last requests that failed in the middle of
a stream, or over gRPC, stay referenced until later ones take their place. So a model whose engine has been
idle for a while counts as drained.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# "NAME: VALUE": the header that Triton requires for loading models, if it restricts that.
ADMIN_HEADER = "HALIMEDE_ADMIN_HEADER"
ALIVE = ("LOADING", "READY", "UNLOADING")
POLL_SECONDS = 0.05
# Engines publish their metrics twice a second; a response takes less than that to its client.
IDLE_SECONDS = 1.0
# For steps that no model uses any more.
STEPS_SECONDS = 1.0
IN_FLIGHT = re.compile(r"^halimede_num_requests_(?:running|waiting)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Control:
    address: str  # host:port of the HTTP service; never through a proxy
    metrics: str | None = None  # host:port of the metrics, which show whether engines are idle
    admin: tuple[str, str] | None = None  # header that permits loading and unloading models

    def is_ready(self) -> bool:
        try:
            return _ask(self.address, "GET", "/v2/health/ready")[0] == http.client.OK
        except (http.client.HTTPException, OSError):
            return False

    def drain(self, seconds: float) -> bool:
        """Unloads every model that clients call, then the others; true if all requests ended in time."""
        try:
            alive = self._alive()
            called = alive.difference(*map(self._steps, alive))
            if not self._unload(called, seconds, or_idle=True):
                return False
            self._unload(self._alive() - called, STEPS_SECONDS)
        except (http.client.HTTPException, OSError, ValueError):
            return False
        return True

    def _unload(self, models: Collection[str], seconds: float, *, or_idle: bool = False) -> bool:
        """Whether they were unloaded in time, or with `or_idle` had nothing left to do."""
        for model in models:
            self._administer(f"/v2/repository/models/{model}/unload")
        now = time.monotonic()
        deadline, busy = now + seconds, now
        while self._alive() & set(models):
            now = time.monotonic()
            if not (or_idle and self._is_idle()):
                busy = now
            if now - busy > IDLE_SECONDS:
                return True
            if now > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _alive(self) -> set[str]:
        status, index = self._administer("/v2/repository/index")
        if status != http.client.OK:
            raise http.client.HTTPException(f"/v2/repository/index: HTTP status {status}")
        entries = json.loads(index)
        return {entry["name"] for entry in entries if entry.get("state") in ALIVE}

    def _administer(self, path: str) -> tuple[int, bytes]:
        return _ask(self.address, "POST", path, dict([self.admin] if self.admin else []))

    def _steps(self, model: str) -> set[str]:
        """The models that an ensemble calls; none for any other, and for one that is not ready."""
        status, config = _ask(self.address, "GET", f"/v2/models/{model}/config")
        if status != http.client.OK:
            return set()
        steps = json.loads(config).get("ensemble_scheduling", {}).get("step", [])
        return {step["model_name"] for step in steps}

    def _is_idle(self) -> bool:
        """Whether the engines' metrics say that nothing runs or waits; false without such metrics."""
        if self.metrics is None:
            return False
        counts = IN_FLIGHT.findall(_ask(self.metrics, "GET", "/metrics")[1].decode())
        return bool(counts) and not any(map(float, counts))


def admin_header(environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The header that the environment names, if any."""
    name, _, value = environ.get(ADMIN_HEADER, "").partition(":")
    return (name.strip(), value.strip()) if name.strip() else None


def _ask(
    address: str, method: str, path: str, headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request(method, path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
