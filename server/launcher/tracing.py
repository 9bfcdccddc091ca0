"""Traces over OTLP/HTTP: Triton's flags, and the engine's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from launcher import Refusal

TRACE_URL = "HALIMEDE_TRACE_URL"
SERVICE = "halimede"
EXAMPLE = "such as http://localhost:4318/v1/traces"
# The largest number that Triton's own parser accepts.
LARGEST_RATE = 2**31 - 1
BATCH_DELAY_MS = 1000


@dataclass(frozen=True, slots=True)
class Tracing:
    """The URL to which spans go, None for no tracing; one request in `rate` begins a trace."""

    url: str | None = None
    rate: int = 1

    def check(self) -> None:
        """Raises Refusal for a rate out of its limits, and for a URL that cannot be a collector's."""
        if not 1 <= self.rate <= LARGEST_RATE:
            raise Refusal(
                f"--trace-sample-rate {self.rate}: must be in [1, {LARGEST_RATE}]; 100 traces one in 100"
            )
        if self.url is not None and (problem := _problem(self.url)):
            raise Refusal(f"--trace-url {self.url!r}: {problem}, must be a URL {EXAMPLE}")

    @property
    def flags(self) -> list[str]:
        if self.url is None:
            return []
        settings = {
            "mode": "opentelemetry",
            "level": "TIMESTAMPS",
            "rate": self.rate,
            "opentelemetry,url": self.url,
            "opentelemetry,resource": f"service.name={SERVICE}",
            "opentelemetry,bsp_schedule_delay": BATCH_DELAY_MS,
        }
        return [f"--trace-config={name}={value}" for name, value in settings.items()]

    @property
    def environment(self) -> Mapping[str, str]:
        return {} if self.url is None else {TRACE_URL: self.url}


def _problem(url: str) -> str | None:
    """Triton would start with any of these, and send nothing."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if not url.isascii() or any(letter <= " " or letter in ',"\\\x7f' for letter in url):
        return "holds a space, a comma, a quote or a letter beyond ASCII"
    if parts.scheme not in ("http", "https"):
        return f"has the scheme {parts.scheme!r}"
    if not parts.hostname or port == 0:
        return "names no host" if not parts.hostname else "names port 0"
    if parts.username is not None:
        return "holds a user, and would be logged"
    return None if parts.path.strip("/") else "names no path"
