"""TLS: the CA to trust, and the client's certificate for servers that ask for one (mutual TLS)."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from halimede.errors import InvalidArgument

if TYPE_CHECKING:
    import grpc

__all__ = ["Tls"]

File = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files. `ca` holds the certificates to trust instead of the system's. `certificate` and its `key`,
    which must have no password, identify the client to a server that asks.

    Raises InvalidArgument for a file that cannot be read or has other contents, and for a certificate
    without a key or a key without a certificate.
    """

    ca: File | None = None
    certificate: File | None = None
    key: File | None = None

    def __post_init__(self) -> None:
        if (self.certificate is None) is not (self.key is None):
            given, missing = ("certificate", "key") if self.key is None else ("key", "certificate")
            raise InvalidArgument.of(missing, "none", f"must be given with {given}")
        self.context()

    def context(self) -> ssl.SSLContext:
        """The settings for HTTP. Making them also checks the files that gRPC will use."""
        try:
            found = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise _unusable("ca", self.ca, error) from error
        if self.certificate is not None:
            try:
                # Without this, OpenSSL would ask for the password of a key on the terminal.
                found.load_cert_chain(self.certificate, self.key, password=lambda: "")
            except (OSError, ValueError) as error:
                raise _unusable("certificate", f"{self.certificate} with {self.key}", error) from error
        return found

    def credentials(self) -> grpc.ChannelCredentials:
        """The settings for gRPC."""
        import grpc  # noqa: PLC0415  not needed for HTTP

        return grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))


def _content(file: File | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def _unusable(field: str, value: object, error: Exception) -> InvalidArgument:
    problem = getattr(error, "strerror", None) or str(error)
    return InvalidArgument.of(field, value, f"must be readable PEM ({problem})")
