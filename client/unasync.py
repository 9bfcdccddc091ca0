"""Writes halimede/_sync from halimede/_async; with --check only tells whether it is up to date.

Usage: python client/unasync.py [--check]

A substitution that nothing uses is an error, so that the table stays true.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

PACKAGE = Path(__file__).parent / "halimede"
HEADER = "# Made by client/unasync.py from halimede/_async: change that, then run it.\n"

SUBSTITUTIONS = [
    (r"^import asyncio\n", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bhalimede/_sync\b", "this folder"),
    (r"\bhalimede\._async\b", "halimede._sync"),
    (r"\bgrpc\.aio\.", "grpc."),
    (r"\bhttpx\.Async(Client|HTTPTransport)\b", r"httpx.\1"),
    (r"\bAsyncGenerator\b", "Generator"),
    (r"\bAsync(Client|GrpcTransport|HttpTransport|Repository|Sleep|Stream|Transport)\b", r"\1"),
    (r"\ba(card|close|closing|generate|health|index|iter_bytes|load|metrics|models|unload)\b", r"\1"),
    (r"\b__a(enter|exit|iter|next)__\b", r"__\1__"),
    (r"\banext\(", "next("),
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
]


class Unasync:
    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()

    def text(self, source: str) -> str:
        for pattern, replacement in SUBSTITUTIONS:
            source, count = re.subn(pattern, replacement, source, flags=re.MULTILINE)
            self._uses[pattern] += count
        return _tidy(HEADER + source)

    def unused(self) -> list[str]:
        return [pattern for pattern, _ in SUBSTITUTIONS if not self._uses[pattern]]


def _tidy(source: str) -> str:
    """Shorter names sort and wrap differently."""
    for command in (["check", "--quiet", "--fix-only", "--select=I,SIM117"], ["format", "--quiet"]):
        ruff = [
            sys.executable,
            "-m",
            "ruff",
            *command,
            "--stdin-filename=client/halimede/made.py",
            "-",
        ]
        source = subprocess.run(
            ruff,
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=PACKAGE.parent.parent,
        ).stdout
    return source


def generate() -> dict[Path, str]:
    """Path of each file of _sync, with the text that it should have."""
    unasync = Unasync()
    sources = sorted((PACKAGE / "_async").glob("*.py"))
    texts = {PACKAGE / "_sync" / s.name: unasync.text(s.read_text("utf-8")) for s in sources}
    if unused := unasync.unused():
        raise SystemExit(f"unused substitutions: {unused}")
    return texts


def stale(texts: dict[Path, str]) -> list[str]:
    """Names of the files that are not as they should be: changed, missing or left over."""
    present = {path: path.read_text("utf-8") for path in (PACKAGE / "_sync").glob("*.py")}
    paths = texts.keys() | present.keys()
    return sorted(path.name for path in paths if texts.get(path) != present.get(path))


def main(arguments: list[str]) -> int:
    texts = generate()
    if arguments == ["--check"]:
        names = stale(texts)
        if names:
            print(f"halimede/_sync is stale: {', '.join(names)}: run python client/unasync.py")
        return 1 if names else 0
    if arguments:
        raise SystemExit(__doc__)
    for path, text in texts.items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
