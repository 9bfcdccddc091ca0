"""Errors of the engine: whose fault it is, and the status the edge answers with.

    EngineError
    ├── ClientFault
    │   ├── InvalidArgument     a field of the request is out of its limits
    │   ├── DeadlineExceeded    the request's own timeout ran out
    │   └── Cancelled           the client went away
    └── ServerFault
        ├── Unavailable         the bounded queue is full, or the server is stopping
        ├── ArtifactError       the engine on disk is missing, corrupt or of another version
        ├── SettingsError       a parameter of config.pbtxt is out of its limits
        └── InternalError       a step failed
            └── NotFinite       its logits mean nothing for this request

Every message reads `CODE: field: value, limit`; clients parse that form.
"""

from __future__ import annotations

import reprlib
from typing import ClassVar


class EngineError(Exception):
    """`status` is the name of the Triton status code that carries the error."""

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[str] = "INTERNAL"

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{self.code}: {field}: {problem}")
        self.field = field
        self.problem = problem


class ClientFault(EngineError):
    pass


class InvalidArgument(ClientFault):
    code = status = "INVALID_ARG"


class DeadlineExceeded(ClientFault):
    """Triton has no status of this name; it travels as CANCELLED, and the text keeps the code."""

    code = "DEADLINE_EXCEEDED"
    status = "CANCELLED"


class Cancelled(ClientFault):
    code = status = "CANCELLED"


class ServerFault(EngineError):
    pass


class Unavailable(ServerFault):
    code = status = "UNAVAILABLE"


class ArtifactError(ServerFault):
    pass


class SettingsError(ServerFault):
    code = status = "INVALID_ARG"


class InternalError(ServerFault):
    pass


class NotFinite(InternalError):
    def __init__(self) -> None:
        problem = "the model returned logits that are not finite; the request was ended"
        super().__init__("engine", problem)


def shown(value: object, limit: int = 40) -> str:
    """A value as an error message shows it: short, and printable whatever the client sent."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isprintable() and text else repr(text)
