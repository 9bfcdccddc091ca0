"""How the detokenizer tells the engine that a client is gone.

Triton passes a cancellation only to the next step of an ensemble, never to the running engine. The
detokenizer sees it on the next chunk, and sends the request's handle back over a Unix datagram socket. Its
name is abstract (Linux): nothing is left on disk when a process is killed. The random part of the name keeps
others from guessing it.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from enum import StrEnum
from typing import Final

MAX_MESSAGE: Final = 512


class Signal(StrEnum):
    CANCEL = "cancel"
    FAULT = "fault"


class SignalReceiver:
    """The engine's end. `run` calls `deliver(key, signal)` for each message until `close`."""

    def __init__(self, deliver: Callable[[int, Signal], None]) -> None:
        self.name = f"halimede-{os.getpid()}-{secrets.token_hex(8)}"
        self._deliver = deliver
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{self.name}")

    def handle(self, key: int) -> str:
        return f"{self.name}/{key}"

    def run(self) -> None:
        with self._socket:
            while message := self._socket.recv(MAX_MESSAGE):
                signal, _, key = message.decode("ascii", "replace").partition(" ")
                if key.isdecimal() and signal in list(Signal):
                    self._deliver(int(key), Signal(signal))

    def close(self) -> None:
        """An empty datagram ends `run`, which closes the socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", f"\0{self.name}")


class SignalSender:
    """The detokenizer's end."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, handle: str, signal: Signal) -> bool:
        """False when the engine cannot be told: it has gone, its socket is full, or the handle is broken."""
        name, _, key = handle.partition("/")
        try:
            self._socket.sendto(f"{signal} {key}".encode("ascii"), f"\0{name}")
        except (OSError, UnicodeError):
            return False
        return True
