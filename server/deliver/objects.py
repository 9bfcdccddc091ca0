"""A model repository in S3, what speaks like it, or Google Cloud Storage.

Credentials, region and endpoint come from the environment as the providers' own tools read them (AWS_…, also
a role of the service account; GOOGLE_…, or the metadata server).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from deliver.faults import BadInput, Fault, NoSuchRange, Temporary
from deliver.places import CHUNK, Stream, shown

if TYPE_CHECKING:
    from obstore.store import ObjectStore

# Its own attempts are for a hiccup; ours, which go on where it stopped, for the rest.
RETRIES = {"max_retries": 2, "retry_timeout": timedelta(seconds=20)}
# A store that sent the whole file, or has no more bytes; the library has no kind of its own for either.
_RANGE = re.compile(r"non-partial response|\b416\b")
TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Objects:
    url: str
    store: ObjectStore

    @classmethod
    def at(cls, url: str) -> Objects:
        try:
            from obstore.store import from_url  # noqa: PLC0415  an extra
        except ImportError as error:
            raise BadInput(f"{shown(url)}: needs obstore: pip install 'halimede[deliver]'") from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        # A whole file may take long; without a byte, the connection is given up.
        client = {"allow_http": endpoint.startswith("http://"), "read_timeout": TIMEOUT, "timeout": "1 day"}
        try:
            store = from_url(url, client_options=client, retry_config=RETRIES)  # type: ignore[call-overload]
        except Exception as error:  # its errors have no base that is told from a wrong argument's
            raise BadInput(f"{shown(url)}: {_first_line(error)}") from error
        return cls(shown(url), store)

    @contextmanager
    def open(self, path: str, offset: int) -> Iterator[Stream]:
        import obstore  # noqa: PLC0415  an extra

        where = f"{self.url.rstrip('/')}/{path}"
        with _told(where):
            options = {"range": {"offset": offset}} if offset else {}
            found = obstore.get(self.store, path, options=options)  # type: ignore[arg-type]
            blocks = iter(found.stream(min_chunk_size=CHUNK))
        size, version = found.meta["size"] - offset, found.meta["e_tag"] or ""
        yield Stream(offset, _chunks(blocks, where), size, version)


def _chunks(blocks: Iterator[object], where: str) -> Iterator[bytes]:
    with _told(where):
        for block in blocks:
            yield bytes(block)  # type: ignore[call-overload]


@contextmanager
def _told(where: str) -> Iterator[None]:
    from obstore import exceptions  # noqa: PLC0415  an extra

    try:
        yield
    except FileNotFoundError as error:
        raise Fault(f"{where}: not found: is this a sealed repository (python -m deliver seal)?") from error
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise Fault(f"{where}: forbidden: may this Pod read it?") from error
    except (exceptions.BaseError, OSError) as error:
        kind = NoSuchRange if _RANGE.search(str(error)) else Temporary
        raise kind(f"{where}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
