"""A recipe says what to build and what it must be worth: a flat TOML file, read strictly."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from build.errors import BadInput
from build.quantise import Precision
from build.shape import Shape, parse_shape
from build.terms import Terms, parse_terms

RECIPE_FOLDER = Path(__file__).parent / "recipes"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_E = TypeVar("_E", bound=Enum)
_COMMANDS = ("list", "recommend")
_STEPS = ("_engine", "_tokenizer", "_detokenizer")


class Task(Enum):
    """`chat` needs a chat template; the others take text only."""

    CHAT = "chat"
    COMPLETE = "complete"
    SUMMARIZE = "summarize"
    TRANSLATE = "translate"


class Engine(Enum):
    """What runs it; the word for a graph's dialect too."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


class Check(Enum):
    """What reads the checkpoint too, and shares no code with the build."""

    TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Limits:
    """What an engine may lose against the reference before the build fails.

    `logit_error` is absolute, `perplexity` a ratio, `agreement` the share of equal greedy choices.
    """

    logit_error: float | None = None
    perplexity: float | None = None
    agreement: float | None = None


_CHOICES: dict[str, type[Enum]] = {"task": Task, "precision": Precision, "engine": Engine, "check": Check}
# An fp32 engine computes the same as the reference, so any visible difference is a fault of the graph.
_LIMITS = {
    "fp32": Limits(logit_error=0.01, perplexity=1.0005, agreement=0.995),
    "fp16": Limits(logit_error=0.5, perplexity=1.005, agreement=0.98),
    "bf16": Limits(perplexity=1.01, agreement=0.95),
    "int8": Limits(perplexity=1.02, agreement=0.90),
    "int4": Limits(perplexity=1.25, agreement=0.70),
    "fp8": Limits(perplexity=1.08, agreement=0.85),
    "gguf": Limits(perplexity=1.02, agreement=0.90),
}


@dataclass(frozen=True)
class Recipe:
    """`source` reads as `build.sources.SourceSpec`; `hub` is the original that `--source hub` takes.

    A `task` of None is what the checkpoint is good for; `prefix` is put before every text; `needs_tuning`
    marks a checkpoint that was pretrained for no task; `shape` is what `recommend` knows of a model that is
    not here; `terms` are to be accepted before anything is read.
    """

    name: str
    source: str
    task: Task | None = None
    precision: Precision = Precision.INT8
    engine: Engine = Engine.ONNXRUNTIME
    check: Check | None = None
    hub: str | None = None
    licence: str | None = None
    terms: Terms | None = None
    prefix: str = ""
    needs_tuning: bool = False
    shape: Shape | None = None
    limits: Mapping[str, Limits] = field(default_factory=lambda: dict(_LIMITS))

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _COMMANDS or self.name.endswith(_STEPS):
            raise BadInput(
                f"name: {self.name!r}, must be lower-case letters, digits and _ . -,"
                f" not {' or '.join(_COMMANDS)}, and not end in {', '.join(_STEPS)}"
            )

    def limit(self) -> Limits:
        return self.limits[self.precision.value]

    def resolved(self) -> dict[str, Any]:
        """For the manifest: this precision's limits only, no absolute path."""
        return {
            "name": self.name,
            "task": self.task.value if self.task else None,
            "precision": self.precision.value,
            "engine": self.engine.value,
            "source": Path(self.source).name if Path(self.source).exists() else self.source,
            "limits": asdict(self.limit()),
            "terms": asdict(self.terms) if self.terms else None,
        }


def known_recipes() -> list[str]:
    return sorted(path.stem for path in RECIPE_FOLDER.glob("*.toml"))


def load_recipe(name_or_path: str) -> Recipe:
    """A recipe of this folder by name, or any .toml file by path."""
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = RECIPE_FOLDER / f"{name_or_path}.toml"
        if not path.is_file():
            known = ", ".join(known_recipes())
            raise BadInput(f"recipe {name_or_path!r}: unknown; there are {known}, or give a .toml")
    try:
        return parse_recipe(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise BadInput(f"recipe {path}: no such file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"recipe {path}: is no TOML: {error}") from error
    except BadInput as error:
        raise BadInput(f"recipe {path}: {error}") from error


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """Strict: an unknown key, a wrong type or a missing name is BadInput."""
    values = dict(table)
    _refuse_unknown(values, [f.name for f in fields(Recipe)], "")
    for key in ("name", "source"):
        if key not in values:
            raise BadInput(f"{key}: missing")
    for key in ("name", "source", "hub", "licence", "prefix"):
        if key in values and not isinstance(values[key], str):
            raise BadInput(f"{key}: {values[key]!r}, must be a string")
    if not isinstance(values.get("needs_tuning", False), bool):
        raise BadInput(f"needs_tuning: {values['needs_tuning']!r}, must be true or false")
    if "terms" in values:
        values["terms"] = parse_terms(values["terms"])
    if "shape" in values:
        values["shape"] = parse_shape(values["shape"])
    for key, kind in _CHOICES.items():
        if key in values:
            values[key] = _member(kind, key, values[key])
    values["limits"] = {**_LIMITS, **_limits(values.get("limits", {}))}
    return Recipe(**values)


def _limits(table: Any) -> dict[str, Limits]:
    if not isinstance(table, dict):
        raise BadInput(f"limits: {table!r}, must be a table")
    _refuse_unknown(table, list(_LIMITS), "limits.")
    return {precision: _limit(f"limits.{precision}.", row) for precision, row in table.items()}


def _limit(where: str, row: Any) -> Limits:
    if not isinstance(row, dict):
        raise BadInput(f"{where[:-1]}: {row!r}, must be a table")
    _refuse_unknown(row, [f.name for f in fields(Limits)], where)
    for key, value in row.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise BadInput(f"{where}{key}: {value!r}, must be a number of at least 0")
    return Limits(**row)


def _refuse_unknown(table: Mapping[str, Any], known: list[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise BadInput(f"{where}{key}: unknown key; known are {', '.join(known)}")


def _member(kind: type[_E], key: str, value: Any) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(member.value) for member in kind)
        raise BadInput(f"{key}: {value!r}, must be one of {known}") from error
