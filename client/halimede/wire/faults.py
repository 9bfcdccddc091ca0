"""Error texts of the server: `CODE: field: value, limit`, in an ensemble behind a prefix."""

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

_PREFIX = re.compile(r"(?:in ensemble '[^']*', )+")
_FORM = re.compile(
    rf"(?P<code>{'|'.join(ERRORS)}): (?:(?P<field>[\w.\[\]]+): (?P<value>.*?)(?:, (?P<limit>.*))?$)?",
    re.DOTALL,
)

_OF_TRITON = (  # its words for what a status code would tell, were there one
    (re.compile(r"Request for unknown model"), "NOT_FOUND"),
    (re.compile(r"Failed to process the request"), "INTERNAL"),  # a Python step raised
    (re.compile(r"Unable to parse"), "INVALID_ARG"),
    (re.compile(r"failed to parse the request JSON"), "INVALID_ARG"),
)
_UNKNOWN = re.compile(r"Request for unknown model: '(?P<model>[^']*)' (?P<problem>.*)", re.DOTALL)
_RESTRICTED = re.compile(
    r"This \w+ is restricted, expecting header '(?:triton-grpc-protocol-)?(?P<header>[^']*)'"
)
_UNLOADED = "has no available versions"


def server_error(text: str, code: str | None = None) -> ServerError:
    """The error that a text of the server tells.

    `code` is what the protocol said (one of ERRORS, or another name). The code in the text wins:
    Triton's own codes lack some of ours, DEADLINE_EXCEEDED among them, and it tells none at all when
    it refuses a streamed request before running it.
    """
    message = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    form = _FORM.match(message)
    unknown = _UNKNOWN.match(message)
    if unknown is not None:
        return _unknown(unknown["model"], unloaded=unknown["problem"].startswith(_UNLOADED))
    if restricted := _RESTRICTED.match(message):
        return PermissionDenied.of("header", restricted["header"], "must hold the server's key")
    if form is None:
        code = next((c for words, c in _OF_TRITON if words.match(message)), code)
        return ERRORS.get(code or "", ServerError)(message, code)
    kind = ERRORS[form["code"]]
    return kind(message, form["code"], form["field"], form["value"], form["limit"])


def _unknown(model: str, *, unloaded: bool) -> ServerError:
    if unloaded:
        return Unavailable.of("model", model, "is not loaded")
    return NotFound.of("model", model, "is not in the server's repository")
