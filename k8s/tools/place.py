"""Folders that are either complete or absent, and the links to the programs in them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(folder: Path) -> Iterator[Path]:
    """A folder to fill, moved to `folder` when the block ends well and removed when it does not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    growing = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    growing.chmod(0o755)
    try:
        yield growing
        shutil.rmtree(folder, ignore_errors=True)
        growing.rename(folder)
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def link(at: Path, program: Path) -> None:
    """Make `at` a link to `program`, whatever it was before."""
    at.parent.mkdir(parents=True, exist_ok=True)
    if at.is_symlink() and at.readlink() == program:
        return
    at.unlink(missing_ok=True)
    at.symlink_to(program)
