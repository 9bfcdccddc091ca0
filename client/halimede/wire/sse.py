"""Server-sent events (WHATWG HTML, section 9.2), incrementally: bytes in, data out."""

from __future__ import annotations

import re

__all__ = ["SseParser"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class SseParser:
    """Lines are cut as bytes and decoded whole, so a character may be split over two feeds.

    Comments and the fields event, id and retry are skipped: Triton sends data alone. An event that
    the end of the stream cuts off is dropped, as the standard says.
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
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", errors="replace"))
        return None

    def _dispatch(self) -> str | None:
        if not self._data:
            return None
        data, self._data = "\n".join(self._data), []
        return data
