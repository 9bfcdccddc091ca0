"""The launcher and the real tritonserver, with a model of its own that echoes text."""

from __future__ import annotations

import http.client
import json
import os
import platform
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from launcher.shared_memory import FOLDER, PREFIX
from loadtest.launched import Launched, NotReady
from tests.live.serving import eventually, is_running
from tests.paths import ROOT

pytestmark = pytest.mark.e2e

LIMIT_S = 120.0  # for what hangs
# The step imports the package that our steps share: the stub finds it without PYTHONPATH.
MODEL = """
import pathlib
import platform
import time
import engine
import numpy
import triton_python_backend_utils as pb

HERE = pathlib.Path(__file__)

class TritonPythonModel:
    def execute(self, requests):
        if b"version" in pb.get_input_tensor_by_name(requests[0], "IN").as_numpy():
            version = numpy.array([platform.python_version().encode()], object)
            return [pb.InferenceResponse([pb.Tensor("OUT", version)]) for _ in requests]
        if b"held" in pb.get_input_tensor_by_name(requests[0], "IN").as_numpy():
            HERE.with_name("started").touch()
            while not HERE.with_name("go").exists():
                time.sleep(0.02)
        return [pb.InferenceResponse([pb.Tensor("OUT", pb.get_input_tensor_by_name(r, "IN").as_numpy())])
                for r in requests]
"""
STEP = """
backend: "python"
max_batch_size: 0
input [{ name: "IN" data_type: TYPE_STRING dims: [ 1 ] }]
output [{ name: "OUT" data_type: TYPE_STRING dims: [ 1 ] }]
"""
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 0
input [{ name: "text_input" data_type: TYPE_STRING dims: [ 1 ] }]
output [{ name: "text_output" data_type: TYPE_STRING dims: [ 1 ] }]
ensemble_scheduling { step [{
  model_name: "echo_step" model_version: -1
  input_map { key: "IN" value: "text_input" }
  output_map { key: "OUT" value: "text_output" }
}] }
"""


class Echo(Launched):
    def __init__(self, repository: Path, name: str = "server", *more: str) -> None:
        log = repository.with_name(f"{repository.name}-{name}.log")
        self.host = "127.0.0.1"  # where we reach it
        # An empty environment: what Triton needs, the launcher brings.
        arguments = ["--model-repository", str(repository), "--model", "echo", *more]
        super().__init__(log, *arguments, environment={})

    @property
    def banner(self) -> str:
        return "".join(line for line in self.output.splitlines() if line.startswith("ready in "))

    def get(self, service: str, path: str) -> str:
        with urllib.request.urlopen(
            f"http://{self.host}:{self.ports[service]}{path}", timeout=LIMIT_S
        ) as answer:
            return str(answer.read().decode())

    def generate(self, text: str) -> str:
        request = urllib.request.Request(
            f"http://{self.host}:{self.ports['http']}/v2/models/echo/generate",
            data=json.dumps({"text_input": text}).encode(),
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return str(json.load(answer)["text_output"])

    def takes_requests(self) -> bool:
        try:
            self.get("http", "/v2/models/echo/ready")
        except urllib.error.HTTPError:
            return False
        return True

    def child(self) -> int:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    for name, config in {"echo": ENSEMBLE, "echo_step": STEP}.items():
        (tmp_path / name / "1").mkdir(parents=True)
        (tmp_path / name / "config.pbtxt").write_text(config)
    (tmp_path / "echo_step/1/model.py").write_text(MODEL)
    return tmp_path


@contextmanager
def _launched(repository: Path) -> Iterator[Echo]:
    server = Echo(repository)
    try:
        yield server.wait_ready()
    finally:
        server.stop()


def _regions(pid: int) -> set[str]:
    names = {path.name for path in FOLDER.iterdir() if PREFIX.match(path.name)}
    return {name for name in names if name.split("_")[1] == str(pid)}


def test_it_serves_until_it_is_stopped(repository: Path) -> None:
    with _launched(repository) as server:
        assert f"http://{server.at('http')}, grpc {server.at('grpc')}, " in server.banner
        assert server.generate("Grüße") == "Grüße"
        assert 'nv_inference_count{model="echo"' in server.get("metrics", "/metrics")
        assert f"halimede_{server.process.pid}_" in "".join(_regions(server.process.pid))

        same = [*server.command, "--http-port", str(server.ports["http"])]
        again = subprocess.run(same, env={}, capture_output=True, text=True, check=False)
        assert again.returncode == 2
        assert f"--http-port {server.ports['http']}: in use by tritonserver" in again.stderr
        assert server.generate("unhurt") == "unhurt"

        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(LIMIT_S) == 0
        assert not _regions(server.process.pid)


def test_python_models_run_in_the_launchers_version(
    repository: Path, record_property: Callable[[str, object], None]
) -> None:
    with _launched(repository) as server:
        version = server.generate("version")
    record_property("interpreter", f"Triton's Python models: {version}")
    assert version == platform.python_version()


SCHEMA = json.loads(ROOT.joinpath("k8s/chart/values.schema.json").read_text("utf-8"))
HOSTS = SCHEMA["properties"]["server"]["properties"]["host"]["enum"]


@pytest.mark.parametrize("host", [*HOSTS, "::1"])
def test_every_host_that_the_chart_allows_serves_and_nothing_looks_like_a_failure(
    repository: Path, host: str
) -> None:
    server = Echo(repository, "server", "--host", host)
    server.host = "[::1]" if ":" in host else "127.0.0.1"
    try:
        server.wait_ready()
        assert server.generate("Grüße") == "Grüße"
        assert 'nv_inference_count{model="echo"' in server.get("metrics", "/metrics")
        channel = grpc.insecure_channel(f"{server.host}:{server.ports['grpc']}")
        with channel:
            asked = GRPCInferenceServiceStub(channel).ServerReady(pb.ServerReadyRequest(), timeout=LIMIT_S)
        assert asked.ready
    finally:
        assert server.stop() == 0
    assert not re.findall(r"^[EW]\d{4} .*", server.output, re.MULTILINE)


def test_two_servers_that_start_at_once_have_ports_of_their_own(repository: Path) -> None:
    first, second = Echo(repository, "first"), Echo(repository, "second")
    try:
        for server in (first, second):
            assert server.wait_ready().generate("hello") == "hello"
            assert 'nv_inference_count{model="echo"' in server.get("metrics", "/metrics")
            assert not _sockets(server.process.pid), "the ports are Triton's alone once it is ready"
        assert len({*first.ports.values(), *second.ports.values()}) == 6
    finally:
        assert [first.stop(), second.stop()] == [0, 0]


def _sockets(pid: int) -> list[str]:
    names = [entry.readlink().name for entry in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in names if name.startswith("socket:")]


def test_the_command_lists_models_that_are_not_ours(repository: Path) -> None:
    """They are there, without what only our engines tell of themselves."""
    with _launched(repository) as server:
        url = f"127.0.0.1:{server.ports['grpc']}"
        halimede = [sys.executable, "-m", "halimede", "--url", url]
        shown = subprocess.run([*halimede, "models"], capture_output=True, text=True, check=True).stdout
        assert shown.splitlines()[1].split() == ["echo", "1", "READY", "ensemble"]
        subprocess.run([*halimede, "unload", "echo"], capture_output=True, check=True)
        shown = subprocess.run([*halimede, "models"], capture_output=True, text=True, check=True).stdout
        assert shown.splitlines()[1].split() == ["echo", "not", "loaded"]


def test_a_running_request_ends_before_the_server_does(repository: Path) -> None:
    with _launched(repository) as server, ThreadPoolExecutor() as pool:
        answer = pool.submit(server.generate, "held")
        assert eventually((repository / "echo_step/1/started").exists)
        server.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: not server.takes_requests())
        (repository / "echo_step/1/go").touch()
        assert answer.result() == "held"
        assert server.process.wait(LIMIT_S) == 0


def test_an_idle_connection_does_not_hold_the_stop_up(repository: Path) -> None:
    """A server that waits until Triton's exit timeout ends with another code."""
    with _launched(repository) as server:
        idle = http.client.HTTPConnection("127.0.0.1", server.ports["http"])
        idle.request("GET", "/v2/health/ready")
        assert idle.getresponse().read() == b""
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(LIMIT_S) == 0
        idle.close()


def test_a_killed_launcher_leaves_no_server(repository: Path) -> None:
    with _launched(repository) as server:
        triton = server.child()
        assert is_running(triton)
        server.process.kill()
        assert eventually(lambda: not is_running(triton))


def test_what_a_killed_server_left_goes_at_the_next_start(repository: Path) -> None:
    with _launched(repository) as server:
        dead = server.process.pid
        triton = server.child()
        os.kill(dead, signal.SIGKILL)
        os.killpg(triton, signal.SIGKILL)
        assert eventually(lambda: not is_running(triton))
        assert _regions(dead)
    with _launched(repository) as server:
        assert server.generate("hello") == "hello"
        assert not _regions(dead)


def test_a_model_that_does_not_load_ends_the_launcher(repository: Path) -> None:
    (repository / "echo_step/1/model.py").write_text("raise RuntimeError('broken step')")
    server = Echo(repository)
    with pytest.raises(NotReady, match="broken step"):
        server.wait_ready()
    assert not server.banner
    assert server.process.wait(LIMIT_S) == 1
