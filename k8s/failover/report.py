"""The accounts as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from k8s.failover.ledger import Account

COLUMNS: Final = (
    ("sent", "sent"),
    ("completed", "done"),
    ("moved", "moved"),
    ("retried", "retried"),
    ("on_victim", "on victim"),
    ("on_victim_streaming", "past 1st token"),
    ("failed_after_first", "failed there"),
    ("failed_otherwise", "failed else"),
)


@dataclass(frozen=True, slots=True)
class Row:
    balancer: str
    scenario: str
    protocol: str
    account: Account
    seconds: float


def passed(rows: Sequence[Row]) -> bool:
    """Whether nothing failed but streams past their first token on a server that was killed."""
    return all(row.account.failed_otherwise == 0 and row.account.completed for row in rows)


def table(rows: Sequence[Row]) -> str:
    head = ["balancer", "what happens", "over", *(title for _, title in COLUMNS)]
    body = [[row.balancer, row.scenario, row.protocol, *_cells(row.account)] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in [head, *body])


def failures(rows: Sequence[Row]) -> str:
    """What attempts failed with, made good or not; "" if none did."""
    lines = [
        f"  {count} x {row.balancer}, {row.scenario}, {row.protocol}: {error}"
        for row in rows
        for error, count in row.account.errors.items()
    ]
    return "\n".join(["attempts that failed, those made good included:", *lines] if lines else [])


def as_json(rows: Sequence[Row], counters: Mapping[str, Mapping[str, int]], restarts: int) -> dict[str, Any]:
    """`counters` are the balancers' own; `restarts` counts servers that had to be started twice."""
    return {
        "passed": passed(rows),
        "plays": [{**asdict(row), "account": _plain(row.account)} for row in rows],
        "restarts": restarts,
        "counters": {name: dict(found) for name, found in counters.items()},
    }


def _plain(account: Account) -> dict[str, Any]:
    return {**asdict(account), "errors": dict(account.errors)}


def _cells(account: Account) -> list[str]:
    return [str(getattr(account, name)) for name, _ in COLUMNS]
