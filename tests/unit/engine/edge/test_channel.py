from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from queue import Queue

import pytest

from engine.edge.channel import MAX_MESSAGE, Signal, SignalReceiver, SignalSender
from engine.edge.triton import REGION_PREFIX, signals_of
from launcher import shared_memory


class Engine:
    """A receiver at work, with what it delivered."""

    def __init__(self) -> None:
        self.delivered: Queue[tuple[int, Signal]] = Queue()
        self.faults: list[BaseException] = []
        self.place = signals_of({})
        self.receiver = SignalReceiver(self.place, self.deliver, self.faults.append)
        self.thread = threading.Thread(target=self.receiver.run, daemon=True)

    def __enter__(self) -> Engine:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.receiver.close()
        self.thread.join(30)
        assert not self.thread.is_alive()
        assert self.receiver._socket.fileno() == -1
        assert not self.place.exists()

    def deliver(self, key: int, signal: Signal) -> None:
        if key == 13:
            raise KeyError(key)
        self.delivered.put((key, signal))

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
    for key in range(50, 100):
        while not sender.send(engine.receiver.handle(key), Signal.CANCEL):
            pass  # its socket is full for a moment
    assert [engine.next()[0] for _ in range(50)] == list(range(50, 100))


def test_each_engine_has_a_name_of_its_own(engine: Engine, sender: SignalSender) -> None:
    with Engine() as other:
        assert other.place != engine.place
        assert sender.send(other.receiver.handle(1), Signal.CANCEL)
        assert other.next() == (1, Signal.CANCEL)
        assert engine.delivered.empty()


def test_its_place_is_among_the_regions_of_its_server() -> None:
    """Which the launcher removes when the server is gone; the name of a socket has at most 107 bytes."""
    place = signals_of({REGION_PREFIX: "halimede_4194304_0123abcd_"})
    assert str(place).startswith("/dev/shm/halimede_4194304_0123abcd_signals-")
    assert len(str(place)) < 108
    assert not shared_memory.PREFIX.match(signals_of({}).name)  # no other launcher takes it for its own


STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
stranger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
try:
    stranger.sendto(b"cancel 1", sys.argv[1])
except PermissionError:
    print("refused")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user, which only root can become")
def test_another_user_cannot_write_to_it(engine: Engine, sender: SignalSender) -> None:
    command = [sys.executable, "-c", STRANGER, str(engine.place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "refused\n", done.stderr
    assert sender.send(engine.receiver.handle(2), Signal.CANCEL)
    assert engine.next() == (2, Signal.CANCEL)


def test_its_mode_is_0600_with_any_umask() -> None:
    before = os.umask(0)
    try:
        with Engine() as engine:
            assert stat.S_IMODE(engine.place.stat().st_mode) == 0o600
    finally:
        os.umask(before)


def test_what_deliver_raises_is_reported_and_the_next_signal_arrives(
    engine: Engine, sender: SignalSender
) -> None:
    for key in (13, 14):
        assert sender.send(engine.receiver.handle(key), Signal.CANCEL)
    assert engine.next() == (14, Signal.CANCEL)
    assert [type(fault) for fault in engine.faults] == [KeyError]


@pytest.mark.parametrize(
    "message",
    [
        b"",
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
def test_an_invalid_message_is_ignored(engine: Engine, sender: SignalSender, message: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(message, str(engine.place))
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
def test_a_signal_to_an_unknown_engine_is_not_sent(sender: SignalSender, handle: str) -> None:
    assert not sender.send(handle, Signal.FAULT)


def test_a_signal_to_an_engine_that_has_ended_is_not_sent(sender: SignalSender) -> None:
    with Engine() as gone:
        handle = gone.receiver.handle(1)
    assert not sender.send(handle, Signal.CANCEL)


def test_an_engine_that_does_not_listen_never_blocks(sender: SignalSender) -> None:
    place = signals_of({})
    receiver = SignalReceiver(place, lambda key, signal: None, print)
    with closing(receiver._socket):
        results = [sender.send(receiver.handle(key), Signal.CANCEL) for key in range(5000)]
    place.unlink()
    assert results[0]
    assert not results[-1]


def test_a_message_fits_its_buffer() -> None:
    assert len(f"{Signal.CANCEL} {2**63}") < MAX_MESSAGE
