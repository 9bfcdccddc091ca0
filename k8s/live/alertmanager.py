"""Debian's Alertmanager, run from where it was unpacked: it has the path of its templates built in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

_BUILT_IN: Final = "/usr/share/prometheus/alertmanager"
_HERE: Final = "templates"


def runnable(program: Path, folder: Path) -> Path:
    """The program itself where its templates are installed; else a copy in `folder`, to be run from there,
    with a path of the same length built in that leads to the templates beside it.
    """
    if (Path(_BUILT_IN) / "default.tmpl").exists():
        return program
    (folder / _HERE).symlink_to(program.resolve().parents[1] / Path(_BUILT_IN).relative_to("/usr"))
    copy = folder / program.name
    shutil.copy2(program, copy)
    other = "." + _HERE.rjust(len(_BUILT_IN) - 1, "/")
    copy.write_bytes(copy.read_bytes().replace(_BUILT_IN.encode(), other.encode()))
    return copy
