"""The contract as its files have it, and a request that has every input."""

from __future__ import annotations

import json
import tomllib
from typing import Any, Final

from jsonschema import Draft202012Validator

from tests.paths import ROOT


def rows(name: str, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "contract" / f"{name}.toml").read_text("utf-8"))[key]
    return found


INPUTS: Final = {row["name"]: row for row in rows("inputs", "input")}
# As Triton names them in a request.
TYPES: Final = {name: "BYTES" if row["type"] == "STRING" else row["type"] for name, row in INPUTS.items()}


def example(name: str) -> Any:
    """A value within the limits, other than the default where there is another."""
    row = INPUTS[name]
    if row.get("many"):
        return ["ab", "é"]
    if "choices" in row:
        return row["choices"][-1]
    if row["type"] == "STRING":
        return {"logit_bias": '{"3": -1.5}', "messages": '[{"role": "user", "content": "é"}]'}.get(name, "é")
    if row["type"] == "FP32":
        return (row["least"] if "least" in row else row["above"]) + 0.5
    return {"BOOL": True, "UINT64": 2**64 - 1}.get(row["type"]) or row["least"] + 1


def check_manifest(manifest: dict[str, Any]) -> None:
    """Raises jsonschema's ValidationError for what the contract does not allow."""
    schema = json.loads((ROOT / "contract" / "manifest.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(manifest)
