"""A receiver of Alertmanager's webhooks on the loopback address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, slots=True)
class Notice:
    """One alert of one notification."""

    name: str
    firing: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


class Webhook(ThreadingHTTPServer):
    """Keeps every notice, oldest first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        self.notices: list[Notice] = []

    def fired(self, name: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.name == name and notice.firing]

    def resolved(self, name: str) -> list[Notice]:
        return [notice for notice in self.notices if notice.name == name and not notice.firing]

    @property
    def names(self) -> frozenset[str]:
        """Of all that ever fired."""
        return frozenset(notice.name for notice in self.notices if notice.firing)


class _Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.notices.extend(map(_notice, content["alerts"]))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing: the notices are kept."""


def _notice(alert: Mapping[str, Any]) -> Notice:
    labels = alert["labels"]
    return Notice(labels["alertname"], alert["status"] == "firing", labels, alert["annotations"])


@contextmanager
def receiving() -> Iterator[Webhook]:
    with Webhook() as webhook:
        thread = threading.Thread(target=webhook.serve_forever, daemon=True)
        thread.start()
        yield webhook
        webhook.shutdown()
        thread.join()
