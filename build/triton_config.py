"""Writes config.pbtxt for the four models that serve one engine, as text that a person reads and edits."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

_CONTRACT = Path(__file__).resolve().parents[1] / "contract"
Row = Mapping[str, Any]


def _read(name: str) -> dict[str, list[Row]]:
    return tomllib.loads((_CONTRACT / f"{name}.toml").read_text("utf-8"))


_REQUEST = [{"optional": True, **row} for row in _read("inputs")["input"]]
_ANSWER = _read("outputs")["output"]
_SETTINGS = _read("settings")
# Between the steps.
_IDS: Row = {"name": "input_ids", "type": "INT32", "many": True, "help": "The prompt's token ids."}
_JOB: Row = {"name": "request", "type": "STRING", "help": "The validated request, JSON."}
_CHUNK: Row = {"name": "chunk", "type": "STRING", "help": "New tokens and what decoding them needs, JSON."}
_CONTEXT = 2048


def configs(
    name: str, max_positions: int = _CONTEXT, settings: Mapping[str, int] = MappingProxyType({})
) -> dict[str, str]:
    """config.pbtxt text by model name; `max_positions` are those of the model, `settings` of its engine."""
    return {
        name: _ensemble(name),
        f"{name}_tokenizer": _tokenizer(name),
        f"{name}_engine": _engine(name, {"max_context": min(_CONTEXT, max_positions), **settings}),
        f"{name}_detokenizer": _detokenizer(name),
    }


def _ensemble(name: str) -> str:
    steps = [
        _step(f"{name}_tokenizer", _REQUEST, (_IDS, _JOB)),
        _step(f"{name}_engine", (_IDS, _JOB), (_CHUNK,)),
        _step(f"{name}_detokenizer", (_CHUNK,), _ANSWER),
    ]
    return _document(
        f"# {name}: text in, text out. Every input is optional and reaches the tokenizer, which\n"
        "# validates them all: Triton answers an absent required input of an ensemble with nothing.",
        [
            f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: 1',
            _tensors("input", _REQUEST),
            _tensors("output", _ANSWER),
            "ensemble_scheduling {\n  step [\n" + ",\n".join(steps) + "\n  ]\n}",
        ],
    )


def _tokenizer(name: str) -> str:
    return _document(
        f"# {name}_tokenizer: a request in text or chat messages becomes token ids, or a clear error.",
        [
            _head(f"{name}_tokenizer", "llm_tokenizer"),
            _tensors("input", _REQUEST),
            _tensors("output", (_IDS, _JOB)),
            _ONE_INSTANCE,
            _parameters(_SETTINGS["tokenizer"], {}),
        ],
    )


def _engine(name: str, settings: Mapping[str, int]) -> str:
    return _document(
        f"# {name}_engine: token ids to new token ids, many requests in one continuous batch.\n"
        "# The engine batches by itself: one instance for a CPU or for each GPU, and no batching by Triton.",
        [
            _head(f"{name}_engine", "llm_engine"),
            "model_transaction_policy {\n  decoupled: true  # many responses to one request\n}",
            _tensors("input", (_IDS, _JOB)),
            _tensors("output", (_CHUNK,)),
            _ONE_INSTANCE,
            _parameters(_SETTINGS["engine"], settings),
        ],
    )


def _detokenizer(name: str) -> str:
    return _document(
        f"# {name}_detokenizer: new token ids to whole UTF-8 text.\n"
        "# Exactly one instance and no dynamic batching: two instances send chunks out of order, and\n"
        "# batching drops the chunks of cancelled requests, which then never end.",
        [
            _head(f"{name}_detokenizer", "llm_detokenizer"),
            _tensors("input", (_CHUNK,)),
            _tensors("output", _ANSWER),
            _ONE_INSTANCE,
        ],
    )


_ONE_INSTANCE = "instance_group [\n  {\n    count: 1\n    kind: KIND_CPU\n  }\n]"


def _head(name: str, backend: str) -> str:
    return f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: 1'


def _document(comment: str, parts: Sequence[str]) -> str:
    return "\n\n".join([comment + "\n" + parts[0], *parts[1:]]) + "\n"


def _tensors(kind: str, tensors: Iterable[Row]) -> str:
    return f"{kind} [\n" + ",\n".join(map(_tensor, tensors)) + "\n]"


def _tensor(row: Row) -> str:
    lines = [
        f'    name: "{row["name"]}"  # {row["help"]}',
        f"    data_type: TYPE_{row['type']}",
        f"    dims: [ {-1 if row.get('many') else 1} ]",
    ]
    if row.get("optional"):
        lines.append("    optional: true")
    return "  {\n" + "\n".join(lines) + "\n  }"


def _step(model: str, inputs: Iterable[Row], outputs: Iterable[Row]) -> str:
    lines = [f'      model_name: "{model}"', "      model_version: -1"]
    lines += [_mapping("input_map", row["name"]) for row in inputs]
    lines += [_mapping("output_map", row["name"]) for row in outputs]
    return "    {\n" + "\n".join(lines) + "\n    }"


def _mapping(kind: str, name: str) -> str:
    return f'      {kind} {{ key: "{name}" value: "{name}" }}'


def _parameters(settings: Iterable[Row], values: Mapping[str, object]) -> str:
    chosen = ((row, values.get(row["name"], row["default"])) for row in settings)
    return "\n".join(f"# {row['help']}\n{_parameter(row['name'], value)}" for row, value in chosen)


def _parameter(name: str, value: object) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'
