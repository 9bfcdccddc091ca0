"""For the tests of a delivery: a small sealed repository, and a real web server with planted faults."""

from __future__ import annotations

import os
import re
import ssl
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from tests.paths import ROOT

DELIVER = ROOT / "server" / "deliver"
WEIGHTS = "small_engine/1/model.onnx.data"
CONTENT = {
    "small/config.pbtxt": b"name: 'small'\n",
    "small_engine/config.pbtxt": b"name: 'small_engine'\n",
    WEIGHTS: bytes(range(256)) * 2048,
    "small_engine/1/manifest.json": b'{"task": "chat"}\n',
    "small_tokenizer/config.pbtxt": b"name: 'small_tokenizer'\n",
    "other/config.pbtxt": "name: 'other' # ü\n".encode(),
    "other/2/model with space.txt": b"",
}
EMPTY = ("small/1", "small_tokenizer/1")


def repository(folder: Path, content: Mapping[str, bytes] = CONTENT, empty: tuple[str, ...] = EMPTY) -> Path:
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for path in empty:
        (folder / path).mkdir(parents=True, exist_ok=True)
    done = run("seal", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


def packed(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz" if archive.suffix == ".gz" else "w") as members:
        members.add(folder, ".")
    return archive


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file's content, None for a folder; files.json and what deliveries lock left out."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
        if path.name not in {"files.json", ".deliver.lock"}
    }


def same(source: Path, to: Path) -> bool:
    """Whether `to` has the files of `source` and passes `verify`."""
    return tree(source) == tree(to) and run("verify", str(to)).returncode == 0


def run(
    *arguments: str, env: Mapping[str, str] | None = None, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """The program as the Pod starts it: the folder, by an isolated Python."""
    return subprocess.run(
        [sys.executable, str(DELIVER), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_PROXY": "127.0.0.1", **(env or {})},
        preexec_fn=before,
    )


@dataclass
class Faults:
    """Planted in a web server; each number is used up by so many answers."""

    statuses: dict[str, list[int]] = field(default_factory=dict)  # by path
    cut: dict[str, list[int]] = field(default_factory=dict)  # bytes of the body, then the connection ends
    wrong: set[str] = field(default_factory=set)  # the first byte is another
    ranges: bool = True
    versions: bool = True  # headers that tell one content from another
    authorization: str | None = None
    moved: dict[str, str] = field(default_factory=dict)  # path: the URL that is redirected to
    asked: list[tuple[str, str | None, str | None]] = field(
        default_factory=list
    )  # path, Range, Authorization

    def status(self, file: Path, path: str, credentials: str | None) -> int | None:
        if self.authorization not in {None, credentials}:
            return 401
        if self.statuses.get(path):
            return self.statuses[path].pop(0)
        if path in self.moved:
            return 302
        return None if file.is_file() else 404


@contextmanager
def web(folder: Path, faults: Faults | None = None, certificate: Path | None = None) -> Iterator[str]:
    """The URL of a server of the folder; https:// with the folder of a `certificate`."""
    planted = faults or Faults()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).lstrip("/")
            wanted, credentials = self.headers.get("Range"), self.headers.get("Authorization")
            planted.asked.append((path, wanted, credentials))
            if status := planted.status(folder / path, path, credentials):
                self.fail(status, planted.moved.get(path, ""))
            else:
                self.give(path, int(re.findall(r"\d+", wanted)[0]) if wanted and planted.ranges else 0)

        def give(self, path: str, start: int) -> None:
            body = (folder / path).read_bytes()
            if path in planted.wrong:
                body = bytes([body[0] ^ 1]) + body[1:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - start))
            if planted.versions:  # as object stores do
                self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
                self.send_header("ETag", f'"{sha256(body).hexdigest()[:8]}"')
            self.send_header("Connection", "close")
            self.end_headers()
            cut = planted.cut[path].pop(0) if planted.cut.get(path) else None
            self.wfile.write(body[start:] if cut is None else body[start : start + cut])
            self.close_connection = True

        def fail(self, status: int, location: str) -> None:
            self.send_response(status)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it overrides
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificate:
            server.socket = _context(certificate).wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "tls.crt", certificate / "tls.key")
    return context
