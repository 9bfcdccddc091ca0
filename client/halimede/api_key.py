"""The API key that a server requires of its clients (`access.apiKey` in the chart)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Self

from halimede.errors import InvalidArgument
from halimede.target import Target

__all__ = ["DEFAULT_HEADER", "ApiKey", "checked_headers"]

DEFAULT_HEADER = "halimede-key"
_TRITONS_PREFIX = "triton-grpc-protocol-"  # Triton looks for keys in gRPC metadata with this prefix
_LONGEST = 4096
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_HIDDEN = "not shown"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key: `value` is sent in `header` with each request, and no text shows it. Errors name its `origin`.

    Raises InvalidArgument for a value that is empty, has a space at either end, or has characters other
    than printable ASCII.
    """

    value: str = field(repr=False)
    header: str = DEFAULT_HEADER
    origin: str = field(default="api_key", repr=False, compare=False)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.header):
            raise InvalidArgument.of("api_key_header", repr(self.header), "must be the name of a header")
        _check(self.origin, self.value)
        if not self.value:
            raise InvalidArgument.of(self.origin, "empty", "must hold the server's key")

    @classmethod
    def read(cls, file: str | PathLike[str], header: str = DEFAULT_HEADER) -> Self:
        """The key in a file of ASCII; line ends after the key are ignored.

        Raises InvalidArgument, which names the file, if it cannot be read or holds no key.
        """
        try:
            with open(file, "rb") as opened:  # noqa: PTH123  it takes any kind of path
                data = opened.read(2 * _LONGEST)
        except (OSError, ValueError) as error:
            problem = getattr(error, "strerror", None) or str(error)
            raise InvalidArgument.of("api_key_file", file, f"must be readable ({problem})") from error
        text = data.removeprefix(codecs.BOM_UTF8).decode("latin-1").rstrip("\r\n")
        return cls(text, header, origin=f"api_key_file {file}")

    def headers(self, target: Target) -> dict[str, str]:
        return {f"{_TRITONS_PREFIX if target.is_grpc else ''}{self.header}": self.value}


def checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """A copy of the headers. Raises InvalidArgument, without its value, for one that cannot be sent."""
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise InvalidArgument.of("headers", repr(name), "must be the name of a header")
        _check(f"headers[{name}]", value)
    return dict(headers)


def _check(origin: str, value: str) -> None:
    place = next((at for at, one in enumerate(value, 1) if not " " <= one <= "~"), None)
    if place is not None:
        raise InvalidArgument.of(origin, _HIDDEN, f"character {place} is not allowed in a header")
    if value != value.strip():
        raise InvalidArgument.of(origin, _HIDDEN, "must not begin or end with a space")
    if len(value) > _LONGEST:
        raise InvalidArgument.of(origin, _HIDDEN, f"must have at most {_LONGEST} characters")
