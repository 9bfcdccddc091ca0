"""The server's error texts as errors: `CODE: field: value, limit`, with a prefix from an ensemble."""

from __future__ import annotations

import re

from halimede.errors import (
    Cancelled,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ServerError,
    Unavailable,
    Unsupported,
)

__all__ = ["ERRORS", "server_error"]

ERRORS: dict[str, type[ServerError]] = {
    kind.CODE: kind
    for kind in (
        InvalidArgument,
        NotFound,
        PermissionDenied,
        Unsupported,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Internal,
    )
}

_PREFIX = re.compile(r"\A(?:in ensemble '[^']*', )+")
_FORM = re.compile(
    rf"(?P<code>{'|'.join(ERRORS)}): (?:(?P<field>[\w.\[\]]+): (?P<value>.*?)(?:, (?P<limit>.*))?$)?",
    re.DOTALL,
)

_TRITON_TEXTS = (  # Triton sends these without a code
    (re.compile(r"Request for unknown model"), "NOT_FOUND"),
    (re.compile(r"Failed to process the request"), "INTERNAL"),  # a Python step raised
    (re.compile(r"Unable to parse"), "INVALID_ARG"),
    (re.compile(r"failed to parse the request JSON"), "INVALID_ARG"),
)
_UNKNOWN = re.compile(r"Request for unknown model: '(?P<model>[^']*)' (?P<problem>.*)", re.DOTALL)
_RESTRICTED = re.compile(
    r"This \w+ is restricted, expecting header '(?:triton-grpc-protocol-)?(?P<header>[^']*)'"
)


def server_error(text: str, code: str | None = None) -> ServerError:
    """The error that an error text of the server stands for.

    `code` is the code of the protocol: one of ERRORS, or another name. A code in the text wins, because
    Triton's own codes lack some of ours, such as DEADLINE_EXCEEDED, and Triton sends no code when it
    refuses a streamed request before it runs.
    """
    message = _PREFIX.sub("", text)
    if unknown := _UNKNOWN.match(message):
        if unknown["problem"].startswith("has no available versions"):
            return Unavailable.of("model", unknown["model"], "is not loaded")
        return NotFound.of("model", unknown["model"], "is not in the server's repository")
    if restricted := _RESTRICTED.match(message):
        return PermissionDenied.of("header", restricted["header"], "must hold the server's key")
    if form := _FORM.match(message):
        kind = ERRORS[form["code"]]
        return kind(message, form["code"], form["field"], form["value"], form["limit"])
    code = next((c for words, c in _TRITON_TEXTS if words.match(message)), code)
    return ERRORS.get(code or "", ServerError)(message, code)
