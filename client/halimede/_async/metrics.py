"""The server's metrics: over HTTP whatever protocol the requests take."""

from __future__ import annotations

import httpx

from halimede.http_faults import raises_our_errors, timeouts, verified_by
from halimede.target import without_password
from halimede.tls import Tls
from halimede.wire.rest import status_error

__all__ = ["fetch_metrics"]


async def fetch_metrics(url: str, tls: Tls | None, timeout_s: float | None) -> str:
    http = httpx.AsyncClient(verify=verified_by(tls), timeout=timeouts(timeout_s))
    with raises_our_errors(without_password(url)):
        async with http:
            response = await http.get(url)
    if response.status_code != 200:
        raise status_error(response.status_code, response.content)
    return response.text
