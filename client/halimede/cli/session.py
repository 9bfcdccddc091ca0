"""The connection options of a command, and the client that they make."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from halimede.api_key import DEFAULT_HEADER, ApiKey
from halimede.cli.input import Lines
from halimede.cli.output import warn
from halimede.errors import InvalidArgument
from halimede.target import DEFAULT_URL, parse_target
from halimede.timeouts import KEEPALIVE_S
from halimede.tls import Tls

if TYPE_CHECKING:
    from halimede._sync.client import Client

__all__ = ["Session", "Tools"]

_KEYS = frozenset({"api_key", "api_key_file"})


def _connect(session: Session) -> Client:
    from halimede._sync.client import Client  # noqa: PLC0415 - --help needs no client

    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its log would mix with our messages
    return Client(
        session.url,
        model=session.model,
        timeout=session.timeout,
        metrics_url=session.metrics_url,
        tls=session.tls,
        api_key=session.key,
        keepalive=session.keepalive,
    )


def _on_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


@dataclass(frozen=True, slots=True)
class Tools:
    """What tests replace: the client, the input, and whether a user sits at a terminal."""

    connect: Callable[[Session], Client] = _connect
    read_line: Callable[[str], str] = field(default_factory=Lines)
    is_interactive: Callable[[], bool] = _on_terminal


@dataclass(frozen=True, slots=True)
class Session:
    """The connection options, as the user gave them. timeout and keepalive are in seconds."""

    url: str = DEFAULT_URL
    model: str = "smollm2"
    timeout: float = 120.0
    json: bool = False
    metrics_url: str | None = None
    keepalive: float = KEEPALIVE_S
    api_key_file: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_key_header: str = DEFAULT_HEADER
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    tools: Tools = field(default_factory=Tools)

    @property
    def tls(self) -> Tls | None:
        """The TLS files, or None if no option names one. Raises InvalidArgument."""
        files = self.tls_ca, self.tls_certificate, self.tls_key
        return Tls(*files) if any(files) else None

    @property
    def key(self) -> ApiKey | None:
        """The API key, or None. Raises InvalidArgument, which does not show the key."""
        if self.api_key is not None and self.api_key_file is not None:
            problem = "cannot be combined with --api-key or HALIMEDE_API_KEY"
            raise InvalidArgument.of("api_key_file", self.api_key_file, problem)
        if self.api_key_file is not None:
            return ApiKey.read(self.api_key_file, self.api_key_header)
        if self.api_key is not None:
            return ApiKey(self.api_key, self.api_key_header, origin="--api-key or HALIMEDE_API_KEY")
        return None

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """A copy with these options. A key replaces the key of the session, be it in a file or not."""
        fewer = dict.fromkeys(_KEYS) if options.keys() & _KEYS else {}
        return replace(self, **{**fewer, **options})

    def client(self) -> Client:
        target = parse_target(self.url)
        has_key = self.api_key is not None or self.api_key_file is not None
        if has_key and not (target.is_secure or target.is_this_machine):
            warn(f"the API key is sent to {target.address} unencrypted; grpcs:// and https:// encrypt it")
        return self.tools.connect(self)
