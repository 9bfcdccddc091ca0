"""Draining a tritonserver, played by an HTTP server whose models are unloaded on request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from launcher.control import Control, admin_header

STEPS = {"one": ["one_engine"], "two": ["two_engine"], "one_engine": [], "two_engine": []}


class Triton(ThreadingHTTPServer):
    """`models` are those that are ready, by name their steps; `stuck` ones stay while they unload."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.states = dict.fromkeys(STEPS, "READY")
        self.stuck: set[str] = set()
        self.admin: tuple[str, str] | None = None
        self.unloaded: list[str] = []
        self.running = {"one_engine": 0, "two_engine": 0}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Triton

    def do_GET(self) -> None:
        if self.path == "/metrics":
            lines = [
                f'halimede_num_requests_running{{model="{m}"}} {n}' for m, n in self.server.running.items()
            ]
            self._answer(200, "\n".join(lines))
            return
        model = self.path.split("/")[3]
        if self.server.states[model] != "READY":
            self._answer(400, "{}")
            return
        steps = [{"model_name": step} for step in STEPS[model]]
        self._answer(200, json.dumps({"ensemble_scheduling": {"step": steps}} if steps else {}))

    def do_POST(self) -> None:
        if self.server.admin and self.headers.get(self.server.admin[0]) != self.server.admin[1]:
            self._answer(403, '{"error": "restricted"}')
            return
        if self.path == "/v2/repository/index":
            rows = [{"name": name, "state": state} for name, state in self.server.states.items()]
            self._answer(200, json.dumps([*rows, {"name": "never-loaded"}]))
            return
        model = self.path.split("/")[4]
        self.server.unloaded.append(model)
        self.server.states[model] = "UNLOADING" if model in self.server.stuck else "UNAVAILABLE"
        self._answer(200, "")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Tests want no access log."""


@pytest.fixture
def triton() -> Iterator[Triton]:
    with Triton() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_what_clients_call_goes_first_whenever_it_was_loaded(triton: Triton) -> None:
    assert Control(triton.address).drain(10)
    assert sorted(triton.unloaded[:2]) == ["one", "two"]
    assert sorted(triton.unloaded[2:]) == ["one_engine", "two_engine"]


def test_a_model_that_is_not_there_is_not_asked_for(triton: Triton) -> None:
    triton.states |= {"two": "UNAVAILABLE", "two_engine": "UNAVAILABLE"}
    assert Control(triton.address).drain(10)
    assert triton.unloaded == ["one", "one_engine"]


def test_running_requests_are_waited_for(triton: Triton) -> None:
    triton.stuck = {"two"}
    triton.running["two_engine"] = 1
    assert not Control(triton.address, triton.address).drain(0.2)
    assert sorted(triton.unloaded) == ["one", "two"]


def test_a_model_that_triton_never_unloads_is_not_drained(triton: Triton) -> None:
    triton.stuck = {"two"}
    assert Control(triton.address, triton.address).drain(30)


def test_without_a_server_nothing_is_drained() -> None:
    assert not Control("127.0.0.1:1").drain(1)


def test_the_admin_header_opens_what_triton_restricts(triton: Triton) -> None:
    triton.admin = ("admin-key", "open sesame")
    assert not Control(triton.address).drain(1)
    assert not triton.unloaded
    assert Control(
        triton.address, admin=admin_header({"HALIMEDE_ADMIN_HEADER": "admin-key: open sesame"})
    ).drain(10)
    assert set(triton.unloaded) >= {"one", "two"}


def test_no_admin_header_without_its_variable() -> None:
    assert admin_header({}) is None
    assert admin_header({"HALIMEDE_ADMIN_HEADER": ""}) is None
