"""Between two runs: the wait until the server has nothing left to do."""

from __future__ import annotations

import time

import gevent
import httpx

from halimede.errors import ProtocolError
from halimede.wire.prometheus import parse_metrics
from loadtest.errors import BenchError
from loadtest.users.stopping import Stopping

# Without metrics there is nothing to see.
_BLIND_S = 5.0
_LIMIT_S = 180.0
# The engine tells its metrics twice a second: one look may be of the moment before.
_EVERY_S = 0.7
_LOOKS = 2
_TIMEOUT_S = 5.0
_GAUGES = ("halimede_num_requests_running", "halimede_num_requests_waiting")


def is_idle(text: str) -> bool:
    """Whether nothing runs and nothing waits in a server with these metrics. ProtocolError for other text."""
    metrics = parse_metrics(text)
    return not any(metrics.total(name) for name in _GAUGES)


def cool_down(url: str | None, stopping: Stopping) -> None:
    """Returns early when somebody wishes to stop. BenchError where the server stays busy, or is gone."""
    if url is None:
        gevent.sleep(_BLIND_S)
        return
    deadline, looks = time.monotonic() + _LIMIT_S, 0
    while looks < _LOOKS and not stopping.wishes:
        looks = looks + 1 if is_idle(_read(url)) else 0
        if time.monotonic() > deadline:
            raise BenchError(f"{url}: the server is still busy after {_LIMIT_S:.0f} s: who else uses it?")
        gevent.sleep(_EVERY_S)


def _read(url: str) -> str:
    try:
        return httpx.get(url, timeout=_TIMEOUT_S).raise_for_status().text
    except (httpx.HTTPError, httpx.InvalidURL, ProtocolError) as error:
        raise BenchError(f"{url}: the metrics cannot be read, give --metrics-url: {error}") from error
