"""The server from its start to its end: what keeps it from starting, what it tells, and how it stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from launcher.shared_memory import FOLDER, PREFIX
from tests.live.artifacts import MODEL, built, edited, replace, variant
from tests.live.conftest import CONTEXT, QUEUE, SLOTS, SMALL
from tests.live.serving import Server, eventually, is_running, started
from tests.live.wire import WAIT_SECONDS, Address, Answer, WireError, ask, refused
from tests.live.wire_grpc import GrpcWire
from tests.live.wire_http import HttpWire

pytestmark = pytest.mark.e2e

PROMPT = "Once upon a time"
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")  # 127.0.0.1 and ::ffff:127.0.0.1
LISTENING = "0A"
WEIGHTS = "1/model.onnx.data"

Change = Callable[[Path, Path], None]  # of the engine's folder and the tokenizer's


def _cut(engine: Path, _tokenizer: Path) -> None:
    replace(engine / WEIGHTS, b"short")


def _damage(engine: Path, _tokenizer: Path) -> None:
    """One bit, the size unchanged."""
    weights = bytearray((engine / WEIGHTS).read_bytes())
    weights[len(weights) // 2] ^= 1
    replace(engine / WEIGHTS, bytes(weights))


def _lose_tokens(engine: Path, _tokenizer: Path) -> None:
    (engine / "1/tokens.bin").unlink()


def _age(engine: Path, _tokenizer: Path) -> None:
    manifest = engine / "1/manifest.json"
    replace(manifest, json.dumps(json.loads(manifest.read_text()) | {"manifest_version": 1}).encode())


def _engine(**parameters: str) -> Change:
    return lambda engine, _tokenizer: _configure(engine, parameters)


def _tokenizer(**parameters: str) -> Change:
    return lambda _engine, tokenizer: _configure(tokenizer, parameters)


def _configure(folder: Path, parameters: dict[str, str]) -> None:
    config = folder / "config.pbtxt"
    replace(config, edited(config.read_text(), parameters).encode())


# what is changed, and what the log says of it
# What the threads of the kernels need, where these run.
BESIDE = r"bytes(?: and \d+ threads [\d,]+)?"
BUDGET = "kv_budget_bytes"
BROKEN: dict[str, tuple[Change, str]] = {
    "truncated weights": (_cut, r"model\.onnx\.data: 5 bytes, the manifest says \d{6,}; build"),
    "damaged weights": (_damage, r"model\.onnx\.data: its sha256 is not the manifest's"),
    "no token table": (_lose_tokens, r"tokens\.bin: missing; build the model again"),
    "another manifest": (_age, r"manifest: version 1, this server reads version 2"),
    "cache over its budget": (
        _engine(kv_budget_bytes="1000000"),
        rf"{BUDGET}: 16 slots of 2048 positions need [\d,]{{9,}} {BESIDE}, the limit is 1,000,000; 0 slots",
    ),
    "cache over the memory": (
        _engine(slots="1024", max_context="8192"),
        rf"{BUDGET}: 1024 slots of 8192 positions need [\d,]{{15}} {BESIDE}, the limit is [\d,]+; \d+ slots",
    ),
    "context over the model's": (
        _engine(max_context="8193"), r"max_context: 8193, must be at most 8192 \(the model's positions\)",
    ),
    "no GPU, or an engine that runs on none": (
        _engine(device="cuda"), r"device: cuda, .*; |its KV cache is float32, attention on CUDA takes",
    ),
    "nonsense for the engine": (_engine(slots="many"), r"slots: many, must be a whole number in \[1, 1024\]"),
    "nonsense for the tokenizer": (
        _tokenizer(default_max_tokens="-1"), r"default_max_tokens: -1, must be a whole number of at least 1",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(workshop: Path) -> Iterator[dict[str, Server]]:
    """All of them at once: they mostly wait for Triton."""
    with ExitStack() as stack:
        servers = {}
        for number, (case, (change, _)) in enumerate(BROKEN.items()):
            repository = variant(built("int8"), workshop / f"broken-{number}", {})
            change(repository / f"{MODEL}_engine", repository / f"{MODEL}_tokenizer")
            log = workshop / f"broken-{number}.log"
            servers[case] = stack.enter_context(started(repository, log))
        yield servers
    for server in servers.values():
        shutil.rmtree(server.repository)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_keeps_the_server_from_starting(broken: dict[str, Server], case: str) -> None:
    server = broken[case]
    assert server.wait_ended() == 1
    assert re.search(BROKEN[case][1], server.output), server.output
    assert "ready in" not in server.output


@pytest.mark.parametrize("service", ["http", "grpc", "metrics"])
def test_a_port_in_use_is_refused_before_triton_starts(workshop: Path, service: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        log = workshop / "taken.log"
        with started(built("int8"), log, f"--{service}-port", str(port)) as server:
            assert server.wait_ended() == 2
            assert f"--{service}-port {port}: in use by " in server.output
            assert f"(process {os.getpid()})" in server.output


def test_only_this_machine_can_reach_it(small: Server) -> None:
    listeners = list(_listeners(_family(small.process.pid)))
    assert {port for _, port in listeners} == set(small.ports.values())
    assert all(address in LOOPBACK for address, _ in listeners), listeners


def _listeners(pids: list[int]) -> Iterator[tuple[str, int]]:
    """Addresses, as the kernel writes them, and ports that these processes listen on."""
    open_files = {entry.readlink().name for pid in pids for entry in Path(f"/proc/{pid}/fd").iterdir()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == LISTENING and f"socket:[{rest[5]}]" in open_files:
                address, _, port = local.partition(":")
                yield address, int(port, 16)


def _family(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]
    return [pid, *(member for child in children for member in _family(child))]


def test_the_log_holds_neither_prompts_nor_answers(small: Server) -> None:
    secret = "Xylophonic zebras, quoth the"
    messages = [{"role": "user", "content": secret}]
    bad_role = json.dumps([{"role": secret, "content": secret}])
    for wire in (HttpWire(small.address), GrpcWire(small.address)):
        with wire:
            answers = [ask(wire, secret, max_tokens=12, ignore_eos=True, stream=s) for s in (False, True)]
            answers.append(ask(wire, messages=json.dumps(messages), max_tokens=12, ignore_eos=True))
            refused(wire, text_input=secret, max_tokens=-1)
            refused(wire, text_input=secret * 400)
            refused(wire, text_input="a", stop_words=[secret * 10])
            refused(wire, messages=bad_role)
            refused(wire, messages=f"[{secret}")
            refused(wire, text_input=secret, logit_bias=f'{{"{secret}": 1}}')
            refused(wire, text_input=secret, max_tokens=400, ignore_eos=True, timeout=50_000)
            stream = wire.open(text_input=secret, max_tokens=400, ignore_eos=True, stream=True)
            next(stream)
            stream.close()
    small.wait_idle()
    for text in (secret, secret[:12], *(answer.text for answer in answers)):
        assert text not in small.output


@contextmanager
def _load(address: Address, count: int, tokens: int) -> Iterator[list[Future[Answer | WireError]]]:
    """Streams of so many tokens, all begun; they have ended when the block is left."""
    begun: set[int] = set()

    def outcome(number: int) -> Answer | WireError:
        inputs = {"max_tokens": tokens, "ignore_eos": True, "stream": True, "return_num_output_tokens": True}
        replies = []
        with GrpcWire(address) as wire:
            try:
                for reply in wire.open(text_input=f"{PROMPT}, {number}:", **inputs):
                    begun.add(number)  # a token, or the heartbeat of one that waits
                    replies.append(reply)
            except WireError as error:
                return error
        return Answer(replies)

    with ThreadPoolExecutor(count) as threads:
        outcomes = []
        for number in range(count):  # one by one: each waits until its prompt is looked at
            outcomes.append(threads.submit(outcome, number))
            assert eventually(lambda: len(begun) == len(outcomes) or outcomes[-1].done())
        yield outcomes


@pytest.fixture
def own(workshop: Path) -> Iterator[Server]:
    """A server that its test may end, on the small server's settings."""
    repository = variant(built("int8"), workshop / "own", SMALL)
    with started(repository, workshop / "own.log", "--exit-timeout", f"{WAIT_SECONDS:.0f}") as server:
        yield server.wait_ready()
    shutil.rmtree(repository)


def _regions(pid: int) -> set[str]:
    """The shared memory of the launcher with this process id."""
    names = {path.name for path in FOLDER.iterdir() if PREFIX.match(path.name)}
    return {name for name in names if name.split("_")[1] == str(pid)}


def test_a_killed_triton_leaves_neither_steps_nor_memory(own: Server) -> None:
    launcher, *family = _family(own.process.pid)
    assert len(family) >= 4  # Triton and three steps
    assert _regions(launcher)
    with _load(own.address, SLOTS, tokens=CONTEXT - 48) as outcomes:
        os.kill(family[0], signal.SIGKILL)
    assert all(isinstance(outcome.result(), WireError) for outcome in outcomes)
    assert own.wait_ended() == 128 + signal.SIGKILL
    assert eventually(lambda: not any(map(is_running, family)))
    assert not _regions(launcher)
    with started(own.repository, own.log.with_name("next.log")) as following:
        following.wait_ready()
        with GrpcWire(following.address) as wire:
            assert ask(wire, PROMPT, max_tokens=2).tokens == 2


def test_sigterm_lets_running_and_waiting_streams_end(own: Server) -> None:
    launcher, *family = _family(own.process.pid)
    with _load(own.address, SLOTS + QUEUE, tokens=100) as outcomes:
        own.process.send_signal(signal.SIGTERM)
    for outcome in outcomes:
        end = outcome.result()
        assert isinstance(end, Answer), end
        assert (end.tokens, end.finish) == (100, "length")
    assert own.wait_ended() == 0
    assert not any(map(is_running, family))
    assert not _regions(launcher)
