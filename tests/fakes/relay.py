"""A relay in front of a gRPC server: it counts the pings of clients, and can vanish like a node."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PREFACE = 24  # bytes with which a client of HTTP/2 begins
_HEADER = 9
_PING = 6
_ANSWER = 1
PATIENCE_S = 60.0


class Relay:
    """Forwards all bytes until `vanish`. From then on it forwards none, and closes no connection."""

    def __init__(self, server: str) -> None:
        host, _, port = server.rpartition(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._gone: set[socket.socket] = set()
        self._counted = threading.Condition()
        self._pings = 0
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        for one in (self._listener, *self._sockets):
            one.close()

    def vanish(self) -> None:
        """Stops the present connections. A new one works, as if a Service had led it to another node."""
        self._gone.update(self._sockets)

    def wait_for_pings(self, number: int) -> None:
        with self._counted:
            assert self._counted.wait_for(lambda: self._pings >= number, PATIENCE_S), f"{self._pings} pings"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # the test is over
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(self._server)
            except OSError:  # the server has stopped already
                client.close()
                continue
            self._sockets.append(server)
            frames = _Frames(self._count)
            for one, other, see in ((client, server, frames.feed), (server, client, lambda _: None)):
                threading.Thread(target=self._pass_on, args=(one, other, see), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, see: Callable[[bytes], None]) -> None:
        try:
            while data := one.recv(65536):
                if one in self._gone:
                    return
                see(data)
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _count(self) -> None:
        with self._counted:
            self._pings += 1
            self._counted.notify_all()


class _Frames:
    """Parses the HTTP/2 frames of a client and calls `ping` for each of its pings."""

    def __init__(self, ping: Callable[[], None]) -> None:
        self._ping = ping
        self._data = b""
        self._skip = _PREFACE

    def feed(self, data: bytes) -> None:
        self._data += data
        while len(self._data) >= self._skip + _HEADER:
            header = self._data[self._skip : self._skip + _HEADER]
            if header[3] == _PING and not header[4] & _ANSWER:
                self._ping()
            self._skip += _HEADER + int.from_bytes(header[:3], "big")
            self._data, self._skip = self._data[self._skip :], max(0, self._skip - len(self._data))
