"""A model repository on a web server: files.json and the files beside it; a proxy is found as usual."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote, urlsplit

from deliver.faults import Fault, NoSuchRange, Temporary
from deliver.places import CHUNK, Stream, shown

AUTHORIZATION = "DELIVER_AUTHORIZATION"
TIMEOUT_S = 30.0  # without a byte
_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
_WHY = {
    401: f"not authorised: set {AUTHORIZATION}",
    403: f"forbidden: may this Pod read it? {AUTHORIZATION} has its credentials",
    404: "not found: is this a sealed repository (python -m deliver seal)?",
}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, but takes credentials to no other host and nothing from https to http."""

    def redirect_request(  # the signature it overrides
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if before.scheme == "https" and after.scheme != "https":
            raise Fault(f"{shown(req.full_url)}: redirects to {shown(newurl)}, which is not https")
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            request.remove_header("Authorization")
        return request


@dataclass(frozen=True, slots=True)
class Web:
    url: str

    @contextmanager
    def open(self, path: str, offset: int) -> Iterator[Stream]:
        parts = urlsplit(self.url)
        url = parts._replace(path=f"{parts.path.rstrip('/')}/{quote(path)}").geturl()
        with _told(shown(url)):
            answer = urllib.request.build_opener(_Redirects).open(_request(url, offset), timeout=TIMEOUT_S)
        with answer:
            version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            yield Stream(_offset(answer, offset), _chunks(answer, shown(url)), answer.length, version)


def _request(url: str, offset: int) -> urllib.request.Request:
    headers = {"User-Agent": "halimede-deliver", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    if credentials := os.environ.get(AUTHORIZATION):
        headers["Authorization"] = credentials
    return urllib.request.Request(url, headers=headers)


def _offset(answer: http.client.HTTPResponse, wanted: int) -> int:
    """Where the answer begins: a server that knows no ranges sends everything."""
    if answer.status != http.client.PARTIAL_CONTENT:
        return 0
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if not found or int(found[1]) != wanted:
        raise Fault(f"asked for bytes from {wanted} on, got {answer.headers.get('Content-Range')!r}")
    return wanted


def _chunks(answer: http.client.HTTPResponse, url: str) -> Iterator[bytes]:
    left = answer.length  # None where the server does not say
    with _told(url):
        while chunk := answer.read(CHUNK):
            yield chunk
            left = None if left is None else left - len(chunk)
    if left:
        raise Temporary(f"{url}: ended {left} bytes too early")


@contextmanager
def _told(url: str) -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError as error:
        error.close()
        kind = NoSuchRange if error.code == 416 else Temporary if error.code in _TEMPORARY else Fault
        raise kind(f"{url}: {error.code}, {_WHY.get(error.code, error.reason)}") from error
    except (http.client.HTTPException, OSError) as error:
        raise Temporary(f"{url}: {getattr(error, 'reason', None) or error!r}") from error
