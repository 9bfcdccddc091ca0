"""A Hugging Face repository, through huggingface_hub's cache.

Only those files are fetched that transformers would load and `open_folder` reads: a repository often holds
the same weights in other precisions and formats.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from glob import escape
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import (
    ResolvedRevision,
    get_cached_repo_tree,
    is_offline_mode,
    list_repo_tree,
    resolve_revision,
    snapshot_download,
    try_to_load_from_cache,
)
from huggingface_hub.errors import CachedRepoTreeNotFoundError, HfHubHTTPError
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.tqdm import tqdm

from build.checkpoint import Checkpoint
from build.errors import BadInput, BuildError
from build.sources.files import conversion, read_object
from build.sources.folder import open_folder, shard_names, weights_file
from build.sources.hub_transport import Source, asked_wait, explained, limit_waits, offline

Stage = Callable[[str, int], Callable[[], None]]

_CONFIG = "config.json"
_OTHER_FILES = {
    _CONFIG,
    "README.md",  # for the licence
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "target_vocab.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
}
_VOCABULARIES = (".model", ".spm")
_CHAT_TEMPLATES = PurePosixPath("additional_chat_templates")


def open_hub(name: str, revision: str | None, stage: Stage | None = None) -> Checkpoint:
    """The checkpoint at a revision; the origin records the commit it resolved to.

    `stage` shows the download of the weights, in percent. A BuildError says what is wrong, and what to do.
    """
    limit_waits()
    source = Source(name, revision)
    with explained(source):
        folder = _download(source, stage)
    opened = open_folder(folder)
    return replace(opened, origin=replace(opened.origin, kind="hub", id=name, revision=folder.name))


def _download(source: Source, stage: Stage | None) -> Path:
    """The folder of the commit, with all that `open_folder` reads.

    config.json comes first, as it may name the weights; then the small files; then the weights, under a bar.
    """
    commit = _resolved(source)
    fetch = partial(_fetch, source, commit)
    folder = _snapshot(source, commit, [_CONFIG])
    sizes = _sizes(source, commit, folder)
    first = None
    if _CONFIG in sizes:
        first = weights_file(read_object(folder / _CONFIG), folder, sizes.__contains__)
    if first is None:
        raise BadInput(f"{source}: {_instead(source, sizes)}")
    fetch([*other_files(sizes), *([first] if first.endswith(".json") else [])])
    shards = shard_names(folder, first)
    absent = [shard for shard in shards if shard not in sizes]
    if absent:
        raise BadInput(f"{source}: {first} names {', '.join(absent)}: not in the repository")
    missing = _missing(source, commit, shards)
    if missing:
        fetch(shards, _shown(stage, sum(sizes[shard] for shard in missing)) if stage else _Unseen)
    return folder


def _resolved(source: Source) -> ResolvedRevision:
    """The commit that was asked for. If the hub is unreachable it is the cache's, and huggingface_hub warns.

    This is the one request that huggingface_hub does not repeat when the hub asks to wait.
    """
    while True:
        try:
            return resolve_revision(source.name, revision=source.revision, local_files_only=is_offline_mode())
        except HfHubHTTPError as error:
            if error.response.status_code != 429:
                raise
            time.sleep(asked_wait(error.response.headers) or 5.0)


def _fetch(
    source: Source, commit: ResolvedRevision, files: Sequence[str], bars: type[tqdm] | None = None
) -> None:
    """Fetches these files; BuildError if some are missing then, which huggingface_hub may overlook."""
    _snapshot(source, commit, files, bars)
    missing = _missing(source, commit, files)
    if missing:
        raise BuildError(f"{source}: the hub did not give {', '.join(missing)}: build again")


def _snapshot(
    source: Source, commit: ResolvedRevision, files: Sequence[str], bars: type[tqdm] | None = None
) -> Path:
    """The folder of the commit, with those of the files that the repository has."""
    missing = _missing(source, commit, files) if is_offline_mode() else []
    if missing:
        raise offline(source, f"lacks {', '.join(missing)} of it")
    names = [escape(file) for file in files]
    return Path(
        snapshot_download(source.name, revision=commit, allow_patterns=names, tqdm_class=bars or _Unseen)
    )


def _missing(source: Source, commit: ResolvedRevision, files: Sequence[str]) -> list[str]:
    cached = partial(try_to_load_from_cache, source.name, revision=commit.resolved)
    return [file for file in files if not isinstance(cached(file), str)]


def _sizes(source: Source, commit: ResolvedRevision, folder: Path) -> dict[str, int]:
    """Bytes of every file of the repository; not every program leaves that list in the cache."""
    try:
        tree = get_cached_repo_tree(source.name, revision=commit)
    except CachedRepoTreeNotFoundError as error:
        if is_offline_mode():
            raise offline(source, "does not say whether it has all of it", f"{folder} if it has") from error
        listed = list_repo_tree(source.name, revision=commit.resolved, recursive=True)
        tree = [entry for entry in listed if isinstance(entry, RepoFile)]
    return {file.path: file.size for file in tree}


def other_files(files: Iterable[str]) -> list[str]:
    """The files that are read in addition to the weights; sub-folders hold other formats."""
    return [file for file in files if file in _OTHER_FILES or _is_of_tokenizer(PurePosixPath(file))]


def _is_of_tokenizer(file: PurePosixPath) -> bool:
    if file.parent == _CHAT_TEMPLATES:
        return file.suffix == ".jinja"
    return file.parent == PurePosixPath() and file.suffix in _VOCABULARIES


def _instead(source: Source, files: Collection[str]) -> str:
    """What a repository without a checkpoint holds, and what to do with it."""
    if "adapter_config.json" in files:
        return (
            "holds an adapter, no model: merge it into its base with peft, and give that folder as --source"
        )
    if not {"pytorch_model.bin", "pytorch_model.bin.index.json"}.isdisjoint(files):
        return f"holds no safetensors: {conversion(source.name, source.folder, source.revision)}"
    gguf = next((file for file in sorted(files) if file.endswith(".gguf")), None)
    if gguf is not None:
        return f"holds GGUF files: run `{source.command(gguf)}`, and give that file as --source"
    if _CONFIG not in files:
        return f"has no {_CONFIG}: give a repository that transformers loads"
    return "has neither model.safetensors nor model.safetensors.index.json: give a repository that has"


class _Unseen(tqdm):
    """No bar: huggingface_hub's would be drawn over those of the command."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **{**settings, "disable": True})  # type: ignore[no-untyped-call]


def _shown(stage: Stage, total: int) -> type[tqdm]:
    """Bars that advance a stage of 100 steps by the bytes that are stored, of `total`."""
    advance, lock = stage("download", 100), threading.Lock()
    stored = shown = 0

    class Shown(_Unseen):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._counts = settings.get("name") == "huggingface_hub.snapshot_download"  # not those received
            super().__init__(*arguments, **settings)

        def update(self, n: float | None = 1) -> bool | None:
            nonlocal stored, shown
            with lock:  # files are fetched in threads
                stored += int(n or 0) if self._counts else 0
                while shown < min(100, 100 * stored // max(total, 1)):
                    advance()
                    shown += 1
            return None

    return Shown
