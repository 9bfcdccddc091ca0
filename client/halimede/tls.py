"""TLS: whom to trust, and who we are where the server asks (mutual TLS)."""

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
    """Files in PEM. `ca` has the certificates to trust in place of the system's; `certificate` and its `key`,
    which has no password, are shown to a server that asks for them.

    Raises InvalidArgument for a file that cannot be read or is none of these, and for one of the two alone.
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
        """For HTTP; for gRPC it is what tells that the files are right."""
        try:
            found = ssl.create_default_context(cafile=self.ca)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            raise _unusable("ca", self.ca, error) from error
        if self.certificate is not None:
            try:
                # A key with a password would be asked for on the terminal.
                found.load_cert_chain(self.certificate, self.key, password=lambda: "")
            except (OSError, ValueError) as error:
                raise _unusable("certificate", f"{self.certificate} with {self.key}", error) from error
        return found

    def credentials(self) -> grpc.ChannelCredentials:
        """For gRPC."""
        import grpc  # noqa: PLC0415  HTTP needs none

        return grpc.ssl_channel_credentials(_content(self.ca), _content(self.key), _content(self.certificate))


def _content(file: File | None) -> bytes | None:
    return None if file is None else Path(file).read_bytes()


def _unusable(field: str, value: object, error: Exception) -> InvalidArgument:
    problem = getattr(error, "strerror", None) or str(error)
    return InvalidArgument.of(field, value, f"must be readable PEM ({problem})")
