"""Custom resources against their CRDs: fields, types, patterns, and rules in CEL."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cel
import jsonschema

from k8s.check.bundle import Object, Problem, Unreadable, read, where

Schema = dict[str, Any]
# Keys whose values hold schemas again; `properties` maps names to schemas.
INSIDE = ("items", "additionalProperties", "not", "anyOf", "allOf", "oneOf")


@dataclass(frozen=True, slots=True)
class Crds:
    """Schemas by apiVersion and kind. `unevaluated` gathers rules that use functions of Kubernetes alone."""

    schemas: Mapping[tuple[str, str], Schema]
    unevaluated: set[str] = field(default_factory=set)

    def knows(self, one: Object) -> bool:
        """Whether there is a CRD for `one`."""
        return (one["apiVersion"], one["kind"]) in self.schemas

    def problems(self, one: Object) -> Iterator[Problem]:
        """What the CRD of `one` refuses; rules are asked only where fields and types are right."""
        schema = self.schemas[one["apiVersion"], one["kind"]]
        validator = jsonschema.Draft202012Validator(_object(strict(schema)))
        refused = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(one)]
        for message in refused or self._broken(schema, completed(schema, copy.deepcopy(one)), "$"):
            yield Problem("crd", where(one), message)

    def _broken(self, schema: Schema, value: Any, at: str) -> Iterator[str]:
        for rule in schema.get("x-kubernetes-validations", []):
            if self._holds(rule["rule"], value) is False:
                yield f"{at}: {rule.get('message', rule['rule'])}"
        for name, part, inner in _parts(schema, value):
            yield from self._broken(inner, part, f"{at}{name}")

    def _holds(self, rule: str, value: Any) -> bool | None:
        """None where it cannot be told: a change is judged, or the rule uses what Kubernetes adds to CEL."""
        if "oldSelf" in rule:
            return None
        try:
            return bool(cel.evaluate(rule, {"self": value}))
        except (RuntimeError, TypeError, ValueError):
            self.unevaluated.add(rule)
            return None


def load(folder: Path) -> Crds:
    """The CRDs in the YAML files of `folder`. Raises Unreadable where there is none."""
    schemas = {}
    for crd in read(sorted(folder.glob("*.yaml"))):
        if crd["kind"] == "CustomResourceDefinition":
            for version in crd["spec"]["versions"]:
                key = (f"{crd['spec']['group']}/{version['name']}", crd["spec"]["names"]["kind"])
                schemas[key] = version["schema"]["openAPIV3Schema"]
    if not schemas:
        raise Unreadable(f"{folder}: holds no CustomResourceDefinition in *.yaml")
    return Crds(schemas)


def strict(schema: Any) -> Any:
    """`schema` as JSON Schema, in which fields that it does not name are refused."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tight = {key: strict(value) if key in INSIDE else value for key, value in schema.items()}
    if "properties" in schema:
        tight["properties"] = {name: strict(one) for name, one in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            tight.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        tight["type"] = ["integer", "string"]
        tight.pop("anyOf", None)
    if schema.get("nullable") and isinstance(tight.get("type"), str):
        tight["type"] = [tight["type"], "null"]
    return tight


def completed(schema: Schema, value: Any) -> Any:
    """`value` with the defaults that the API server would fill in; `value` itself is changed."""
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            if "default" in inner:
                value.setdefault(name, copy.deepcopy(inner["default"]))
    for _, part, inner in _parts(schema, value):
        completed(inner, part)
    return value


def _parts(schema: Schema, value: Any) -> Iterator[tuple[str, Any, Schema]]:
    if isinstance(value, dict):
        every = schema.get("additionalProperties")
        for name, part in value.items():
            inner = schema.get("properties", {}).get(name, every)
            if isinstance(inner, dict):
                yield f".{name}", part, inner
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        yield from ((f"[{number}]", part, schema["items"]) for number, part in enumerate(value))


def _object(schema: Schema) -> Schema:
    """Metadata is the same for every kind, and no CRD describes it."""
    names = schema["properties"] | {
        "metadata": {"type": "object"},
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
    }
    return schema | {"properties": names}
