"""Several models in one server, loaded, unloaded and replaced while others stream: nobody's request fails."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from halimede import Client, Internal, RetryPolicy, Unavailable
from halimede.cli.exits import Exit
from tests.live.crowd import WIRES
from tests.live.serving import Server, eventually, started
from tests.live.small_models import SmallModel, break_version, give_slots
from tests.live.wire import WAIT_SECONDS, Address, WireError, ask
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

PROMPT = "in the beginning"
TOKENS = 600
COMMAND = Path(sys.executable).with_name("halimede")
LONG = {"max_tokens": TOKENS, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def checkpoints(workshop: Path) -> dict[str, SmallModel]:
    folder = workshop / "checkpoints"
    models = {
        "alpha": SmallModel(folder / "alpha", "llama", 1),
        "beta": SmallModel(folder / "beta", "gpt2", 2),
        "beta, anew": SmallModel(folder / "beta-anew", "llama", 3, backwards=True),
    }
    return {name: model.write() for name, model in models.items()}


@pytest.fixture(scope="module")
def repository(workshop: Path, checkpoints: dict[str, SmallModel]) -> Path:
    folder = workshop / "models"
    for name in ("alpha", "beta"):
        checkpoints[name].publish(folder, name)
        give_slots(folder, name)
    return folder


@pytest.fixture(scope="module")
def server(workshop: Path, repository: Path) -> Iterator[Server]:
    with started(repository, workshop / "models.log", "--model", "alpha", "--model", "beta") as found:
        yield found.wait_ready()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.address.grpc, model="beta", retry=RetryPolicy(attempts=1)) as found:
        yield found


def at(server: Server, model: str) -> Address:
    return replace(server.address, model=model)


def answer(server: Server, model: str) -> str:
    with GrpcWire(at(server, model)) as wire:
        return ask(wire, PROMPT, **LONG).text


@contextmanager
def crowd(server: Server, model: str, count: int = 4) -> Iterator[Counter[str]]:
    """Streams over both protocols, one after another, begun before the block and whole after it.

    Gives how often each text, or error, was the answer.
    """
    over, found, begun = threading.Event(), Counter[str](), threading.Barrier(count + 1)

    def stream(number: int) -> None:
        with WIRES[("grpc", "http")[number % 2]](at(server, model)) as wire:
            begun.wait(WAIT_SECONDS)
            while not over.is_set():
                try:
                    found[ask(wire, PROMPT, **LONG).text] += 1
                except WireError as error:
                    found[f"error: {error}"] += 1

    with ThreadPoolExecutor(count) as threads:
        futures = [threads.submit(stream, number) for number in range(count)]
        begun.wait(WAIT_SECONDS)
        try:
            assert eventually(
                lambda: server.metrics.total("num_requests_running", model=f"{model}_engine") > 0
            )
            yield found
        finally:
            over.set()
    for future in futures:
        future.result()


def processes(server: Server, model: str) -> int:
    """Steps of the model that run."""
    prefix = f"{server.repository}/{model}_".encode()
    return sum(prefix in line for line in map(_command_line, Path("/proc").glob("[0-9]*")))


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it ended a moment ago
        return b""


def versions(client: Client, model: str) -> list[str]:
    return [row.version for row in client.models() if row.name == f"{model}_engine" and row.ready]


def test_each_model_answers_as_itself(server: Server, checkpoints: dict[str, SmallModel]) -> None:
    for name in ("alpha", "beta"):
        version = server.repository / f"{name}_engine" / "1"
        with GrpcWire(at(server, name)) as wire:
            found = ask(wire, PROMPT, max_tokens=24, ignore_eos=True)
        assert found.text == checkpoints[name].answer(PROMPT, 24, version)


def test_a_model_whose_folder_is_gone_serves_on(server: Server) -> None:
    """A volume that is not mounted any more, or a delivery that is about to put another in its place."""
    folders = [server.repository / f"alpha{step}" for step in ("", "_engine", "_tokenizer", "_detokenizer")]
    before = answer(server, "alpha")
    for folder in folders:
        folder.rename(folder.with_name(f".gone-{folder.name}"))
    try:
        assert [answer(server, "alpha") for _ in range(3)] == [before] * 3
    finally:
        for folder in folders:
            folder.with_name(f".gone-{folder.name}").rename(folder)
    assert answer(server, "alpha") == before
    assert server.output.count("alpha_engine (No such file or directory); opened versions keep serving") == 1


def test_each_model_has_its_own_metrics(server: Server) -> None:
    before = server.wait_idle()
    for name, tokens in (("alpha", 5), ("beta", 7)):
        with GrpcWire(at(server, name)) as wire:
            ask(wire, PROMPT, max_tokens=tokens, ignore_eos=True)
    after = server.wait_idle()
    for name, tokens in (("alpha", 5), ("beta", 7)):
        labels = {"model": f"{name}_engine", "version": "1"}
        told = [metrics.total("generation_tokens_total", **labels) for metrics in (before, after)]
        assert told[1] - told[0] == tokens


def test_the_banner_and_the_table_have_both(server: Server) -> None:
    assert f"  alpha  halimede chat --url {server.address.grpc} --model alpha" in server.output
    assert f"--url {server.address.grpc} --model beta" in server.output
    listed = json.loads(_run(server, "models", "--json").stdout)
    assert [(model["name"], model["card"]["precision"], model["card"]["slots"]) for model in listed] == [
        ("alpha", "fp32", 4),
        ("beta", "fp32", 4),
    ]


def test_one_is_unloaded_loaded_and_reloaded_while_the_other_streams(server: Server, client: Client) -> None:
    alpha, beta = answer(server, "alpha"), answer(server, "beta")
    with crowd(server, "alpha") as found:
        client.unload()
        assert processes(server, "beta") == 0
        assert _is_ready(server)
        assert client.load() == "1"
        assert processes(server, "beta") == 3
        give_slots(server.repository, "beta", 3)
        assert client.reload() == "1"
        assert client.card().slots == 3
        assert answer(server, "beta") == beta
    assert found.keys() == {alpha}
    assert found.total() >= 4


def test_an_unloaded_model_refuses_clearly(server: Server, client: Client) -> None:
    client.unload()
    with pytest.raises(Unavailable, match="UNAVAILABLE: model: beta, is not loaded"):
        client.generate(PROMPT)
    shown = _run(server, "generate", PROMPT, "--model", "beta")
    assert shown.returncode == Exit.UNAVAILABLE
    assert "halimede load NAME" in shown.stderr
    assert not client.health().model_ready
    # Its series stay, at rest.
    assert not server.metrics.total("num_requests_running", model="beta_engine")
    assert _run(server, "load", "beta").stdout == "beta is ready, version 1\n"
    assert client.generate(PROMPT, max_tokens=2).num_output_tokens == 2


def test_streams_in_flight_end_before_a_model_goes(server: Server, client: Client) -> None:
    expected = answer(server, "beta")
    with GrpcWire(at(server, "beta")) as wire:
        streams = [wire.open(text_input=PROMPT, temperature=0.0, **LONG) for _ in range(6)]
        heads = [next(reply for reply in stream if reply.text) for stream in streams[:2]]
        with ThreadPoolExecutor() as threads:
            unloading = threads.submit(client.unload)
            for head, stream in zip(heads, streams, strict=False):
                replies = [head, *stream]
                assert "".join(reply.text for reply in replies) == expected
                assert replies[-1].finish == "length"
            unloading.result()
        for late in streams[2:]:  # sent when the model was to be unloaded
            with pytest.raises(WireError, match="has no available versions"):
                next(late)
    assert client.load() == "1"


@pytest.fixture
def anew(server: Server, client: Client, checkpoints: dict[str, SmallModel]) -> Iterator[str]:
    """Version 2 of beta is published, another model with another tokenizer; its answer."""
    version = checkpoints["beta, anew"].publish(server.repository, "beta", "--new-version")
    yield checkpoints["beta, anew"].answer(PROMPT, TOKENS, version)
    shutil.rmtree(version)
    assert client.reload() == "1"


def test_a_new_version_takes_over_under_load(server: Server, client: Client, anew: str) -> None:
    old = answer(server, "beta")  # published is not loaded
    with crowd(server, "beta") as found:
        assert client.reload() == "2"
        assert versions(client, "beta") == ["2"]
        assert answer(server, "beta") == anew
    assert found.keys() <= {old, anew}
    assert old in found
    assert eventually(lambda: processes(server, "beta") == 3)
    metrics = server.wait_idle()
    assert metrics.total("generation_tokens_total", model="beta_engine", version="2") >= TOKENS


def test_a_stream_of_the_old_version_goes_on_while_the_new_one_serves(
    server: Server, client: Client, anew: str
) -> None:
    old = answer(server, "beta")
    with GrpcWire(at(server, "beta")) as wire:
        stream = wire.open(text_input=PROMPT, temperature=0.0, **LONG | {"max_tokens": 4000})
        text = next(reply.text for reply in stream if reply.text)
        assert client.reload() == "2"
        assert answer(server, "beta") == anew
        text += "".join(reply.text for reply in stream)
    assert text.startswith(old)


def test_a_broken_version_leaves_what_serves_and_says_why(server: Server, client: Client) -> None:
    old = answer(server, "beta")
    broken = break_version(server.repository, "beta")
    told = (
        r"^beta version 2 did not load: INTERNAL: model\.onnx\.data: 5 bytes, the manifest says \d+; "
        r"build the model again; the previous version still serves$"
    )
    try:
        with crowd(server, "alpha"), crowd(server, "beta") as found:
            with pytest.raises(Internal, match=told):
                client.reload()
            shown = _run(server, "reload", "beta")
            assert (shown.returncode, shown.stdout) == (Exit.SERVER, "")
            assert "model.onnx.data: 5 bytes" in shown.stderr
        assert found.keys() == {old}
        assert _is_ready(server)
        assert versions(client, "beta") == ["1"]
    finally:
        shutil.rmtree(broken)
    assert client.reload() == "1"


def test_a_model_that_does_not_load_leaves_nothing_behind(server: Server, client: Client) -> None:
    client.unload()
    broken = break_version(server.repository, "beta")
    try:
        with pytest.raises(Internal, match=r"beta version 2 did not load: .*build the model again$"):
            client.load()
    finally:
        shutil.rmtree(broken)
    assert eventually(lambda: processes(server, "beta") == 0)
    assert client.load() == "1"


def test_what_was_loaded_later_is_drained_too(workshop: Path, repository: Path) -> None:
    with started(repository, workshop / "later.log", "--model", "alpha") as later:
        later.wait_ready()
        with Client(later.address.grpc, model="beta") as client:
            client.load()
        expected = answer(later, "beta")
        with GrpcWire(at(later, "beta")) as wire:
            stream = wire.open(text_input=PROMPT, temperature=0.0, **LONG)
            text = next(reply.text for reply in stream if reply.text)
            later.process.send_signal(signal.SIGTERM)
            assert text + "".join(reply.text for reply in stream) == expected
        assert later.wait_ended() == 0


def _is_ready(server: Server) -> bool:
    with urllib.request.urlopen(
        f"http://{server.address.http}/v2/health/ready", timeout=WAIT_SECONDS
    ) as found:
        return bool(found.status == 200)


def _run(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(COMMAND), "--url", server.address.grpc, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
