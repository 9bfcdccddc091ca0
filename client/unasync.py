"""Writes halimede/_sync from halimede/_async. With --check it writes nothing and fails where _sync is stale.

Usage: python client/unasync.py [--check]

A substitution that changes no file is an error, so that the table holds no dead rows.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent / "halimede"
HEADER = "# Generated from halimede/_async by client/unasync.py: change the source and run it again.\n"

SUBSTITUTIONS = [
    (r"^import asyncio\n", ""),
    (r"\basyncio\.sleep\b", "time.sleep"),
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


def generate() -> dict[Path, str]:
    """The text that each file of _sync should have, by its path."""
    sources = {path.name: path.read_text("utf-8") for path in sorted((PACKAGE / "_async").glob("*.py"))}
    for pattern, replacement in SUBSTITUTIONS:
        made = {n: re.sub(pattern, replacement, s, flags=re.MULTILINE) for n, s in sources.items()}
        if made == sources:
            raise SystemExit(f"unused substitution: {pattern}")
        sources = made
    return {PACKAGE / "_sync" / name: _tidy(HEADER + source) for name, source in sources.items()}


def _tidy(source: str) -> str:
    """Sorts and wraps again: the names in it are shorter now."""
    for command in (["check", "--quiet", "--fix-only", "--select=I,SIM117"], ["format", "--quiet"]):
        source = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename=client/halimede/made.py", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=PACKAGE.parent.parent,
        ).stdout
    return source


def stale(texts: dict[Path, str]) -> list[str]:
    """Names of the files of _sync that differ from `texts`, are missing or are left over."""
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
