"""A Hugging Face repository, through huggingface_hub's cache."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from build.checkpoint import Checkpoint
from build.errors import BadInput, BuildError
from build.sources.folder import open_folder

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "README.md"]


def open_hub(name: str, revision: str | None) -> Checkpoint:
    """The checkpoint at a revision; the origin records the commit it resolved to."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    except ImportError as error:
        raise BuildError(
            f"{name}: huggingface_hub is not installed: run `pip install huggingface_hub`"
        ) from error
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except GatedRepoError as error:
        raise BadInput(f"{name}: is gated: accept its terms, then set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f" at {revision}" if revision else ""
        raise BadInput(f"{name}{at}: not on the hub, or private: set HF_TOKEN") from error
    except Exception as error:  # the hub's transport errors share no base across its versions
        raise BuildError(
            f"{name}: the hub cannot be reached ({type(error).__name__}):"
            " go online, or give a local folder with --source"
        ) from error
    opened = open_folder(folder)
    return replace(
        opened, origin=replace(opened.origin, kind="hub", id=name, revision=folder.name)
    )
