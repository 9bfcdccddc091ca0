"""The installed command `halimede` against the real server."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.runners.kernels import load_kernels
from halimede.cli.exits import Exit
from tests.live.artifacts import MODEL
from tests.live.conftest import CONTEXT, SLOTS
from tests.live.serving import Server, eventually
from tests.live.wire import WAIT_SECONDS, ask
from tests.live.wire_http import HttpWire
from tests.unit.client.test_process import Terminal

pytestmark = pytest.mark.e2e

PROMPT = "The capital of France is"
STEPS = tuple(f"{MODEL}_{step}" for step in ("tokenizer", "engine", "detokenizer"))
COMMAND = Path(sys.executable).with_name("halimede")


@pytest.fixture(params=["grpc", "http"])
def url(request: pytest.FixtureRequest, small: Server) -> str:
    return f"http://{small.address.http}" if request.param == "http" else small.address.grpc


def _run(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMAND, "--url", url, *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=WAIT_SECONDS,
        check=False,
    )


def test_it_answers(small: Server, url: str) -> None:
    with HttpWire(small.address) as wire:
        expected = ask(wire, PROMPT, max_tokens=8)
    plain = _run(url, "generate", PROMPT, "--max-tokens", "8")
    assert (plain.returncode, plain.stdout, plain.stderr) == (Exit.OK, expected.text + "\n", "")
    answer = json.loads(_run(url, "generate", PROMPT, "--max-tokens", "8", "--json").stdout)
    assert (answer["text"], answer["num_output_tokens"]) == (expected.text, 8)


def test_it_tells_of_models_health_and_metrics(small: Server) -> None:
    url = small.address.grpc
    everything = json.loads(_run(url, "models", "--all", "--json").stdout)
    assert {model["name"] for model in everything} == {MODEL, *STEPS}
    (model,) = json.loads(_run(url, "models", "--json").stdout)
    assert (model["name"], model["steps"], model["card"]["task"]) == (MODEL, list(STEPS), "chat")
    assert model["card"]["slots"] == SLOTS
    header, row = _run(url, "models").stdout.splitlines()
    assert header.split() == [
        "model",
        "version",
        "state",
        "task",
        "precision",
        "size",
        "limits",
        "KV",
        "cache",
        "quality",
        "kernels",
    ]
    assert row.startswith(f"{MODEL}  ")
    assert f"{SLOTS} x {CONTEXT}" in row
    assert row.rstrip().endswith(f"  {load_kernels().level}")
    health = _run(url, "health")
    assert health.returncode == Exit.OK
    assert (
        f"triton {json.loads(_run(url, 'health', '--json').stdout)['server_version']} at {url}"
        in health.stdout
    )
    metrics = _run(url, "metrics", HALIMEDE_METRICS_URL=str(small.address.metrics))
    assert f"halimede_num_requests_running{{model={MODEL}_engine,version=1}} 0" in metrics.stdout


EXITS = {
    "bad input": (
        ["generate", "?", "--temperature", "-1"],
        Exit.USAGE,
        "INVALID_ARG: temperature: -1.0, must",
    ),
    "unknown model": (["generate", "?", "--model", "nobody"], Exit.USAGE, "halimede models"),
    "not ready": (["chat", "--model", "nobody"], Exit.UNAVAILABLE, "model: nobody, is not ready"),
    "deadline": (
        ["generate", "?", "--timeout", "1.0", "--ignore-eos", "--max-tokens", f"{CONTEXT - 32}"],
        Exit.DEADLINE,
        "DEADLINE_EXCEEDED: timeout: ",
    ),
}


@pytest.mark.parametrize("case", EXITS)
def test_the_exit_code_tells_what_went_wrong(small: Server, case: str) -> None:
    arguments, code, message = EXITS[case]
    done = _run(small.address.grpc, *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr


def test_ctrl_c_ends_the_request_on_the_server(small: Server, url: str) -> None:
    before = _cancelled(small)
    arguments = ["generate", PROMPT, "--stream", "--ignore-eos", "--max-tokens", f"{CONTEXT - 32}"]
    with subprocess.Popen([COMMAND, "--url", url, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_SECONDS) == Exit.INTERRUPTED
    assert eventually(lambda: _cancelled(small) == before + 1)
    assert eventually(lambda: small.metrics.idle)


def _cancelled(server: Server) -> float:
    return server.metrics.total("requests_rejected_total", reason="cancelled")


def test_a_chat_on_a_terminal(small: Server) -> None:
    master, slave = pty.openpty()
    arguments = ["chat", "--url", small.address.grpc, "--ignore-eos", "--max-tokens", "12"]
    environment = os.environ | {"TERM": "dumb", "NO_COLOR": "1", "COLUMNS": "200"}
    chat = subprocess.Popen([COMMAND, *arguments], stdin=slave, stdout=slave, stderr=slave, env=environment)
    try:
        os.close(slave)
        terminal = Terminal(chat, master)
        terminal.wait_for("> ")
        terminal.type("What is the capital of France?\n")
        terminal.wait_for("tokens/s, length")
        terminal.wait_for("> ")
        terminal.type("/exit\n")
        assert terminal.exit_code() == Exit.OK
    finally:
        chat.kill()
        chat.wait()
        os.close(master)
