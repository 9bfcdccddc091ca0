"""Requests to a hub through huggingface_hub, with a limit of time and errors of one line."""

from __future__ import annotations

import functools
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from huggingface_hub import constants, get_session, is_offline_mode, set_client_factory
from huggingface_hub.errors import (
    EntryNotFoundError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from build.errors import BadInput, BuildError, HubUnreachable

Hook = Callable[[Any], object]

PATIENCE_S = 60.0
_TRIED_AGAIN = (408, 429, 500, 502, 503, 504)
_OUTER = (LocalEntryNotFoundError, RevisionResolutionError)


@dataclass(frozen=True)
class Source:
    """A repository, and the branch, tag or commit that was asked for."""

    name: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name

    @property
    def folder(self) -> str:
        return self.name.rpartition("/")[2]

    def command(self, *files: str) -> str:
        """Fetches these files, or all, into a folder."""
        revision = ["--revision", self.revision] if self.revision else []
        return " ".join(["hf download", self.name, *files, *revision, "--local-dir", self.folder])


class _AsksToWait(Exception):
    def __init__(self, status: int, seconds: float) -> None:
        self.status, self.seconds = status, seconds


class Patience:
    """How long an address that refuses is tried again; times are seconds of any clock."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def lasts(self, address: str, now: float, asked: float) -> bool:
        """Whether there is time for one more try, which the address asks to delay by so many seconds."""
        return now + asked - self._since.setdefault(address, now) <= PATIENCE_S

    def answered(self, address: str) -> None:
        self._since.pop(address, None)


@functools.cache
def limit_waits() -> None:
    """Limits requests: in huggingface_hub some have no timeout, and it obeys any Retry-After."""
    timeout = float(max(constants.HF_HUB_DOWNLOAD_TIMEOUT, constants.HF_HUB_ETAG_TIMEOUT))
    patience = Patience()

    def in_time(request: Any) -> None:
        limits = request.extensions["timeout"]
        request.extensions["timeout"] = {
            kind: min(limit or timeout, timeout) for kind, limit in limits.items()
        }

    def in_patience(response: Any) -> None:
        address, asked = str(response.request.url), asked_wait(response.headers)
        if response.status_code not in _TRIED_AGAIN:
            patience.answered(address)
        elif not patience.lasts(address, time.monotonic(), asked):
            raise _AsksToWait(response.status_code, asked)

    made = get_session()
    requests, responses = made.event_hooks["request"], made.event_hooks["response"]
    hooks: dict[str, list[Hook]] = {"request": [*requests, in_time], "response": [*responses, in_patience]}
    set_client_factory(lambda: type(made)(event_hooks=hooks, follow_redirects=True, timeout=None))


def asked_wait(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks to wait, as huggingface_hub reads it."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = headers.get("retry-after", "").strip()
    return float(after) if after.isdigit() else 0.0


@contextmanager
def explained(source: Source) -> Iterator[None]:
    """BadInput if the name, the repository, the account or the settings are wrong.

    HubUnreachable if a server failed, BuildError if it asks to wait or the cache cannot be written.
    """
    _say_little()
    try:
        yield
    except BuildError:
        raise
    except Exception as error:  # the transport's errors have changed their base across versions
        raise _problem(source, error) from error


@functools.cache
def _say_little() -> None:
    """Keeps one warning of huggingface_hub, that a commit is the cache's; the others repeat each retry."""
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    commits = logging.getLogger("huggingface_hub.hf_api")
    commits.setLevel(logging.WARNING)
    commits.addFilter(lambda record: "Using cached commit" in record.getMessage())


def offline(source: Source, what: str, folder: str | None = None) -> BadInput:
    variable = "HF_HUB_OFFLINE" if os.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    other = folder or f"`{source.command()}` makes one where the hub can be reached"
    return BadInput(
        f"{source}: {variable} is set, and the cache {constants.HF_HUB_CACHE} {what}: unset it, or give a"
        f" folder as --source: {other}"
    )


def _problem(source: Source, error: Exception) -> BuildError:
    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, _AsksToWait):
            return _busy(source, cause.status, cause.seconds)
        if isinstance(cause, HfHubHTTPError):
            return _refusal(source, cause)
    if is_offline_mode():
        return offline(source, "holds nothing of it")
    if isinstance(error, HFValidationError):
        return BadInput(f"{source}: no name that a repository can have: {_line(error)}")
    if isinstance(error, OSError) and error.errno is not None:
        return BuildError(
            f"{source}: the cache {constants.HF_HUB_CACHE} cannot be written ({error.strerror}): free some"
            " space there, or set HF_HOME to another folder"
        )
    return _no_answer(source, causes)


def _causes(error: BaseException) -> list[BaseException]:
    return [error, *(_causes(error.__cause__) if error.__cause__ else [])]


def _refusal(source: Source, error: HfHubHTTPError) -> BuildError:
    """The error for an answer that is neither a list nor a file."""
    status, address = error.response.status_code, str(error.response.url)
    said = f"{status}: {_line(error.server_message)}" if error.server_message else str(status)
    if status == 429:
        return _busy(source, status, asked_wait(error.response.headers))
    if "/xet-read-token/" in address:
        return _without_xet(source, said)
    if status == 408 or status >= 500 or _host(address) != _host(constants.ENDPOINT):
        return _elsewhere(source, f"{_host(address)} answers {said}")
    return BadInput(f"{source}: {_fault(source, error, said)}")


def _fault(source: Source, error: HfHubHTTPError, said: str) -> str:
    """What is wrong with the name or the account, and what to do."""
    status, token = error.response.status_code, _token(error.response.request.headers)
    page = re.sub("//[^/@]+@", "//", f"{constants.ENDPOINT}/{source.name}")  # without a password
    if isinstance(error, GatedRepoError):
        reader = f"{token} may not read it ({said})" if token else "and needs HF_TOKEN"
        return f"is gated, {reader}: accept its terms at {page}"
    if isinstance(error, RevisionNotFoundError):
        return f"no such branch, tag or commit: choose one at {page}/tree/main"
    if isinstance(error, EntryNotFoundError):
        file = error.response.url.path.partition("/resolve/")[2].partition("/")[2]
        return f"the hub lists {file} and does not have it: choose another revision"
    if status == 401 and token:
        return f"the hub does not accept {token} ({said}): renew it, or unset it for a public repository"
    if status in (401, 404):
        hidden = f"hidden from {token}" if token else "private (then set HF_TOKEN)"
        return f"no folder here, and not on the hub, or {hidden}: check the name"
    return f"the hub refuses ({said}): {f'check what {token} may read' if token else 'set HF_TOKEN'}"


def _token(headers: Mapping[str, str]) -> str | None:
    """The token that a request carried, in words."""
    if "authorization" not in headers:
        return None
    return "the token of HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of `hf auth login`"


def _busy(source: Source, status: int, seconds: float) -> BuildError:
    wait = f"asks to wait {seconds:.0f} s" if seconds else "keeps refusing"
    more = " (it answers more often with HF_TOKEN)" if status == 429 else ""
    return BuildError(f"{source}: the hub answers {status} and {wait}: build again later{more}")


def _no_answer(source: Source, causes: list[BaseException]) -> BuildError:
    """The error for no answer: the outermost that is not huggingface_hub's own is the transport's."""
    cause = next((cause for cause in causes if not isinstance(cause, _OUTER)), causes[0])
    what, address = f"{type(cause).__name__}: {_line(cause)}", constants.ENDPOINT
    if isinstance(cause, (FileMetadataError, json.JSONDecodeError)):
        return BadInput(
            f"{source}: {_host(address)} does not answer as a hub does: check HF_ENDPOINT and the proxy"
        )
    if isinstance(cause, UnicodeEncodeError):
        return BadInput(f"{source}: HF_TOKEN is no token, which has ASCII characters alone: set it again")
    if isinstance(cause, RuntimeError):
        return _without_xet(source, _line(cause))
    with suppress(AttributeError, RuntimeError):  # not the transport's, or of no request
        address = str(cause.request.url)  # type: ignore[attr-defined]
    hint = ": set SSL_CERT_FILE to the authority's certificates" if "CERTIFICATE_VERIFY" in what else ""
    reached = f"the hub cannot be reached at {_host(address)}{_proxy(address)} ({what}){hint}"
    return _elsewhere(source, reached)


def _without_xet(source: Source, what: str) -> BuildError:
    return BuildError(f"{source}: Xet fails ({what}): set HF_HUB_DISABLE_XET=1 to fetch files without it")


def _elsewhere(source: Source, problem: str) -> HubUnreachable:
    return HubUnreachable(
        f"{source}: {problem}: try again, or run `{source.command()}` where it can be reached, and bring that"
        " folder here"
    )


def _proxy(address: str) -> str:
    """The variable that sends requests to an address through a proxy, whose own may hold a password."""
    scheme, proxies = urlsplit(address).scheme, getproxies()
    kind = next((kind for kind in (scheme, "all") if kind in proxies), None)
    return f" through {kind.upper()}_PROXY" if kind and not proxy_bypass(_host(address)) else ""


def _host(address: str) -> str:
    return urlsplit(address).netloc.rpartition("@")[2]


def _line(text: object) -> str:
    return " ".join(str(text).split())[:200]
