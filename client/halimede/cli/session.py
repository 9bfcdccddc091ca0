"""What every command shares: where the server is, and how the answer is shown."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from halimede.target import DEFAULT_URL
from halimede.tls import Tls

if TYPE_CHECKING:
    from halimede._sync.client import Client

__all__ = ["Session", "Tools"]


def _connect(session: Session) -> Client:
    from halimede._sync.client import Client  # noqa: PLC0415 - --help needs no client

    return Client(
        session.url,
        model=session.model,
        timeout=session.timeout,
        metrics_url=session.metrics_url,
        tls=session.tls,
    )


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@dataclass(frozen=True, slots=True)
class Tools:
    """What tests replace: the client, the prompt, and whether somebody sits there."""

    connect: Callable[[Session], Client] = _connect
    read_line: Callable[[str], str] = input
    is_interactive: Callable[[], bool] = _on_terminal


@dataclass(frozen=True, slots=True)
class Session:
    """The global options, as the user gave them. timeout is in seconds."""

    url: str = DEFAULT_URL
    model: str = "smollm2"
    timeout: float = 120.0
    json: bool = False
    metrics_url: str | None = None
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tools: Tools = field(default_factory=Tools)

    @property
    def tls(self) -> Tls | None:
        """None where no file of it is named. Raises InvalidArgument."""
        files = self.tls_ca, self.tls_certificate, self.tls_key
        return Tls(*files) if any(files) else None

    def client(self) -> Client:
        return self.tools.connect(self)
