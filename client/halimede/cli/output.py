"""Text for people and JSON for programs: answers on stdout, all else on stderr."""

from __future__ import annotations

import json as json_format
import sys
from dataclasses import asdict
from typing import Any

from rich.console import Console

from halimede.cli.exits import as_json, hint
from halimede.errors import HalimedeError
from halimede.results import Generation

__all__ = ["figures", "print_json", "show_error", "show_figures", "write"]

# A model may answer with escape sequences; on a terminal they would be obeyed.
_CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n"}


def write(text: str) -> None:
    """A piece of the answer, at once."""
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def print_json(value: object) -> None:
    """One line: dataclasses as objects, bytes as lists of numbers."""
    print(json_format.dumps(value, ensure_ascii=False, default=_plain), flush=True)


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
