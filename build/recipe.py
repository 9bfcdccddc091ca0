"""A recipe says what to build and how good it must be: a flat TOML file, read strictly."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from build.compress.plan import Budget, Step, parse_budget, parse_steps
from build.compress.step import Kind
from build.errors import BadInput
from build.quantise import Precision
from build.shape import Positions, Shape

RECIPE_FOLDER = Path(__file__).parent / "recipes"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_E = TypeVar("_E", bound=Enum)
_COMMANDS = ("list", "recommend")
_STEPS = ("_engine", "_tokenizer", "_detokenizer")
_SHAPE_FLAGS = ("gated", "tied", "wide")


class Task(Enum):
    """What the model is served for; `chat` needs a chat template, the others take text only."""

    CHAT = "chat"
    COMPLETE = "complete"
    SUMMARIZE = "summarize"
    TRANSLATE = "translate"


class Runtime(Enum):
    """What runs the engine that is built; also the name of its graphs' dialect."""

    ONNXRUNTIME = "onnxruntime"
    TENSORRT = "tensorrt"


class Check(Enum):
    """What the build is compared with: it reads the checkpoint too, and shares no code with the build."""

    TRANSFORMERS = "transformers"


@dataclass(frozen=True)
class Terms:
    """Terms of use that the user must accept; a mere licence is only named.

    `name` is the value of --accept-terms, `summary` completes the sentence `they …`.
    """

    name: str
    title: str
    url: str
    summary: str


@dataclass(frozen=True)
class Limits:
    """What an engine may lose against the reference before the build fails.

    `logit_error` is absolute, `perplexity` a ratio, `agreement` the share of equal greedy choices.
    """

    logit_error: float | None = None
    perplexity: float | None = None
    agreement: float | None = None


_CHOICES: dict[str, type[Enum]] = {"task": Task, "precision": Precision, "engine": Runtime, "check": Check}
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
    """`source` is written as `build.sources.resolve` says; `hub` is the original that `--source hub` takes.

    Where `task` is None the checkpoint decides. `prefix` is put before every text; `needs_tuning` marks a
    checkpoint that was pretrained for no task; `shape` is what `recommend` knows about a model that is not on
    this machine; `terms` must be accepted before anything is read. `steps` compress the checkpoint, and the
    engine must keep to `budget` against it.
    """

    name: str
    source: str
    task: Task | None = None
    precision: Precision = Precision.INT8
    engine: Runtime = Runtime.ONNXRUNTIME
    check: Check | None = None
    hub: str | None = None
    licence: str | None = None
    terms: Terms | None = None
    prefix: str = ""
    needs_tuning: bool = False
    shape: Shape | None = None
    limits: Mapping[str, Limits] = field(default_factory=lambda: dict(_LIMITS))
    steps: tuple[Step, ...] = ()
    budget: Budget = field(default_factory=Budget)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in _COMMANDS or self.name.endswith(_STEPS):
            raise BadInput(
                f"name: {self.name!r}, must be lower-case letters, digits and _ . -,"
                f" not {' or '.join(_COMMANDS)}, and not end in {', '.join(_STEPS)}"
            )

    def limit(self) -> Limits:
        return self.limits[self.precision.value]

    def resolved(self) -> dict[str, Any]:
        """The recipe for the manifest: this precision's limits only, no absolute path."""
        return {
            "name": self.name,
            "task": self.task.value if self.task else None,
            "precision": self.precision.value,
            "engine": self.engine.value,
            "source": Path(self.source).name if Path(self.source).exists() else self.source,
            "limits": asdict(self.limit()),
            "terms": asdict(self.terms) if self.terms else None,
            **self._chain(),
        }

    def _chain(self) -> dict[str, Any]:
        if not self.steps:
            return {}
        return {"steps": [step.described() for step in self.steps], "budget": asdict(self.budget)}


# Keys of a recipe besides those of its chain.
_KEYS = [each.name for each in fields(Recipe) if each.name not in ("steps", "budget")]


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


def require_accepted(terms: Terms | None, accepted: Collection[str]) -> None:
    """BadInput gives the terms, their URL and how to accept them."""
    if terms is not None and terms.name not in accepted:
        raise BadInput(
            f"terms: these weights come under the {terms.title}: they {terms.summary};"
            f" read {terms.url}, then add --accept-terms {terms.name}"
        )


def parse_recipe(table: Mapping[str, Any]) -> Recipe:
    """Strict: an unknown key, a wrong type or a missing name is BadInput."""
    values = _chained(dict(_table("", table, [*_KEYS, "step", "budget"])))
    for key in ("name", "source"):
        if key not in values:
            raise BadInput(f"{key}: missing")
    for key in ("name", "source", "hub", "licence", "prefix"):
        if key in values and not isinstance(values[key], str):
            raise BadInput(f"{key}: {values[key]!r}, must be a string")
    if not isinstance(values.get("needs_tuning", False), bool):
        raise BadInput(f"needs_tuning: {values['needs_tuning']!r}, must be true or false")
    if "terms" in values:
        values["terms"] = _terms(values["terms"])
    if "shape" in values:
        values["shape"] = _shape(values["shape"])
    for key, kind in _CHOICES.items():
        if key in values:
            values[key] = _member(kind, key, values[key])
    rows = _table("limits", values.get("limits", {}), _LIMITS)
    values["limits"] = {**_LIMITS, **{name: _limit(f"limits.{name}", row) for name, row in rows.items()}}
    return Recipe(**values)


def _chained(values: dict[str, Any]) -> dict[str, Any]:
    """`[[step]]` and `[budget]` become `steps` and `budget`."""
    steps = parse_steps(values.pop("step")) if "step" in values else ()
    if "budget" in values and not steps:
        raise BadInput("budget: is for a chain: add a [[step]], or set [limits.PRECISION]")
    budget = parse_budget("budget", values.pop("budget", {}))
    require_fitting(steps, values.get("precision"), values.get("engine"))
    return {**values, "steps": steps, "budget": budget}


def require_fitting(steps: Sequence[Step], precision: Any, engine: Any) -> None:
    """BadInput for a precision or an engine, None where not given, that does not go with a chain."""
    if precision is not None and any(step.does.KIND is Kind.QUANTISE for step in steps):
        raise BadInput(f"precision: {precision!r}: the step {steps[-1].name} decides it: remove it")
    if steps and engine == Runtime.TENSORRT.value:
        raise BadInput("step: chains are built for engine onnxruntime only: remove the steps, or the engine")


def _terms(table: Any) -> Terms:
    given = _table("terms", table, Terms)
    for key in (each.name for each in fields(Terms)):
        if not isinstance(given.get(key), str):
            raise BadInput(f"terms.{key}: {given.get(key)!r}, must be a string")
    return Terms(**given)


def _shape(table: Any) -> Shape:
    values = dict(_table("shape", table, Shape))
    for each in fields(Shape):
        if each.name not in values and each.default is MISSING:
            raise BadInput(f"shape.{each.name}: missing")
    for key, value in values.items():
        least = 0 if key == "encoder_layers" else 1
        if key == "positions":
            values[key] = _member(Positions, "shape.positions", value)
        elif key in _SHAPE_FLAGS:
            if not isinstance(value, bool):
                raise BadInput(f"shape.{key}: {value!r}, must be true or false")
        elif isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise BadInput(f"shape.{key}: {value!r}, must be a whole number of at least {least}")
    return Shape(**values)


def _limit(where: str, row: Any) -> Limits:
    for key, value in _table(where, row, Limits).items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
            raise BadInput(f"{where}.{key}: {value!r}, must be a number of at least 0")
    return Limits(**row)


def _table(where: str, table: Any, kind: type[Any] | Collection[str]) -> Mapping[str, Any]:
    """The table itself, whose keys must be fields of the dataclass or keys of the mapping."""
    if not isinstance(table, Mapping):
        raise BadInput(f"{where}: {table!r}, must be a table")
    known = [each.name for each in fields(kind)] if isinstance(kind, type) else list(kind)
    for key in table:
        if key not in known:
            at = f"{where}." if where else ""
            raise BadInput(f"{at}{key}: unknown key; known are {', '.join(known)}")
    return table


def _member(kind: type[_E], key: str, value: Any) -> _E:
    try:
        return kind(value)
    except ValueError as error:
        known = ", ".join(str(member.value) for member in kind)
        raise BadInput(f"{key}: {value!r}, must be one of {known}") from error
