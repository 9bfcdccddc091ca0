"""Invariant 7 for requests that are not even of the protocols: each has its answer and leaves nothing.

By default a thousand over gRPC and a tenth as many over HTTP; HALIMEDE_MALFORMED=10000 sends so many. They
come from a seed, HALIMEDE_SEED; how each kind was answered is printed (pytest -s).
"""

from __future__ import annotations

import itertools
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from halimede import Client, InvalidArgument
from tests.live.crowd import a_few_at_once
from tests.live.malformed import SPOILT_BYTES, STREAM, Call, Malformed, Post
from tests.live.serving import Server, eventually
from tests.live.wire import Address, WireError, ask
from tests.live.wire_grpc import GrpcWire

pytestmark = pytest.mark.e2e

COUNT = int(os.environ.get("HALIMEDE_MALFORMED", "1000"))
SEED = int(os.environ.get("HALIMEDE_SEED", "16"))
PROMPT = "The capital of France is"
ANSWER_SECONDS = 60.0  # for a call that would never be answered
# Requests of up to 20 MiB come and go in two arenas of glibc, eight at a time; what every call leaves behind
# shows above that: 10 KiB are 70 MiB more in the last 70 % of 10,000.
GROWTH_MIB = 64
UNWHOLE = {"short_body", "no_http"}  # of these the server waits for the rest, until our half is closed
_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_metadata_size", 2**24),  # Triton quotes a name of any length
]

Tally = Counter[tuple[str, str]]


def test_malformed_requests_are_answered_and_leave_nothing_behind(small: Server) -> None:
    made = Malformed(SEED, small.model, *_steps(small.address))
    warm, rest = COUNT * 3 // 10, COUNT - COUNT * 3 // 10
    tally: Tally = Counter()
    small.wait_idle()
    before, text = _memory(small), _asked(small.address)

    with _others_ask(small.address) as texts:
        tally += _sent(small.address, made, warm)
        warmed = _memory(small)
        tally += _sent(small.address, made, rest)
    small.wait_idle()
    after = _memory(small)
    _show(tally, {"before": before, "after 30 %": warmed, "after": after})

    assert small.running
    assert _asked(small.address) == text
    assert texts
    assert set(texts) == {text}
    assert not [count for count in tally if count[1] in {"nothing", "DEADLINE_EXCEEDED"}], tally
    assert sum(after.values()) < sum(warmed.values()) + GROWTH_MIB, (before, warmed, after)
    assert not re.findall(r'"llm_(?:tokenizer|engine): .*', small.output)  # a fault that nothing foresaw


def test_no_client_shares_memory_with_the_server(small: Server) -> None:
    mine = service_pb2.SystemSharedMemoryRegisterRequest(name="mine", key="/mine", byte_size=1)
    with GrpcWire(small.address) as wire, pytest.raises(grpc.RpcError) as caught:
        wire.stub.SystemSharedMemoryRegister(mine)
    assert "restricted" in (caught.value.details() or "")
    url = f"http://{small.address.http}/v2/systemsharedmemory/region/mine/register"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url, data=b'{"key": "/mine", "offset": 0, "byte_size": 1}')


def test_a_client_that_is_refused_leaves_no_connection_open_in_the_server(small: Server) -> None:
    """Triton 2.51 keeps one in ten of those that are cancelled behind their last message."""
    (triton,) = _children(small.process.pid)

    def open_files() -> int:
        return sum(1 for _ in Path(f"/proc/{triton}/fd").iterdir())

    small.wait_idle()
    before = open_files()
    for _ in range(60):
        with Client(small.address.grpc, model=small.model) as client, pytest.raises(InvalidArgument):
            client.generate(PROMPT, max_tokens=10**6)
        with (
            Client(small.address.grpc, model=small.model) as client,
            client.stream(PROMPT, max_tokens=2) as stream,
        ):
            next(chunk for chunk in stream if chunk.finish_reason)
    assert eventually(lambda: open_files() <= before, seconds=20)


def _asked(address: Address) -> str:
    with GrpcWire(address) as wire:
        return ask(wire, PROMPT, max_tokens=8).text


@contextmanager
def _others_ask(address: Address) -> Iterator[list[str]]:
    """What a good request is answered meanwhile, each time that the queue has room for it."""
    texts: list[str] = []
    over = threading.Event()

    def go_on() -> None:
        while not over.is_set():
            try:
                texts.append(_asked(address))
            except WireError as error:
                if "UNAVAILABLE: queue" not in error.text:
                    texts.append(f"{error}")
                over.wait(0.05)

    asking = threading.Thread(target=go_on)
    asking.start()
    try:
        yield texts
    finally:
        over.set()
        asking.join()


def _sent(address: Address, made: Malformed, count: int) -> Tally:
    """So many calls over gRPC, and a tenth as many requests over HTTP."""
    calls = [made.call() for _ in range(count)]
    posts = [made.post() for _ in range(count // 10)]
    threads = threading.local()
    channels: list[grpc.Channel] = []

    def call(one: Call) -> tuple[str, str]:
        if not hasattr(threads, "channel"):
            threads.channel = grpc.insecure_channel(address.grpc, options=_OPTIONS)
            channels.append(threads.channel)
        return f"gRPC {one.kind}", _called(threads.channel, one)

    def post(one: Post) -> tuple[str, str]:
        return f"HTTP {one.kind}", _posted(address.http, one)

    try:
        jobs = [*(partial(call, one) for one in calls), *(partial(post, one) for one in posts)]
        return Counter(a_few_at_once(jobs))
    finally:
        for channel in channels:
            channel.close()


def _called(channel: grpc.Channel, call: Call) -> str:
    """The status, and for a stream what was in it."""
    method = f"/inference.GRPCInferenceService/{call.method}"
    untyped: Any = channel  # its types know of messages, not of bytes
    try:
        if call.method == STREAM:
            answers = untyped.stream_stream(method)(iter(call.messages), timeout=ANSWER_SECONDS)
            with _leaving(answers.cancel, call.leaves_after):
                return _heard(call, list(answers))
        answer = untyped.unary_unary(method).future(call.messages[0], timeout=ANSWER_SECONDS)
        with _leaving(answer.cancel, call.leaves_after):
            answer.result()
    except grpc.FutureCancelledError:
        return "CANCELLED"
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def _heard(call: Call, messages: Sequence[bytes]) -> str:
    errors = [bool(service_pb2.ModelStreamInferResponse.FromString(one).error_message) for one in messages]
    # Bytes that Triton cannot parse end the stream, for Triton as if the client had closed its half.
    if len(errors) < len(call.messages):
        return "OK, not parsed" if call.kind in SPOILT_BYTES and not errors else "nothing"
    return "OK, refused" if any(errors) else "OK"


@contextmanager
def _leaving(leave: Callable[[], object], seconds: float | None) -> Iterator[None]:
    timer = threading.Timer(seconds or 0.0, leave)
    if seconds is not None:
        timer.start()
    yield
    timer.cancel()


def _posted(address: str, post: Post) -> str:
    host, _, port = address.rpartition(":")
    with closing(socket.create_connection((host, int(port)), ANSWER_SECONDS)) as connection:
        with suppress(OSError):  # it may have been answered and closed already
            connection.sendall(post.data)
            if post.leaves_after is not None:
                time.sleep(post.leaves_after)
                return "left"
            if post.kind in UNWHOLE:
                connection.shutdown(socket.SHUT_WR)
        return _status(connection)


def _status(connection: socket.socket) -> str:
    data = b""
    try:
        while more := connection.recv(2**16):
            data += more
    except TimeoutError:
        return "nothing"
    except ConnectionResetError:
        pass
    found = re.match(rb"HTTP/1\.\d (\d+)", data)
    return found[1].decode() if found else "closed"


def _steps(address: Address) -> tuple[Any, Any]:
    """A request to the engine step and one to the detokenizer step, as the steps before them wrote them."""
    with GrpcWire(address) as wire:
        request = wire.request(text_input=PROMPT, max_tokens=2, stream=True)
        request.model_name += "_tokenizer"
        tokenized = wire.stub.ModelInfer(request)
        engine = _as_request(f"{address.model}_engine", tokenized)
        chunk, *_ = wire.stub.ModelStreamInfer(iter([engine]))
        return engine, _as_request(f"{address.model}_detokenizer", chunk.infer_response)


def _as_request(model: str, response: Any) -> Any:
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=response.raw_output_contents)
    for output in response.outputs:
        request.inputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
    return request


def _memory(server: Server) -> dict[str, int]:
    """The private memory of tritonserver and of each step, in MiB."""
    (triton,) = _children(server.process.pid)
    found = {"tritonserver": triton} | {_step(child): child for child in _children(triton)}
    return {name: _anonymous_mib(process) for name, process in found.items()}


def _children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _step(process: int) -> str:
    found = re.search(rb"/([^/]+)/\d+/model\.py", Path(f"/proc/{process}/cmdline").read_bytes())
    return found[1].decode() if found else f"{process}"


def _anonymous_mib(process: int) -> int:
    (kib,) = re.findall(r"^RssAnon:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text(), re.MULTILINE)
    return int(kib) // 1024


def _show(tally: Tally, memory: Mapping[str, Mapping[str, int]]) -> None:
    for kind, group in itertools.groupby(sorted(tally.items()), lambda entry: entry[0][0]):
        answers = {outcome: count for (_, outcome), count in group}
        print(f"{kind}: {sum(answers.values())}: {answers}")
    outcomes: Counter[str] = Counter()
    for (kind, outcome), count in tally.items():
        outcomes[f"{kind.split()[0]} {outcome}"] += count
    print(f"{outcomes.total()} in all: {dict(outcomes.most_common())}")
    for when, found in memory.items():
        print(f"MiB {when}: {sum(found.values())}: {dict(found)}")
