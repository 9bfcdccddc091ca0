"""Prints answers on stdout, as text or JSON, and everything else on stderr.

Printing never fails for a character that the encoding of stdout lacks: it becomes a question mark.
"""

from __future__ import annotations

import codecs
import json as json_format
import sys
from dataclasses import asdict
from io import TextIOWrapper
from typing import Any

from rich.console import Console

from halimede.cli.exits import as_json, hint
from halimede.errors import HalimedeError
from halimede.results import Generation

__all__ = ["figures", "print_json", "show_error", "show_figures", "unshowable", "warn", "write"]

# An answer may contain escape sequences, which a terminal would execute.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

_REPLACING = "halimede-replacing"  # the name of our handler of encoding errors


class _Unshowable:
    """Replaces characters that stdout cannot show, and warns once.

    It replaces each by one question mark, so the output does not depend on how an answer is cut into chunks.
    """

    def __init__(self) -> None:
        self._found = self._warned = False

    def begin(self) -> None:
        """Makes stdout replace characters, unless PYTHONIOENCODING names another handler."""
        self._found = self._warned = False
        codecs.register_error(_REPLACING, self._replace)
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
            sys.stdout.reconfigure(errors=_REPLACING)

    def _replace(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        self._found = True
        return "?" * (error.end - error.start), error.end

    def warn_once(self) -> None:
        if self._found and not self._warned:
            self._warned = True
            remedy = "set PYTHONIOENCODING=utf-8, or use --json, which escapes them"
            warn(f"characters that {sys.stdout.encoding} lacks are shown as ?: {remedy}")


unshowable = _Unshowable()


def write(text: str) -> None:
    """Writes a piece of the answer without delay."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    if text.endswith("\n"):  # so that the warning does not interrupt a line
        unshowable.warn_once()


def print_json(value: object) -> None:
    """Prints a value as one line of ASCII: dataclasses as objects, bytes as lists of numbers."""

    def plain(value: Any) -> object:
        return list(value) if isinstance(value, bytes) else asdict(value)

    print(json_format.dumps(value, default=plain), flush=True)


def warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)  # stderr escapes what its encoding lacks


def show_error(error: HalimedeError, *, json: bool = False) -> None:
    if json:
        print_json(as_json(error))
        return
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error:[/]", end=" ")
    console.print(str(error), markup=False)
    if (advice := hint(error)) is not None:
        console.print(f"  {advice}", markup=False)


def show_figures(answer: Generation) -> None:
    """Prints the figures of an answer if stderr is a terminal."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(f"[dim]{', '.join(figures(answer))}[/]")


def figures(answer: Generation) -> list[str]:
    """The number of tokens, the time to the first one, the throughput after it, and why the answer ended."""
    tokens, timing = answer.num_output_tokens, answer.timing
    found = [] if tokens is None else [f"{tokens} tokens"]
    if timing.ttft_s is not None:
        found.append(f"first after {timing.ttft_s:.2f} s")
        rest_s = timing.e2e_s - timing.ttft_s
        if tokens is not None and tokens > 1 and rest_s > 0:
            found.append(f"then {(tokens - 1) / rest_s:.1f} tokens/s")
    return [*found, answer.finish_reason or "cancelled"]
