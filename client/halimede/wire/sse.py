"""An incremental parser of server-sent events (WHATWG HTML, section 9.2): bytes in, data out."""

from __future__ import annotations

import re

__all__ = ["SseParser"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseParser:
    """The data of each event. A line is decoded once it is whole, so a character may arrive in two pieces.

    The parser skips comments and the fields event, id and retry, which Triton does not send. It drops an
    event that the end of the stream cuts off, as the standard requires.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._after_cr = False
        self._at_start = True

    def feed(self, received: bytes) -> list[str]:
        """The data of the events that these bytes complete."""
        if self._after_cr and received:
            received = received.removeprefix(b"\n")
            self._after_cr = False
        if received:
            self._after_cr = received.endswith(b"\r")
        *lines, self._rest = _LINE_END.split(self._rest + received)
        return [data for line in lines if (data := self._line(line)) is not None]

    def _line(self, line: bytes) -> str | None:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", errors="replace"))
        if line or not self._data:  # a blank line ends an event
            return None
        data, self._data = "\n".join(self._data), []
        return data
