from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import Queue

import pytest

from engine.channel import MAX_MESSAGE, Signal, SignalReceiver, SignalSender


class Engine:
    """A receiver at work, with what it delivered."""

    def __init__(self) -> None:
        self.delivered: Queue[tuple[int, Signal]] = Queue()
        self.receiver = SignalReceiver(lambda key, signal: self.delivered.put((key, signal)))
        self.thread = threading.Thread(target=self.receiver.run, daemon=True)

    def __enter__(self) -> Engine:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.receiver._socket.fileno() == -1

    def next(self) -> tuple[int, Signal]:
        return self.delivered.get(timeout=30)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture
def sender() -> Iterator[SignalSender]:
    one = SignalSender()
    with closing(one._socket):
        yield one


@pytest.mark.parametrize("signal", Signal)
def test_a_signal_arrives_with_its_key(engine: Engine, sender: SignalSender, signal: Signal) -> None:
    assert sender.send(engine.receiver.handle(17), signal)
    assert engine.next() == (17, signal)


def test_signals_arrive_in_order(engine: Engine, sender: SignalSender) -> None:
    for key in range(50):
        while not sender.send(engine.receiver.handle(key), Signal.CANCEL):
            pass  # its socket is full for a moment
    assert [engine.next()[0] for _ in range(50)] == list(range(50))


def test_each_engine_has_a_name_of_its_own(engine: Engine, sender: SignalSender) -> None:
    with Engine() as other:
        assert other.receiver.name != engine.receiver.name
        assert sender.send(other.receiver.handle(1), Signal.CANCEL)
        assert other.next() == (1, Signal.CANCEL)
        assert engine.delivered.empty()


def test_a_name_leaves_nothing_on_disk_and_fits() -> None:
    receiver = SignalReceiver(lambda key, signal: None)
    with closing(receiver._socket):
        assert receiver._socket.getsockname() == b"\0" + receiver.name.encode()
        assert len(receiver.handle(2**63)) < 100


@pytest.mark.parametrize(
    "message",
    [
        b"cancel",
        b"cancel ",
        b"cancel x",
        b"cancel -1",
        b"stop 5",
        b"\xff\xfe",
        b" 5",
        b"cancel 5 6",
        b"x" * 4096,
    ],
)
def test_what_is_no_signal_is_ignored(engine: Engine, sender: SignalSender, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(message, f"\0{engine.receiver.name}")
    sender.send(engine.receiver.handle(1), Signal.CANCEL)
    assert engine.next() == (1, Signal.CANCEL)


@pytest.mark.parametrize(
    "handle",
    [
        "",
        "/",
        "nobody/1",
        "\ufffd/\ufffd",
        "é/1",
        "x" * 500 + "/1",
        "nobody/é",
        "nobody",
        "a\0b/1",
        "\ud800/1",
    ],
)
def test_an_engine_that_is_not_there_is_not_told(sender: SignalSender, handle: str) -> None:
    assert not sender.send(handle, Signal.FAULT)


def test_an_engine_that_has_gone_is_not_told(sender: SignalSender) -> None:
    with Engine() as gone:
        handle = gone.receiver.handle(1)
    assert not sender.send(handle, Signal.CANCEL)


def test_an_engine_that_does_not_listen_never_blocks(sender: SignalSender) -> None:
    receiver = SignalReceiver(lambda key, signal: None)
    with closing(receiver._socket):
        results = [sender.send(receiver.handle(key), Signal.CANCEL) for key in range(5000)]
    assert results[0]
    assert not results[-1]


def test_a_message_fits_its_buffer() -> None:
    assert len(f"{Signal.CANCEL} {2**63}") < MAX_MESSAGE
