"""Opens a source, which is written as one string:

package:NAME[@VERSION]   an installed Python package that carries a GGUF file
PATH                     a folder of safetensors, or a .gguf file
ORG/NAME[@REVISION]      a Hugging Face id
"""

from __future__ import annotations

import re
from pathlib import Path

from build.checkpoint import Checkpoint
from build.errors import BadInput
from build.sources.folder import open_folder
from build.sources.gguf import open_gguf
from build.sources.hub import Stage, open_hub
from build.sources.package import open_package

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@\S+)?")


def open_source(source: str, stage: Stage | None = None) -> Checkpoint:
    """The checkpoint of a source; BadInput says what is wrong or how to get it. `stage` shows a download."""
    if source.startswith("package:"):
        name, _, version = source.removeprefix("package:").partition("@")
        return open_package(name, version or None)
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        return open_gguf(path)
    if source and path.is_dir():
        return open_folder(path)
    if _HUB_ID.fullmatch(source) and not source.startswith("."):
        name, _, revision = source.partition("@")
        return open_hub(name, revision or None, stage)
    raise BadInput(
        f"source {source!r}: no such folder; expected a folder, a .gguf file, ORG/NAME[@REVISION]"
        " or package:NAME[@VERSION]"
    )
