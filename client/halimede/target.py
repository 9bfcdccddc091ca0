"""The address of a server: `localhost:8001`, `grpc://…`, `grpcs://…`, `http://…` or `https://…`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from halimede.errors import InvalidArgument

__all__ = ["DEFAULT_URL", "Target", "parse_target", "without_password"]

DEFAULT_URL = "localhost:8001"
METRICS_PORT = 8002
_PORTS = {"grpc": 8001, "grpcs": 443, "http": 8000, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    scheme: str
    host: str
    port: int
    path: str = ""

    @property
    def is_grpc(self) -> bool:
        return self.scheme in ("grpc", "grpcs")

    @property
    def is_secure(self) -> bool:
        return self.scheme in ("grpcs", "https")

    @property
    def is_this_machine(self) -> bool:
        """Whether the host is this machine, judged by its name alone."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def address(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def metrics_url(self) -> str:
        """The URL of the metrics, which Triton serves over plain HTTP on a port of their own.

        That port is assumed as far from this one as Triton's defaults are. With TLS, where a proxy's
        port says nothing about Triton's, the default itself is assumed.
        """
        offset = METRICS_PORT - _PORTS[self.scheme]
        port = METRICS_PORT if self.is_secure else self.port + offset
        return f"http://{Target('http', self.host, port).address}/metrics"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.address}{self.path}"


def without_password(url: str) -> str:
    """The URL without its user name and password, fit to be shown."""
    return re.sub(r"^([a-z]+://)?[^/?#]*@", r"\1", url, flags=re.IGNORECASE)


def parse_target(url: str) -> Target:
    """The target of a URL. The default scheme is grpc, the default port Triton's.

    Raises InvalidArgument for a URL of another form, or with a user name or password.
    """
    if (shown := without_password(url)) != url:
        raise InvalidArgument.of("url", shown, "must not contain a user name or password")
    try:
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
        host, port = parts.hostname, parts.port
        url.encode()
    except ValueError as error:
        raise InvalidArgument.of("url", url, str(error)) from error
    if parts.scheme not in _PORTS:
        raise InvalidArgument.of("url", url, f"must start with one of {', '.join(_PORTS)}")
    if not host:
        raise InvalidArgument.of("url", url, "must name a host")
    if parts.scheme.startswith("grpc") and parts.path.strip("/"):
        raise InvalidArgument.of("url", url, "must have no path over gRPC")
    return Target(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))
