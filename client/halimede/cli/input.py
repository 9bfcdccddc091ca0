"""Prompts from stdin and files: text in its encoding, of which a byte-order mark is no part."""

from __future__ import annotations

import codecs
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

from halimede.errors import InvalidArgument

__all__ = ["Lines", "decoded", "read_file", "read_stdin"]

_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)  # UTF-32-LE begins as UTF-16-LE
_CONVERT = "convert it to UTF-8, as `iconv -f {} -t UTF-8` does"


def read_stdin() -> str:
    """All of it. Raises InvalidArgument for bytes that are no text in its encoding."""
    return decoded(sys.stdin.buffer.read(), "stdin", sys.stdin.encoding, _errors())


def read_file(path: Path) -> str:
    """Raises OSError, and InvalidArgument for a file that is no UTF-8."""
    return decoded(path.read_bytes(), str(path), "utf-8")


class Lines:
    """Of stdin, one for each call: an answer may go out before the next question is written."""

    def __init__(self) -> None:
        self._is_utf8 = False  # as the first line tells where it begins with the mark

    def __call__(self, prompt: str) -> str:
        """What somebody types after the prompt, or the next line of a file or pipe, which sees no prompt.

        Raises EOFError at the end, InvalidArgument for bytes that are no text in its encoding.
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
    """The text of these bytes, its lines ended by line feeds. The mark of UTF-8 tells its encoding and goes.

    Raises InvalidArgument, which names where they come from, for what is no text in that encoding.
    """
    if not _is_wide(encoding) and (data.startswith(_WIDE_MARKS) or b"\0" in data):
        problem = f"has the marks or zero bytes of UTF-16: {_CONVERT.format('UTF-16')}"
        raise InvalidArgument.of("prompt", name, problem)
    if data.startswith(codecs.BOM_UTF8):
        data = data.removeprefix(codecs.BOM_UTF8)
        encoding = "utf-8"
    try:
        return TextIOWrapper(BytesIO(data), encoding, errors).read()
    except UnicodeDecodeError as error:
        raise _undecodable(name, error, encoding) from error


def _errors() -> str:
    """What PYTHONIOENCODING says; that of the C locale lets bytes through that no server takes."""
    errors = sys.stdin.errors or "strict"
    return "strict" if errors == "surrogateescape" else errors


def _is_wide(encoding: str) -> bool:
    return codecs.lookup(encoding).name.startswith(("utf-16", "utf-32"))


def _undecodable(name: str, error: UnicodeDecodeError, encoding: str) -> InvalidArgument:
    byte = f"byte {error.start + 1} (0x{error.object[error.start]:02x}) is no {encoding}"
    told = " or say in PYTHONIOENCODING what it is" if name == "stdin" else ""
    return InvalidArgument.of("prompt", name, f"{byte}: {_CONVERT.format('ITS_ENCODING')}{told}")
