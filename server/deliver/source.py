"""Where models come from: a folder, a web server or an object store, all read by obstore.

Credentials, region and endpoint of S3 and Google Cloud Storage come from the same environment variables as
for the providers' own tools, proxies and certificates from HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE. A
redirect sends no credentials to another host, and none leads from https to http.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, NotSupportedError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, from_url

from deliver.faults import BadInput, Fault, NoSuchRange, Temporary

if TYPE_CHECKING:  # these exist only for type checkers
    from obstore import BytesStream
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

AUTHORIZATION = "DELIVER_AUTHORIZATION"
ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
# A store sent the whole file, or has no more bytes. The library has an error type only for web servers.
_RANGE = re.compile(r"non-partial response|status code: 416|Requested range was invalid")
_REFUSED = re.compile(r"status code: 4(?!08|25|29)\d\d")
_CAUSE = re.compile(
    r'(?:message|error): "([^"]*)"|InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)'
)
_NOT_FOUND = "not found: is this a sealed repository? python -m deliver seal makes one"
_FORBIDDEN = f"forbidden: may this Pod read it? {AUTHORIZATION} has the credentials for http(s)://"


@dataclass(frozen=True, slots=True)
class Transfer:
    """The rest of a file, `size` bytes. Files with the same `version` have the same content; it is empty if
    the source gives none.
    """

    chunks: Iterator[bytes]
    size: int
    version: str


class Source:
    def __init__(self, url: str) -> None:
        """Opens a URL or the path of a folder. Raises BadInput for an unknown scheme."""
        scheme = urlsplit(url).scheme
        if scheme not in {"", "file", "http", "https", "s3", "gs"}:
            raise BadInput(f"{shown(url)}: must begin with file://, http://, https://, s3:// or gs://")
        self._shown = shown(url).rstrip("/")
        # `fetch` counts attempts and resumes after each, for every kind of source.
        retries: RetryConfig = {"max_retries": 0}
        try:
            if scheme in {"", "file"}:
                self._store: ObjectStore = LocalStore(unquote(urlsplit(url).path) if scheme else url)
            else:
                self._store = from_url(url, client_options=_client(scheme), retry_config=retries)
        except (BaseError, ValueError) as error:
            kind, problem = (Fault, _NOT_FOUND) if scheme in {"", "file"} else (BadInput, _told(error))
            raise kind(f"{self._shown}: {problem}") from error

    def open(self, path: str, offset: int) -> Transfer:
        """The file at `path` from `offset` on. Raises, also during the download, Temporary if the next
        attempt may succeed, NoSuchRange if only the whole file can be fetched, otherwise Fault.
        """
        where = f"{self._shown}/{path}"
        try:
            found = obstore.get(self._store, path, options={"range": {"offset": offset}} if offset else {})
        except FileNotFoundError as error:
            raise Fault(f"{where}: {_NOT_FOUND}") from error
        except UnauthenticatedError as error:
            raise Fault(f"{where}: not authorised: set {AUTHORIZATION}") from error
        except PermissionDeniedError as error:
            raise Fault(f"{where}: {_FORBIDDEN}") from error
        except NotSupportedError as error:
            raise NoSuchRange(f"{where}: {_told(error)}") from error
        except (BaseError, OSError) as error:
            problem = str(error)
            fault = (
                NoSuchRange if _RANGE.search(problem) else Fault if _REFUSED.search(problem) else Temporary
            )
            raise fault(f"{where}: {_told(error)}") from error
        size, modified = found.meta["size"] - offset, found.meta["last_modified"]
        version = found.meta["e_tag"] or (str(modified) if modified.timestamp() else "")
        # Chunks of at least 1 byte: what the library has collected is lost when the connection breaks.
        return Transfer(_chunks(found.stream(min_chunk_size=1), size, where), size, version)


def _client(scheme: str) -> ClientConfig:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    client: ClientConfig = {
        "allow_http": scheme == "http" or (scheme == "s3" and endpoint.startswith("http:")),
        # A whole file may take long, but a connection without a byte for this long is given up.
        "read_timeout": "30 seconds",
        "timeout": "1 day",
        "user_agent": "halimede-deliver",
    }
    credentials = os.environ.get(AUTHORIZATION, "").strip()  # a file's last line ends in a newline
    if credentials and scheme in {"http", "https"}:
        client["default_headers"] = {"Authorization": credentials}
    return client


def _chunks(blocks: BytesStream, left: int, where: str) -> Iterator[bytes]:
    try:
        for block in blocks:
            left -= len(block)
            yield bytes(block)
    except (BaseError, OSError) as error:
        raise Temporary(f"{where}: ended {left} bytes too early") from error


def shown(url: str) -> str:
    """The URL without what may be secret: a user's name and password, the query of a signed URL."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _told(error: Exception) -> str:
    """The library's error in one line, without the URL, which may be signed. Its message is a tree of
    causes.
    """
    line, _, tree = str(error).partition("\n")
    cause = _CAUSE.search(tree)
    return line.rpartition(" - ")[2][:300] + (f" ({cause[1] or cause[2]})" if cause else "")


def is_archive(url: str) -> bool:
    return urlsplit(url).path.endswith(ARCHIVES)


def split_archive(url: str) -> tuple[str, str]:
    """The URL of the folder an archive is in, and the archive's name."""
    parts = urlsplit(url)
    folder, _, name = parts.path.rpartition("/")
    return parts._replace(path=folder).geturl(), unquote(name) if parts.scheme in {"http", "https"} else name
