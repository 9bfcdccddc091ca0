"""The scenario with TLS and keys on the real server: its own arguments, its own helm test programs."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from halimede import Client, HalimedeError, RetryPolicy, Tls
from tests.certificates import write_certificate
from tests.e2e.artifacts import MODEL, built
from tests.e2e.serving import Server
from tests.e2e.wire import WAIT_SECONDS
from tests.k8s.charts import CHART, objects, triton

KEYS = {"HALIMEDE_ADMIN_KEY": "for administration", "HALIMEDE_API_KEY": "for tokens"}
# Triton looks for keys of gRPC under a prefix.
PREFIX = "triton-grpc-protocol-"
OURS = ("--model-repository=", "--host=", "--http-port=", "--grpc-port=", "--metrics-port=")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    write_certificate(folder)
    (folder / "ca.crt").write_bytes((folder / "tls.crt").read_bytes())
    return folder


@pytest.fixture(scope="module")
def server(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _served(certificates, tmp_path_factory.mktemp("log"))


@pytest.fixture(scope="module")
def mutual(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from _served(certificates, tmp_path_factory.mktemp("log"), "tls.mutual=true")


def _served(certificates: Path, folder: Path, *settings: str) -> Iterator[Server]:
    container = triton(objects("tls", *settings))
    env = KEYS | {"HALIMEDE_ADMIN_HEADER": f"admin-key: {KEYS['HALIMEDE_ADMIN_KEY']}"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        arguments = [_filled(one, certificates) for one in container["args"] if not one.startswith(OURS)]
        running = Server(built("int8"), folder / "log", *arguments)
    yield running.wait_ready()
    if running.running:
        running.process.kill()
        running.wait_ended()


def _filled(argument: str, certificates: Path) -> str:
    """As the kubelet fills it in."""
    for name, value in KEYS.items():
        argument = argument.replace(f"$({name})", value)
    return argument.replace("/etc/halimede/tls", str(certificates))


def _generate(program: str, *arguments: str, key: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CHART / "files" / f"generate_{program}.py"), *arguments]
    env = os.environ | {"HALIMEDE_API_KEY": key}
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=WAIT_SECONDS)


@pytest.mark.parametrize(("key", "code"), [(KEYS["HALIMEDE_API_KEY"], 0), ("wrong", 1)])
def test_a_token_over_grpc_takes_the_key(server: Server, certificates: Path, key: str, code: int) -> None:
    address = f"localhost:{server.ports['grpc']}"
    options = ("--header", "halimede-key", f"--ca={certificates / 'ca.crt'}")
    done = _generate("grpc", address, MODEL, *options, key=key)
    assert done.returncode == code, done.stderr


def test_grpc_in_plain_is_refused(server: Server) -> None:
    address = f"localhost:{server.ports['grpc']}"
    assert _generate(
        "grpc", address, MODEL, "--header", "halimede-key", key=KEYS["HALIMEDE_API_KEY"]
    ).returncode


@pytest.mark.parametrize(("key", "code"), [(KEYS["HALIMEDE_API_KEY"], 0), ("wrong", 1)])
def test_a_token_over_http_takes_the_key(server: Server, key: str, code: int) -> None:
    done = _generate("http", server.address.http, MODEL, "halimede-key", key=key)
    assert done.returncode == code, done.stderr


@pytest.mark.parametrize(
    "path",
    [
        "repository/index",
        f"repository/models/{MODEL}/unload",
        "systemsharedmemory/region/x/register",
        "trace/setting",
        "logging",
    ],
)
def test_administration_is_refused_without_its_key(server: Server, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://{server.address.http}/v2/{path}", data=b"{}", timeout=WAIT_SECONDS)


def test_every_model_is_asked_for(server: Server) -> None:
    text = (CHART / "files" / "models_ready.py").read_text("utf-8")
    program = text.replace("PORT = 8000", f"PORT = {server.ports['http']}")
    for models, code in (([MODEL], 0), ([MODEL, "another"], 1)):
        done = subprocess.run([sys.executable, "-I", "-S", "-c", program, *models], check=False)
        assert done.returncode == code


def test_it_stops_in_order_all_the_same(server: Server) -> None:
    """Held up until Triton's exit timeout it would end with another code."""
    server.process.terminate()
    assert server.wait_ended() == 0


def test_our_own_client_shows_its_certificate(mutual: Server, certificates: Path) -> None:
    url = f"grpcs://localhost:{mutual.ports['grpc']}"
    headers = {f"{PREFIX}halimede-key": KEYS["HALIMEDE_API_KEY"]}
    ca, certificate, key = (certificates / name for name in ("ca.crt", "tls.crt", "tls.key"))
    with Client(url, model=MODEL, headers=headers, tls=Tls(ca, certificate, key)) as client:
        assert client.generate("Good morning", max_tokens=2).text
    once = RetryPolicy(attempts=1)
    with (
        Client(url, model=MODEL, headers=headers, tls=Tls(ca), retry=once) as client,
        pytest.raises(HalimedeError),
    ):
        client.generate("Good morning", max_tokens=2, timeout=20)
