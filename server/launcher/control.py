"""What the launcher asks a running tritonserver over HTTP: whether it is ready, and to drain.

Triton 2.51 cannot be stopped by a signal alone: a client that went away just before SIGTERM keeps its
request in flight for good, and an idle keep-alive connection alone holds the exit up, both until the
exit timeout. While it serves, neither happens. So it is drained first: the models that clients call, be
they loaded at the start or later, are unloaded, which refuses new requests and lets running ones end, then
the steps that they used.

Even so it may hold on to a model that has nothing left to do: the last requests to end in an error in the
midst of a stream, or over gRPC, stay referenced until later ones take their place. So a model whose engine
has been idle for a while counts as drained.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

# "NAME: VALUE", where Triton restricts the loading of models to who sends it.
ADMIN_HEADER = "HALIMEDE_ADMIN_HEADER"
ALIVE = ("LOADING", "READY", "UNLOADING")
POLL_SECONDS = 0.05
# Engines tell their metrics twice a second; a response is on its way for less than that.
IDLE_SECONDS = 1.0
# For steps that nothing uses any more.
STEPS_SECONDS = 1.0
IN_FLIGHT = re.compile(r"^halimede_num_requests_(?:running|waiting)\{.*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Control:
    address: str  # host:port of its HTTP service; no proxy is ever asked
    metrics: str | None = None  # the same of its metrics, where engines tell what they are at
    admin: tuple[str, str] | None = None  # header that allows to load and unload models

    def is_ready(self) -> bool:
        try:
            return _ask(self.address, "GET", "/v2/health/ready")[0] == http.client.OK
        except (http.client.HTTPException, OSError):
            return False

    def drain(self, seconds: float) -> bool:
        """Unloads every model that clients call, then the others; whether nothing was left to do in time."""
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
        """Whether they were gone in time, or with `or_idle` had nothing left to do."""
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
            raise http.client.HTTPException(f"the index of models: status {status}")
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
        """Whether the engines say that nothing runs or waits; not where there is no engine to ask."""
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
