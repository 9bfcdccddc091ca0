"""Writes what other folders have of the contract; with --check only tells whether it is up to date.

Usage: python contract/write.py [--check]

  server/engine/core/contract.py the engine's inputs, settings and metrics, with types and limits
  client/halimede/inputs.py      the client's inputs, as arguments with types and as options
  docs/design.md                 the tables between <!-- contract: NAME --> and <!-- /contract -->
  model_repository/smollm2*/     config.pbtxt, as every build writes it
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from build.triton_config import configs  # noqa: E402  - it is found from here on

HEADER = "# Made by contract/write.py from contract/*.toml: change those, then run it.\n"
Row = Mapping[str, Any]

_PYTHON = {"STRING": "str", "BOOL": "bool", "INT32": "int", "UINT64": "int", "FP32": "float"}
_HIGHEST = {"INT32": "MAX_INT32", "UINT64": "MAX_UINT64"}


def read(name: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / "contract" / f"{name}.toml").read_text("utf-8"))


def generate() -> dict[Path, str]:
    """The text that each file should have, by its path."""
    inputs, settings, metrics = read("inputs")["input"], read("settings"), read("metrics")
    page, models = ROOT / "docs" / "design.md", ROOT / "model_repository"
    files = {models / model / "config.pbtxt": text for model, text in configs("smollm2").items()}
    tables = {
        "inputs": _inputs_table(inputs),
        "outputs": _outputs_table(read("outputs")["output"]),
        "errors": _errors_table(read("errors")["error"]),
        "metrics": _metrics_table(metrics["metric"]),
        "settings": _settings_table(settings["tokenizer"], settings["engine"]),
    }
    return files | {
        ROOT / "server" / "engine" / "core" / "contract.py": _tidy(_engine(inputs, settings, metrics)),
        ROOT / "client" / "halimede" / "inputs.py": _tidy(_client(inputs)),
        page: _with_tables(page.read_text("utf-8"), tables),
    }


def _engine(inputs: list[Row], settings: Mapping[str, list[Row]], metrics: Mapping[str, Any]) -> str:
    both = (*settings["tokenizer"], *settings["engine"])
    sampled = [row for row in inputs if row["part"] == "sampling"]
    chosen = [row for row in (*sampled, *settings["engine"]) if "choices" in row]
    return f'''{HEADER}
"""The inputs, settings and metrics of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from engine.core.limits import MAX_INT32, MAX_UINT64, Limit

{"".join(_choices(row) for row in chosen)}

@dataclass(frozen=True, slots=True)
class Input:
    """`type` is Triton's; `many` says that there may be several values; `json`, that the text is JSON."""

    type: str
    many: bool = False
    json: bool = False


INPUTS: Final[Mapping[str, Input]] = {{
    {_lines(f'"{row["name"]}": {_input(row)},' for row in inputs)}
}}
LIMITS: Final[Mapping[str, Limit]] = {{
    {_lines(f'"{row["name"]}": {_limit(row)},' for row in inputs if _has_limits(row))}
}}


@dataclass(frozen=True, slots=True)
class SamplingInputs:
    {_lines(_engine_field(row) for row in sampled)}


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    {_lines(_setting_field(row) for row in settings["tokenizer"])}


@dataclass(frozen=True, slots=True)
class EngineSettings:
    {_lines(_setting_field(row) for row in settings["engine"])}


SETTINGS: Final[Mapping[str, Limit | type[StrEnum]]] = {{
    {_lines(f'"{row["name"]}": {_setting_limit(row)},' for row in both)}
}}


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` have the values whose series exist from the start; `buckets` are seconds."""

    kind: str
    help: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...]


METRICS: Final[Mapping[str, Metric]] = {{
    {_lines(_metric(row, metrics["buckets"]) for row in metrics["metric"])}
}}
'''


def _choices(row: Row) -> str:
    members = _lines(f'{choice.upper()} = "{choice}"' for choice in row["choices"])
    return f"class {_class(row)}(StrEnum):\n    {members}\n\n\n"


def _class(row: Row) -> str:
    return "".join(word.title() for word in row["name"].split("_")) + "Choice"


def _input(row: Row) -> str:
    given = [f'"{row["type"]}"', *(f"{flag}=True" for flag in ("many", "json") if row.get(flag))]
    return f"Input({', '.join(given)})"


def _has_limits(row: Row) -> bool:
    return "least" in row or "above" in row


def _limit(row: Row) -> str:
    low, high = row.get("least", row.get("above")), row.get("most", _HIGHEST.get(row.get("type", "INT32")))
    kind = _PYTHON[row.get("type", "INT32")]
    return f"Limit({kind}, {low}, {high}{', open_low=True' if 'above' in row else ''})"


def _engine_field(row: Row) -> str:
    if row.get("many"):
        kind, default = "tuple[str, ...]", "()"
    elif "json" in row:
        kind, default = "tuple[tuple[int, float], ...]", "()"
    elif "choices" in row:
        kind, default = _class(row), f"{_class(row)}.{row['default'].upper()}"
    elif "default" in row:
        kind, default = _PYTHON[row["type"]], repr(row["default"])
    elif "setting" in row:
        return f"{row['name']}: {_PYTHON[row['type']]}"
    else:
        kind, default = f"{_PYTHON[row['type']]} | None", "None"
    return f"{row['name']}: {kind} = {default}"


def _setting_field(row: Row) -> str:
    if "choices" in row:
        return f"{row['name']}: {_class(row)} = {_class(row)}.{row['default'].upper()}"
    return f"{row['name']}: int = {row['default']}"


def _setting_limit(row: Row) -> str:
    return _class(row) if "choices" in row else _limit(row)


def _metric(row: Row, buckets: Mapping[str, list[float]]) -> str:
    labels = {name: tuple(values) for name, values in row.get("labels", {}).items()}
    seconds = tuple(buckets[row["buckets"]]) if "buckets" in row else ()
    return f'"{row["name"]}": Metric("{row["kind"]}", "{row["help"]}", {labels}, {seconds}),'


def _client(inputs: list[Row]) -> str:
    arguments = [row for row in inputs if row["part"] == "sampling" or row["name"].startswith("return_")]
    return f'''{HEADER}
"""The inputs of an ensemble, and how an answer is sampled as arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

__all__ = ["INPUTS", "Input", "Sampling", "SamplingFields"]


@dataclass(frozen=True, slots=True)
class Input:
    """`datatype` is Triton's on the wire; `many` says that there may be several values; `json`, that the
    text is JSON. `argument` is the field of Sampling, if it is one; `help` says what the input does.
    """

    datatype: str
    many: bool = False
    json: bool = False
    argument: str = ""
    help: str = ""


INPUTS: Mapping[str, Input] = {{
    {_lines(_client_input(row, row in arguments) for row in inputs)}
}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is sampled. A field that is not set is not sent, and the server's default applies.

    The server checks the ranges.

    {_lines(f"{_argument(row)}: {row['help']}" for row in arguments)}
    """

    {_lines(f"{_argument(row)}: {_client_type(row)} = {_client_default(row)}" for row in arguments)}


class SamplingFields(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    {_lines(f"{_argument(row)}: {_client_type(row)}" for row in arguments)}
'''


def _argument(row: Row) -> str:
    name: str = row.get("argument", row["name"])
    return name


def _client_input(row: Row, is_argument: bool) -> str:
    datatype = "BYTES" if row["type"] == "STRING" else row["type"]
    given = [f'"{datatype}"', *(f"{flag}=True" for flag in ("many", "json") if row.get(flag))]
    given += [f'argument="{_argument(row)}"'] if is_argument else []
    return f'"{row["name"]}": Input({", ".join(given)}, help="{row["help"]}"),'


def _client_type(row: Row) -> str:
    if row.get("many"):
        return "str | Sequence[str]"
    kind = "Mapping[int, float]" if "json" in row else _PYTHON[row["type"]]
    return f"{'bool | ' if 'true' in row.get('choices', ()) else ''}{kind} | None"


def _client_default(row: Row) -> str:
    return "()" if row.get("many") else "True" if row["part"] == "reply" else "None"


def _table(titles: str, rows: Iterable[Iterable[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join((titles, "|---" * (titles.count("|") - 1) + "|", *lines))


def _inputs_table(inputs: list[Row]) -> str:
    rows = ((_code(row), _type(row), _default(row), _range(row), _help(row)) for row in inputs)
    return _table("| input | type | default | limits | |", rows)


def _code(row: Row) -> str:
    return f"`{row['name']}`"


def _type(row: Row) -> str:
    return f"{row['type']} [{'n' if row.get('many') else 1}]"


def _default(row: Row) -> str:
    if "setting" in row:
        return f"`{row['setting']}`"
    return str(row["default"]).lower() if "default" in row else ""


def _range(row: Row) -> str:
    if "choices" in row:
        return ", ".join(f"`{choice}`" for choice in row["choices"])
    if row.get("many"):
        return "`max_stop_words`, each of `max_stop_bytes`"
    if "most" in row:
        return (
            f"in ({row['above']}, {row['most']}]" if "above" in row else f"in [{row['least']}, {row['most']}]"
        )
    return f"at least {row['least']}" if "least" in row else ""


def _help(row: Row) -> str:
    json = f" JSON: {row['json']}." if "json" in row else ""
    tasks = f" Tasks: {', '.join(row['tasks'])}." if "tasks" in row else ""
    return f"{row['help']}{json}{tasks}"


def _outputs_table(outputs: list[Row]) -> str:
    when = {row["name"]: f"with `{row['when']}`" if "when" in row else "always" for row in outputs}
    rows = ((_code(row), _type(row), when[row["name"]], _help(row)) for row in outputs)
    return _table("| output | type | when | |", rows)


def _errors_table(errors: list[Row]) -> str:
    rows = ((row["code"], row["status"], "yes" if row["retry"] else "no", row["help"]) for row in errors)
    return _table("| code | Triton's status | retry | |", rows)


def _metrics_table(metrics: list[Row]) -> str:
    labels = {row["name"]: ", ".join(f"`{label}`" for label in row.get("labels", ())) for row in metrics}
    rows = ((_code(row), row["kind"], labels[row["name"]], row["help"]) for row in metrics)
    return _table("| metric | kind | more labels | |", rows)


def _settings_table(tokenizer: list[Row], engine: list[Row]) -> str:
    of_step = [("tokenizer", row) for row in tokenizer] + [("engine", row) for row in engine]
    rows = ((_code(row), step, row["default"], _range(row), row["help"]) for step, row in of_step)
    return _table("| setting | step | default | limits | |", rows)


def _with_tables(page: str, tables: Mapping[str, str]) -> str:
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- contract: {name} -->\n).*?(\n<!-- /contract -->)", re.DOTALL)
        page, count = marked.subn(r"\g<1>" + table.replace("\\", r"\\") + r"\g<2>", page)
        if count != 1:
            raise SystemExit(f"docs/design.md has {count} places for the table {name}, must have 1")
    return page


def _lines(lines: Iterable[str]) -> str:
    return "\n    ".join(lines)


def _tidy(source: str) -> str:
    for command in (["check", "--quiet", "--fix-only", "--select=I"], ["format", "--quiet"]):
        source = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename=made.py", "-"],
            input=source,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        ).stdout
    return source


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        raise SystemExit(__doc__)
    texts = generate()
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in stale:
        if arguments:
            print(f"{path.relative_to(ROOT)} is stale: run python contract/write.py")
        else:
            path.write_text(texts[path], "utf-8")
    return 1 if arguments and stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
