"""TLS of the client: a private CA, a client certificate, and unusable files."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from halimede import AsyncClient, Client, InvalidArgument, Tls, TlsFailed, TransportError
from halimede.cli.app import app
from tests.fakes.certificates import write_certificate


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate, which is its own CA, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder)
    locked = "openssl rsa -aes256 -passout pass:secret -in tls.key -out locked.key"
    subprocess.run(locked.split(), cwd=folder, check=True, capture_output=True)
    (folder / "text.pem").write_text("no certificate\n")
    return folder


class _Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'{"name": "triton", "version": "2"}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name it overrides
        return


@pytest.fixture(scope="module")
def url(files: Path) -> Iterator[str]:
    """A server that requires a client certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files / "tls.crt", files / "tls.key")
    context.load_verify_locations(files / "tls.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    with HTTPServer(("127.0.0.1", 0), _Ready) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"https://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _ours(files: Path) -> Tls:
    return Tls(files / "tls.crt", files / "tls.crt", files / "tls.key")


def test_the_client_certificate_is_sent(url: str, files: Path) -> None:
    with Client(url, tls=_ours(files)) as client:
        assert client.health().live

    async def live() -> bool:
        async with AsyncClient(url, tls=_ours(files)) as client:
            return (await client.health()).live

    assert asyncio.run(live())


def test_a_request_without_certificate_or_ca_fails(url: str, files: Path) -> None:
    """The server may reset the connection before the client has read the reason."""

    async def ask(tls: Tls | None) -> None:
        async with AsyncClient(url, tls=tls) as client:
            await client.generate("x", timeout=20)

    for tls, kind in ((None, TlsFailed), (Tls(ca=files / "tls.crt"), TransportError)):
        with Client(url, tls=tls) as client, pytest.raises(kind):
            client.generate("x", timeout=20)
        with pytest.raises(kind):
            asyncio.run(ask(tls))


def test_the_command_line_accepts_the_files(url: str, files: Path) -> None:
    options = [
        f"--tls-ca={files / 'tls.crt'}",
        f"--tls-certificate={files / 'tls.crt'}",
        f"--tls-key={files / 'tls.key'}",
    ]
    done = CliRunner().invoke(app, ["health", f"--url={url}", *options])
    assert done.exit_code == 0, done.output
    environment = {"HALIMEDE_TLS_CA": str(files / "tls.crt")}
    done = CliRunner().invoke(app, ["health", f"--url={url}", *options[1:]], env=environment)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ({"ca": "missing.pem"}, "ca: .*missing.pem, must be readable PEM .No such file"),
        ({"ca": "text.pem"}, "ca: .*text.pem, must be readable PEM"),
        ({"certificate": "tls.crt"}, "key: none, must be given with certificate"),
        ({"key": "tls.key"}, "certificate: none, must be given with key"),
        (
            {"certificate": "text.pem", "key": "tls.key"},
            "certificate: .*text.pem with .*, must be",
        ),
        ({"certificate": "tls.crt", "key": "locked.key"}, "certificate: .*locked.key, must be readable PEM"),
    ],
)
def test_unusable_files_are_refused(files: Path, names: dict[str, str], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        Tls(**{field: files / name for field, name in names.items()})


@pytest.mark.parametrize("url", ["localhost:8001", "http://localhost:8000"])
def test_files_for_a_server_without_tls_are_refused(files: Path, url: str) -> None:
    with pytest.raises(InvalidArgument, match=r"url: .*, must start with grpcs:// or https:// for TLS"):
        Client(url, tls=Tls(ca=files / "tls.crt"))
