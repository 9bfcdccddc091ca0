"""A local server with the HTTP API of the Hugging Face hub, and a second one where it keeps large files.

As the real hub does, it gives a small file itself and redirects to another host for a large one, with the
facts about the file in the redirection (huggingface_hub: hf_api.py, file_download.py, utils/_http.py).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import SSLContext
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.paths import PYTHONPATH

READER, GRANTED = "hf_reader", "hf_granted"  # tokens; the second one's account has accepted the terms
PAGE = 5  # entries of a list's page; the real hub has 1000


@dataclass(frozen=True)
class Asked:
    host: str  # "hub" or "cdn"
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Fault:
    """What answers to matching requests become, so many times (for ever if None)."""

    path: str  # of which a part matches
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    after: int = 0  # so many requests that match go well before
    cut: int | None = None  # the body ends after so many bytes, then the connection does
    mute: bool = False  # no answer until the server stops
    body: bytes = b""


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """A branch's next commit."""
        number = f"{len(self.commits)} {sorted((name, _oid(data)) for name, data in files.items())}"
        made = sha1(number.encode()).hexdigest()
        self.commits[made] = dict(files)
        self.refs[branch] = made
        return made


@dataclass
class Hub:
    address: str = ""
    cdn: str = ""
    xet: bool = False  # large files are announced as chunks of Xet, as the real hub does
    repositories: dict[str, Repository] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, files: Mapping[str, bytes], private: bool = False, gated: bool = False) -> str:
        """A repository's first commit."""
        self.repositories[name] = Repository(private, gated)
        return self.repositories[name].commit(files)

    def requests(self, path: str, host: str = "hub", method: str = "GET") -> list[Asked]:
        return [a for a in self.asked if a.host == host and a.method == method and re.search(path, a.path)]

    def blob(self, digest: str) -> bytes | None:
        for repository in self.repositories.values():
            for files in repository.commits.values():
                for data in files.values():
                    if sha256(data).hexdigest() == digest:
                        return data
        return None

    def fault(self, host: str, path: str) -> Fault | None:
        for fault in self.faults:
            if not re.search(fault.path, f"{host}{path}"):
                continue
            fault.after -= 1
            if fault.after >= 0:
                continue
            if fault.times is not None:
                fault.times -= 1
                if not fault.times:
                    self.faults.remove(fault)
            return fault
        return None


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@contextmanager
def serving(tls: SSLContext | None = None) -> Iterator[Hub]:
    hub = Hub()
    servers = [_Server(("127.0.0.1", 0), _Handler) for _ in ("hub", "cdn")]
    ports = [server.server_port for server in servers]
    hub.address, hub.cdn = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"
    if tls:
        hub.address = f"https://127.0.0.1:{ports[0]}"
        servers[0].socket = tls.wrap_socket(servers[0].socket, server_side=True)
    for server, host in zip(servers, ("hub", "cdn"), strict=True):
        server.hub, server.host = hub, host
    threads = [threading.Thread(target=server.serve_forever, args=(0.01,)) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            thread.join()
            server.server_close()


def _oid(data: bytes) -> str:
    """git's name of a file."""
    return sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".gguf"))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub
    host: str


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server
    planted: Fault | None = None

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it overrides
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        hub, host = self.server.hub, self.server.host
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.asked.append(Asked(host, self.command, self.path, headers))
        self.planted = hub.fault(host, self.path)
        if self.planted and self.planted.mute:
            hub.stopped.wait()
            self.close_connection = True
        elif self.planted and self.planted.status:
            self.answer(self.planted.status, self.planted.body, self.planted.headers)
        elif host == "cdn":
            self.give_large(urlsplit(self.path).path.removeprefix("/"))
        else:
            self.give_from_hub()

    def answer(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = self.planted.cut if self.planted else None
        if self.command == "GET":
            self.wfile.write(body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def refuse(self, status: int, code: str | None, message: str) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer(status, json.dumps({"error": message}).encode(), headers)

    def give_from_hub(self) -> None:
        hub, path = self.server.hub, urlsplit(self.path).path
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+)(/.+)?)?", path)
        found = found or re.fullmatch(r"/([^/]+/[^/]+)/(resolve)/([^/]+)(/.+)", path)
        if found is None:
            self.refuse(404, None, "Sorry, we can't find the page you are looking for.")
        elif found[1] in hub.renamed:
            self.answer(307, headers={"Location": self.path.replace(found[1], hub.renamed[found[1]], 1)})
        elif not self.refused(hub.repositories.get(found[1]), found[2] == "resolve"):
            self.give(found, hub.repositories[found[1]], unquote(found[3] or "main"))

    def refused(self, repository: Repository | None, of_file: bool) -> bool:
        """The hub does not tell a stranger whether a repository is private or absent."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in (READER, GRANTED):
            self.refuse(401, None, "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and not token):
            self.refuse(404 if token else 401, "RepoNotFound", "Repository not found")
        elif repository.gated and of_file and token != GRANTED:
            self.refuse(403 if token else 401, "GatedRepo", "Access to this model is restricted.")
        else:
            return False
        return True

    def give(self, asked: re.Match[str], repository: Repository, revision: str) -> None:
        commit = repository.refs.get(revision, revision)
        files = repository.commits.get(commit)
        if files is None:
            self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif asked[2] == "resolve":
            self.give_file(unquote(asked[4]).removeprefix("/"), commit, files)
        elif asked[2] == "tree":
            folder = unquote(asked[4] or "").removeprefix("/")
            self.give_tree({name: data for name, data in files.items() if name.startswith(folder)})
        else:
            content = {"id": asked[1], "sha": commit, "siblings": [{"rfilename": name} for name in files]}
            self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def give_tree(self, files: Mapping[str, bytes]) -> None:
        """A page of the list, and in the header the address of the next."""
        address = urlsplit(self.path)
        start = int(parse_qs(address.query).get("cursor", ["0"])[0])
        folders = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
        entries = [{"type": "directory", "path": name, "oid": _oid(name.encode())} for name in folders]
        entries += [self.entry(name, data) for name, data in files.items()]
        entries.sort(key=lambda entry: str(entry["path"]))
        following = f"{self.server.hub.address}{address.path}?recursive=True&cursor={start + PAGE}"
        headers = {"Link": f'<{following}>; rel="next"'} if start + PAGE < len(entries) else {}
        self.answer(200, json.dumps(entries[start : start + PAGE]).encode(), headers)

    def entry(self, name: str, data: bytes) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _oid(data)}
        if _is_large(name):
            digest = sha256(data).hexdigest()
            made["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
            made |= {"xetHash": digest} if self.server.hub.xet else {}
        return made

    def give_file(self, path: str, commit: str, files: Mapping[str, bytes]) -> None:
        hub, facts = self.server.hub, {"X-Repo-Commit": commit}
        if path not in files:
            self.refuse(404, "EntryNotFound", "Entry not found")
        elif _is_large(path):
            digest, size = sha256(files[path]).hexdigest(), str(len(files[path]))
            facts |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": size}
            facts |= {"Location": f"{hub.cdn}/{digest}?name={quote(path)}&signature=s"}
            if hub.xet:
                facts |= {"X-Xet-Hash": digest, "Link": f'<{hub.address}/xet-read-token/>; rel="xet-auth"'}
            self.answer(302, headers=facts)
        else:
            self.give_content(files[path], facts | {"ETag": f'"{_oid(files[path])}"'})

    def give_large(self, digest: str) -> None:
        data = self.server.hub.blob(digest)
        if data is None:
            self.answer(403)
        else:
            self.give_content(data, {"ETag": '"another"'})

    def give_content(self, data: bytes, headers: Mapping[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        there = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if asked else {}
        self.answer(206 if asked else 200, data[start:], {**headers, **there})


_LOOP = """
import contextlib, io, json, os, sys
from build.cli import main
answers = sys.stdout
for line in sys.stdin:
    order = json.loads(line)
    os.environ.pop("HF_TOKEN", None)
    os.environ.update(order["env"])
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        code = main(order["arguments"])
    print(json.dumps([code, out.getvalue(), err.getvalue()]), file=answers, flush=True)
"""


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


class Builder:
    """`python -m build` over and over in one process, since huggingface_hub reads most settings once."""

    def __init__(self, endpoint: str, folder: Path, **env: str) -> None:
        self.folder, self._read = folder, 0
        self._log = folder / f"log-{id(self)}"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LOOP],
                env=environment(endpoint, folder, **env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def build(self, source: str, token: str | None = None) -> Said:
        env = {"HF_TOKEN": token} if token else {}
        order = {"arguments": arguments(source, self.folder), "env": env}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        code, out, err = json.loads(self._process.stdout.readline())
        logged = self._log.read_text()[self._read :]
        self._read += len(logged)
        return Said(code, out, logged + err)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def environment(endpoint: str, folder: Path, **env: str) -> dict[str, str]:
    """The environment of this process with another cache, and no settings of a hub or a proxy but these."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGING")) and not name.lower().endswith("_proxy")
    }
    return {**kept, "PYTHONPATH": PYTHONPATH, "HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), **env}


def arguments(source: str, folder: Path) -> list[str]:
    """A small, quick build into folder/repository, over the one before."""
    quick = ["--precision", "fp32", "--verify-tokens", "96", "--force"]
    return ["--name", "mini", "--source", source, "--repository", str(folder / "repository"), *quick]
