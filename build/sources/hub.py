"""A Hugging Face repository, through huggingface_hub's cache."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from build.checkpoint import Checkpoint
from build.errors import BadInput, HubUnreachable
from build.sources.folder import conversion, open_folder
from build.sources.marian_tokenizer import is_marian

_PATTERNS = ["*.safetensors", "*.json", "*.jinja", "*.spm", "README.md"]


def open_hub(name: str, revision: str | None) -> Checkpoint:
    """The checkpoint at a revision; the origin records the commit it resolved to."""
    folder = _download(name, revision)
    if not any(folder.glob("*.safetensors")):
        raise BadInput(f"{name}: holds no safetensors: {conversion(name, name.rpartition('/')[2])}")
    if not (folder / "tokenizer.json").is_file() and not is_marian(folder):
        copy = name.rpartition("/")[2]
        raise BadInput(
            f"{name}: holds no tokenizer.json: fetch all of it, `hf download {name} --local-dir {copy}`, and"
            " build from that folder"
        )
    opened = open_folder(folder)
    return replace(opened, origin=replace(opened.origin, kind="hub", id=name, revision=folder.name))


def _download(name: str, revision: str | None) -> Path:
    at = f"{name}@{revision}" if revision else name
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would report every retry
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=_PATTERNS))
    except GatedRepoError as error:
        raise BadInput(f"{at}: is gated: accept its terms on the hub, then set HF_TOKEN") from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BadInput(f"{at}: not on the hub, or private: set HF_TOKEN") from error
    except Exception as error:  # the hub's transport errors have changed their base across versions
        raise HubUnreachable(
            f"{at}: the hub cannot be reached ({type(error).__name__}): where it can be, run"
            f" `hf download {name} --local-dir {name.rpartition('/')[2]}`, and bring that folder here"
        ) from error
