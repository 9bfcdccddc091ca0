"""The scenario with TLS and keys on the real server: its own arguments, its own helm test programs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from halimede import ApiKey, AsyncClient, Client, PermissionDenied, Tls, TransportError
from halimede.cli.exits import Exit
from loadtest.ports import held_ports
from tests.fakes.certificates import write_certificate
from tests.k8s.charts import BIN, CHART, objects, one, triton
from tests.k8s.programs import answers
from tests.live.artifacts import MODEL, built
from tests.live.serving import Server, eventually
from tests.live.wire import WAIT_SECONDS

KEYS = {"HALIMEDE_ADMIN_KEY": "for administration", "HALIMEDE_API_KEY": "for tokens"}
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
        arguments = [_filled(word, certificates) for word in container["args"] if not word.startswith(OURS)]
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
    """A server that waits until Triton's exit timeout ends with another code."""
    server.process.terminate()
    assert server.wait_ended() == 0


# The chart leaves TLS to the Gateway where it routes gRPC.
BEHIND = ("tls.enabled=false", "gateway.enabled=true", "gateway.parentRefs[0].name=edge", "service.http=true")
ENVOY = "type.googleapis.com/envoy"


@pytest.fixture(scope="module")
def gateway(certificates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of Envoy with the chart's routes; it wants a certificate of its clients."""
    log = certificates / "envoy.log"
    with contextmanager(_served)(certificates, tmp_path_factory.mktemp("log"), *BEHIND) as server:
        with held_ports(2) as (edge, admin):
            (certificates / "envoy.json").write_text(json.dumps(_envoy(server, edge, admin)))
            command = [str(BIN / "envoy"), "-c", "envoy.json", "--use-dynamic-base-id", "--concurrency", "1"]
            with log.open("wb") as output:
                envoy = subprocess.Popen(command, cwd=certificates, stdout=output, stderr=subprocess.STDOUT)
        ready = f"http://127.0.0.1:{admin}/ready"
        assert eventually(lambda: envoy.poll() is not None or answers(ready)), log.read_text()
        assert envoy.poll() is None, log.read_text()
        yield edge
        envoy.terminate()
        envoy.wait(WAIT_SECONDS)


def _envoy(server: Server, edge: int, admin: int) -> dict[str, Any]:
    filters = "extensions.filters"
    manager = {
        "@type": f"{ENVOY}.{filters}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "edge",
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{ENVOY}.{filters}.http.router.v3.Router"}}
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}]},
    }
    certificate = {"certificate_chain": {"filename": "tls.crt"}, "private_key": {"filename": "tls.key"}}
    tls = {
        "@type": f"{ENVOY}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [certificate],
            "validation_context": {"trusted_ca": {"filename": "ca.crt"}},
        },
    }
    chain = {
        "filters": [{"name": "manager", "typed_config": manager}],
        "transport_socket": {"name": "tls", "typed_config": tls},
    }
    listener = {"name": "edge", "address": _address(edge), "filter_chains": [chain]}
    clusters = [_cluster("HTTPRoute", server.ports["http"]), _cluster("GRPCRoute", server.ports["grpc"])]
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(route: str, port: int) -> dict[str, Any]:
    options = f"{ENVOY}.extensions.upstreams.http.v3.HttpProtocolOptions"
    protocol = "http2_protocol_options" if route == "GRPCRoute" else "http_protocol_options"
    spoken = {"@type": options, "explicit_http_config": {protocol: {}}}
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": route,
        "load_assignment": {"cluster_name": route, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {options.partition("/")[2]: spoken},
    }


def _routes() -> list[dict[str, Any]]:
    """What the chart routes, as Envoy has it."""
    found = objects("tls", *BEHIND)
    rest, grpc = (one(found, kind)["spec"]["rules"][0]["matches"] for kind in ("HTTPRoute", "GRPCRoute"))
    exactly = {"PathPrefix": "path_separated_prefix", "Exact": "path"}
    routed = [("HTTPRoute", {exactly[match["path"]["type"]]: match["path"]["value"]}) for match in rest]
    methods = [match["method"] for match in grpc]
    routed += [("GRPCRoute", {"path": f"/{method['service']}/{method['method']}"}) for method in methods]
    return [{"match": match, "route": {"cluster": kind, "timeout": "0s"}} for kind, match in routed]


@pytest.fixture(params=["grpcs direct", "grpcs", "https"])
def url(request: pytest.FixtureRequest, mutual: Server, gateway: int) -> str:
    """A server with TLS of its own, and the gateway."""
    scheme, _, direct = request.param.partition(" ")
    return f"{scheme}://127.0.0.1:{mutual.ports['grpc'] if direct else gateway}"


OPTIONS = {
    "key": [("--api-key-file", "api.key")],
    "ca": [("--tls-ca", "ca.crt")],
    "certificate": [("--tls-certificate", "tls.crt"), ("--tls-key", "tls.key")],
}
WITHOUT = {
    "key": (Exit.USAGE, "PERMISSION_DENIED: header: halimede-key, must hold", "--api-key-file"),
    "ca": (Exit.UNAVAILABLE, "TLS with 127.0.0.1:", "--tls-ca"),
    # The server's reason may come too late for the request that is on its way.
    "certificate": (Exit.UNAVAILABLE, r"(TLS with|connection to) 127.0.0.1:", "--tls-certificate"),
}


def _command(folder: Path, url: str, *arguments: str, without: str = "", stdin: str = "") -> Any:
    """The installed command with the key and certificates of that folder."""
    (folder / "api.key").write_text(f"{KEYS['HALIMEDE_API_KEY']}\n")
    given = [option for name, options in OPTIONS.items() if name != without for option in options]
    options = [f"{option}={folder / file}" for option, file in given]
    return subprocess.run(
        [Path(sys.executable).with_name("halimede"), *arguments, "--url", url, "--model", MODEL, *options],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_the_command_reaches_it(url: str, certificates: Path) -> None:
    done = _command(certificates, url, "chat", "--max-tokens", "2", stdin="Good morning")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip()


@pytest.mark.parametrize("without", WITHOUT)
def test_the_command_is_refused_and_says_what_to_do(url: str, certificates: Path, without: str) -> None:
    code, message, option = WITHOUT[without]
    done = _command(certificates, url, "generate", "Good morning", without=without)
    assert (done.returncode, done.stdout) == (code, "")
    assert re.match(f"error: {message}", done.stderr)
    assert option in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_our_own_client_reaches_it(url: str, certificates: Path) -> None:
    tls = Tls(*(certificates / name for name in ("ca.crt", "tls.crt", "tls.key")))
    key = ApiKey(KEYS["HALIMEDE_API_KEY"])
    with Client(url, model=MODEL, tls=tls, api_key=key) as client:
        assert client.generate("Good morning", max_tokens=2).text
        assert client.health().ok

    async def ask(api_key: ApiKey) -> str:
        async with AsyncClient(url, model=MODEL, tls=tls, api_key=api_key) as client:
            return (await client.generate("Good morning", max_tokens=2)).text

    assert asyncio.run(ask(key))
    with pytest.raises(PermissionDenied):
        asyncio.run(ask(ApiKey("wrong")))
    tls = Tls(certificates / "ca.crt")
    with pytest.raises(TransportError):  # asyncio may see the connection reset before the reason
        asyncio.run(ask(key))


def test_administration_takes_its_own_key(mutual: Server, certificates: Path) -> None:
    url = f"http://{mutual.address.http}"
    with Client(url) as client, pytest.raises(PermissionDenied, match="header: admin-key, must"):
        client.models()
    with Client(url, api_key=ApiKey(KEYS["HALIMEDE_ADMIN_KEY"], "admin-key")) as client:
        assert MODEL in {model.name for model in client.models()}
