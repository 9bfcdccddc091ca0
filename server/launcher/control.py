"""What the launcher asks a running tritonserver over HTTP: whether it is ready, and to drain.

Triton 2.51 cannot be stopped by a signal alone: a client that went away just before SIGTERM keeps its
request in flight for good, and an idle keep-alive connection alone holds the exit up, both until the
exit timeout. While it serves, neither happens. So it is drained first: the models that clients call
are unloaded, which refuses new requests and lets running ones end, then the steps that they used.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Collection
from dataclasses import dataclass

ALIVE = ("LOADING", "READY", "UNLOADING")
POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Control:
    address: str  # host:port of its HTTP service; no proxy is ever asked

    def is_ready(self) -> bool:
        try:
            return self._ask("GET", "/v2/health/ready")[0] == http.client.OK
        except (http.client.HTTPException, OSError):
            return False

    def drain(self, models: Collection[str], seconds: float) -> bool:
        """Unloads `models`, then all others; whether nothing was left in time."""
        deadline = time.monotonic() + seconds
        try:
            return self._unload(models, deadline) and self._unload(self._alive(), deadline)
        except (http.client.HTTPException, OSError, ValueError):
            return False

    def _unload(self, models: Collection[str], deadline: float) -> bool:
        for model in models:
            self._ask("POST", f"/v2/repository/models/{model}/unload")
        while self._alive() & set(models):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _alive(self) -> set[str]:
        entries = json.loads(self._ask("POST", "/v2/repository/index")[1])
        return {entry["name"] for entry in entries if entry.get("state") in ALIVE}

    def _ask(self, method: str, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=5)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()
