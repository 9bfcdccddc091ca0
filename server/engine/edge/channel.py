"""How the detokenizer tells the engine that a client is gone.

Triton passes a cancellation only to the next step of an ensemble, never to the running engine. The
detokenizer sees it on the next chunk, and sends the request's handle back over a Unix datagram socket. The
socket is a file that only the server's own user may write to; otherwise any local process could cancel
requests, or fill the socket and so prevent cancellation. The file is among the server's shared-memory
regions, which are removed when the server has ended, in whatever way.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

MAX_MESSAGE: Final = 512


class Signal(StrEnum):
    CANCEL = "cancel"
    FAULT = "fault"


class SignalReceiver:
    """The engine's end. `run` calls `deliver(key, signal)` for each message until `close`.

    What `deliver` raises is reported, and the next message is awaited. Raises OSError if the file exists.
    """

    def __init__(
        self, place: Path, deliver: Callable[[int, Signal], None], report: Callable[[BaseException], None]
    ) -> None:
        self._place = place
        self._deliver = deliver
        self._report = report
        self._closing = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        os.fchmod(self._socket.fileno(), 0o600)  # the file has this mode from its first moment on
        self._socket.bind(str(place))

    def handle(self, key: int) -> str:
        return f"{self._place}/{key}"

    def run(self) -> None:
        with self._socket:
            while not self._closing:
                message = self._socket.recv(MAX_MESSAGE)
                try:
                    self._receive(message)
                except Exception as error:  # noqa: BLE001  one message must not end cancellation for good
                    self._report(error)
        self._place.unlink(missing_ok=True)

    def close(self) -> None:
        """`run` ends, closes the socket and removes its file."""
        self._closing = True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", str(self._place))  # wakes it

    def _receive(self, message: bytes) -> None:
        signal, _, key = message.decode("ascii", "replace").partition(" ")
        if key.isdecimal() and signal in list(Signal):
            self._deliver(int(key), Signal(signal))


class SignalSender:
    """The detokenizer's end."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, handle: str, signal: Signal) -> bool:
        """False when the engine cannot be reached: it has ended, its socket is full, or the handle is
        malformed.
        """
        place, _, key = handle.rpartition("/")
        try:
            self._socket.sendto(f"{signal} {key}".encode("ascii"), place)
        except (OSError, ValueError):  # UnicodeError is a ValueError, and so is a null in a path
            return False
        return True
