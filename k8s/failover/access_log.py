"""The balancers' access logs: which servers each request was sent to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from k8s.failover.ledger import Served


def served(lines: Iterable[str]) -> Mapping[str, list[Served]]:
    """By request id, in the order of the log. Lines of others (probes) are skipped.

    Raises ValueError for a line that is not JSON.
    """
    found: dict[str, list[Served]] = {}
    for line in lines:
        entry = json.loads(line)
        if entry.get("attempt"):
            found.setdefault(entry["attempt"], []).append(_served(entry))
    return found


def _served(entry: Mapping[str, Any]) -> Served:
    """nginx names every server it asked, Envoy the last and how often it tried."""
    upstreams = tuple(entry["upstream"].split(", ")) if entry.get("upstream") else ()
    return Served(upstreams, int(entry.get("tries") or max(1, len(upstreams))))
