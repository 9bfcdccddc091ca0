"""A real Prometheus that scrapes the simulated replicas, in step with simulated time.

Each sample on the page has its simulated time, so queries see the intervals that they would see in a cluster
and need no change. Simulated time goes on when Prometheus has taken a page. `--query.lookback-delta` is one
scrape and a bit: a pod that is gone leaves the queries as soon as it would by a staleness marker, which
Prometheus does not write for series that bring their own times.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import math
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from loadtest.ports import held_ports

SCRAPE_S: Final = 15.0  # simulated
REAL_SCRAPE: Final = "50ms"
WAIT_S: Final = 120.0
_MARK: Final = "rehearsal_seconds"


class PrometheusFault(Exception):
    """It did not start, did not scrape, or refused a query."""


class Pages:
    """Serves the page that was published last, on the loopback."""

    def __init__(self) -> None:
        pages = self
        self._text = b""

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = pages._text
                self.send_response(http.HTTPStatus.OK)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # A scrape that ran out of time has gone; Prometheus comes again.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Nothing: ten scrapes a second would fill the terminal."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def publish(self, text: str) -> None:
        self._text = text.encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    """`folder` takes its database and log; `epoch_s` is the Unix time of simulated second 0."""

    def __init__(self, program: Path, folder: Path, epoch_s: float) -> None:
        self._epoch_s = epoch_s
        self._pages = Pages()
        self._until_ready = contextlib.ExitStack()
        (port,) = self._until_ready.enter_context(held_ports(1))
        self._url = f"127.0.0.1:{port}"
        self._log = (folder / "prometheus.log").open("wb")
        (folder / "prometheus.yml").write_text(_config(self._pages.address))
        self._process = subprocess.Popen(
            [
                str(program),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={self._url}",
                f"--query.lookback-delta={SCRAPE_S + 3:.0f}s",
                # Else samples older than an hour are refused, as of another block.
                "--storage.tsdb.min-block-duration=24h",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def __enter__(self) -> Prometheus:
        with self._until_ready:
            self._until(self._is_ready, "did not become ready")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()
        self._pages.close()

    def take(self, text: str, at_s: float) -> None:
        """Returns when Prometheus has the page of this time and answers from it."""
        mark = f"{_MARK} {at_s} {round(self.unix(at_s) * 1000)}\n"
        self._pages.publish(text + mark)
        self._until(lambda: self.scalar(_MARK, at_s) == at_s, f"did not take the page of second {at_s:.0f}")

    def unix(self, at_s: float) -> float:
        return self._epoch_s + at_s

    def by_pod(self, query: str, at_s: float) -> dict[str, float]:
        """The value of each pod; pods without a finite one are left out."""
        found = {labels.get("pod", ""): value for labels, value in self.query(query, at_s)}
        return {pod: value for pod, value in found.items() if math.isfinite(value)}

    def scalar(self, query: str, at_s: float) -> float | None:
        """The sum of what the query gives, None if nothing finite."""
        found = [value for _, value in self.query(query, at_s) if math.isfinite(value)]
        return sum(found) if found else None

    def query(self, query: str, at_s: float) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of each series at a simulated time. Raises PrometheusFault."""
        asked = urllib.parse.urlencode({"query": query, "time": f"{self.unix(at_s):.3f}"})
        try:
            with urllib.request.urlopen(f"http://{self._url}/api/v1/query?{asked}", timeout=10) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError as refused:
            raise PrometheusFault(f"{query}: {refused.read().decode(errors='replace')}") from refused
        data = answer["data"]
        if data["resultType"] == "scalar":
            return [({}, float(data["result"][1]))]
        return [(one["metric"], float(one["value"][1])) for one in data["result"]]

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise PrometheusFault(f"prometheus ended at once; see {self._log.name}")
        try:
            with urllib.request.urlopen(f"http://{self._url}/-/ready", timeout=2):
                return True
        except OSError:
            return False

    def _until(self, condition: Any, problem: str) -> None:
        end = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > end:
                raise PrometheusFault(f"prometheus {problem} in {WAIT_S:.0f} s; see {self._log.name}")
            time.sleep(0.01)


def _config(target: str) -> str:
    return json.dumps(
        {
            "global": {"scrape_interval": REAL_SCRAPE, "scrape_timeout": REAL_SCRAPE},
            "scrape_configs": [
                {"job_name": "pods", "honor_labels": True, "static_configs": [{"targets": [target]}]}
            ],
        }
    )
