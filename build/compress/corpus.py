"""The texts that passes read where a recipe names none, and how any texts become windows of ids."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from build.errors import BadInput
from build.quantise import Ids
from build.token_table import load_tokenizer

_CALIBRATION = Path(__file__).with_name("calibration.txt")
# Tests and programs have little prose, pydoc_data is what builds are scored on, and the rest is not Python's.
_LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "idlelib",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
    "site-packages",
    "dist-packages",
}
_SHORTEST = 80  # characters of a docstring that says more than one line
_CHARACTERS = 16  # a token, at the very most: English takes four


@cache
def default_texts() -> tuple[str, ...]:
    """The build's calibration text, then the docstrings of each module of Python's standard library.

    1.5 MB, the same for one version of Python. Takes some seconds: the modules are parsed, not imported.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    modules = [path for path in library.rglob("*.py") if not _LEFT_OUT & {*path.relative_to(library).parts}]
    texts = ("\n\n".join(docstrings(path.read_bytes())) for path in sorted(modules))
    return (_CALIBRATION.read_text(encoding="utf-8"), *filter(None, texts))


def docstrings(source: bytes) -> Iterator[str]:
    """Those of a module, its classes and functions that have more than a line; none of a damaged file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of invalid escapes, which are not ours
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and len(text) >= _SHORTEST:
                yield text


def windows(tokenizer_json: bytes, texts: Sequence[str], count: int, length: int) -> Ids:
    """Ids [count, length], or fewer windows: passages spread evenly over the texts, in order, none twice.

    Each is a prompt as in serving, with its special tokens. BadInput where the texts do not fill one window.
    """
    tokenizer = load_tokenizer(tokenizer_json)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    text = "\n\n".join(texts)
    found: list[list[int]] = []
    end = 0
    for start in range(0, len(text), max(1, len(text) // count)):
        encoding = tokenizer.encode(text[start : start + _CHARACTERS * length]) if start >= end else None
        if encoding and len(encoding.ids) >= length and len(found) < count:
            found.append(encoding.ids[:length])
            end = start + encoding.offsets[length - 1][1]
    if not found:
        raise BadInput(
            f"texts: {len(text)} characters do not fill one window of {length} tokens: give longer ones"
        )
    return np.array(found, np.int64)
