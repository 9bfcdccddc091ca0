"""Text for people and JSON for programs: answers on stdout, all else on stderr.

Whatever is printed, stdout takes it: characters that its encoding lacks become question marks.
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

__all__ = ["figures", "print_json", "remark", "show_error", "show_figures", "unshowable", "write"]

# A model may answer with escape sequences; on a terminal they would be obeyed.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}

_REPLACING = "halimede-replacing"  # its name among the handlers of encoding errors


class _Unshowable:
    """Characters that stdout cannot show. One line on stderr says so. Each is replaced by itself, so that it
    does not matter how an answer is cut into pieces.
    """

    def __init__(self) -> None:
        self._found = self._told = False

    def begin(self) -> None:
        """Of a program, whose stdout takes everything from now on, as PYTHONIOENCODING says if it does."""
        self._found = self._told = False
        codecs.register_error(_REPLACING, self._replace)
        if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors in ("strict", "surrogateescape"):
            sys.stdout.reconfigure(errors=_REPLACING)

    def _replace(self, error: UnicodeError) -> tuple[str, int]:
        if not isinstance(error, UnicodeEncodeError):
            raise error
        self._found = True
        return "?" * (error.end - error.start), error.end

    def tell(self) -> None:
        if self._found and not self._told:
            self._told = True
            remedy = "PYTHONIOENCODING=utf-8 shows them, --json spells them out in ASCII"
            remark(f"stdout has characters that {sys.stdout.encoding} lacks replaced by ?: {remedy}")


unshowable = _Unshowable()


def write(text: str) -> None:
    """A piece of the answer, at once."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()
    if text.endswith("\n"):  # between lines, lest it stands in the middle of one
        unshowable.tell()


def print_json(value: object) -> None:
    """One line of ASCII: dataclasses as objects, bytes as lists of numbers."""
    print(json_format.dumps(value, default=_plain), flush=True)


def remark(text: str) -> None:
    """Something to know on stderr, which has a way of its own to show what its encoding lacks."""
    print(f"remark: {text}", file=sys.stderr, flush=True)


def _plain(value: Any) -> object:
    return list(value) if isinstance(value, bytes) else asdict(value)


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
    """What the answer took, where somebody looks."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(f"[dim]{', '.join(figures(answer))}[/]")


def figures(answer: Generation) -> list[str]:
    tokens, timing = answer.num_output_tokens, answer.timing
    found = [] if tokens is None else [f"{tokens} tokens"]
    if timing.ttft_s is not None:
        found.append(f"first after {timing.ttft_s:.2f} s")
        drawing_s = timing.e2e_s - timing.ttft_s
        if tokens is not None and tokens > 1 and drawing_s > 0:
            found.append(f"then {(tokens - 1) / drawing_s:.1f} tokens/s")
    return [*found, answer.finish_reason or "cancelled"]
