"""Reads prompts from stdin and files: decodes them and removes a byte-order mark."""

from __future__ import annotations

import codecs
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

from halimede.errors import InvalidArgument

__all__ = ["Lines", "decoded", "read_file", "read_stdin"]

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins as UTF-16-LE
_CONVERT = "convert it to UTF-8, for example with `iconv -f {} -t UTF-8`"


def read_stdin() -> str:
    """The whole of stdin. Raises InvalidArgument for bytes that are invalid in its encoding."""
    return decoded(sys.stdin.buffer.read(), "stdin", sys.stdin.encoding, _errors())


def read_file(path: Path) -> str:
    """The text of a file. Raises OSError, and InvalidArgument for a file that is not UTF-8."""
    return decoded(path.read_bytes(), str(path), "utf-8")


class Lines:
    """The lines of stdin. Each call reads one, so that an answer can be written before the next question."""

    def __init__(self) -> None:
        self._is_utf8 = False  # true after a byte-order mark

    def __call__(self, prompt: str) -> str:
        """The next line. On a terminal the user types it after the prompt.

        Raises EOFError at the end, and InvalidArgument for bytes that are invalid in the encoding of stdin.
        """
        if sys.stdin.isatty():
            try:
                return input(prompt)
            except UnicodeDecodeError as error:
                raise _undecodable("stdin", error, sys.stdin.encoding) from error
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        self._is_utf8 = self._is_utf8 or line.startswith(codecs.BOM_UTF8)
        return decoded(line, "stdin", "utf-8" if self._is_utf8 else sys.stdin.encoding, _errors())


def decoded(data: bytes, name: str, encoding: str, errors: str = "strict") -> str:
    """The text of the bytes, with line feeds as line ends. A UTF-8 byte-order mark overrides the encoding.

    Raises InvalidArgument, with `name`, for bytes that are invalid in the encoding.
    """
    is_wide = codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))
    if not is_wide and (data.startswith(_WIDE_MARKS) or b"\0" in data):
        raise InvalidArgument.of("prompt", name, f"looks like UTF-16: {_CONVERT.format('UTF-16')}")
    if data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
        encoding = "utf-8"
    try:
        return TextIOWrapper(BytesIO(data), encoding, errors).read()
    except UnicodeDecodeError as error:
        raise _undecodable(name, error, encoding) from error


def _errors() -> str:
    """The error handler of PYTHONIOENCODING. The default of the C locale lets invalid bytes through."""
    errors = sys.stdin.errors or "strict"
    return "strict" if errors == "surrogateescape" else errors


def _undecodable(name: str, error: UnicodeDecodeError, encoding: str) -> InvalidArgument:
    byte = f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is not {encoding}"
    more = ", or set PYTHONIOENCODING to its encoding" if name == "stdin" else ""
    return InvalidArgument.of("prompt", name, f"{byte}: {_CONVERT.format('ITS_ENCODING')}{more}")
