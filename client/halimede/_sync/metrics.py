# Made by client/unasync.py from halimede/_async: change that, then run it.
"""The server's metrics: over HTTP whatever protocol the requests take."""

from __future__ import annotations

import httpx

from halimede.http_faults import raises_our_errors, timeouts, verified_by
from halimede.target import without_password
from halimede.tls import Tls
from halimede.wire.rest import status_error

__all__ = ["fetch_metrics"]


def fetch_metrics(url: str, tls: Tls | None, timeout_s: float | None) -> str:
    http = httpx.Client(verify=verified_by(tls), timeout=timeouts(timeout_s))
    with raises_our_errors(without_password(url)), http:
        response = http.get(url)
    if response.status_code != 200:
        raise status_error(response.status_code, response.content)
    return response.text
