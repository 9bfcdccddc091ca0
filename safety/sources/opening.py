"""From what a user writes to the model that it names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safety.evaluate.model import Model, ModelError
from safety.sources.engine import MANIFEST, open_engine
from safety.sources.reference import open_reference
from safety.sources.server import open_server

ROOT: Final = Path(__file__).resolve().parents[2]
REPOSITORY: Final = ROOT / "model_repository"
_REFERENCE: Final = "reference:"


@dataclass(frozen=True, slots=True)
class Options:
    """`repository` is where models are looked up by name; `tokenizer` is a server's: a tokenizer.json, or the
    folder with it.
    """

    repository: Path = REPOSITORY
    tokenizer: Path | None = None


@contextmanager
def open_model(text: str, options: Options) -> Iterator[Model]:
    """`text` is the folder of a manifest, a model's name in the repository, `reference:` with a recipe or a
    source, or the URL of a server, whose model may follow after `#`. Raises ModelError that says what to do.
    """
    if text.startswith(("http://", "https://")):
        with closing(open_server(text, options.tokenizer)) as server:
            yield server
    elif text.startswith(_REFERENCE):
        yield open_reference(text.removeprefix(_REFERENCE))
    else:
        with closing(open_engine(_folder(text, options.repository))) as engine:
            yield engine


def _folder(text: str, repository: Path) -> Path:
    """Of the newest version, where the folder or the name of a model is given."""
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file():
        return path
    for parent in (path, repository / f"{text}_engine"):
        versions = [one for one in parent.glob(f"[0-9]*/{MANIFEST}") if one.parent.name.isdecimal()]
        if versions:
            return max((one.parent for one in versions), key=lambda one: int(one.name))
    raise ModelError(
        f"model {text!r}: no {MANIFEST} in {path} and no engine {repository / f'{text}_engine'};"
        f" build it: make engines MODEL={text}, or python -m build {text} --precision int8"
    )
