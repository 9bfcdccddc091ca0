"""What an API server would refuse of one object: by the schemas of Kubernetes, and by CRDs with their rules.

kubernetes-validate has the former. No package reads CRDs: jsonschema takes their fields and types, once
unknown fields are forbidden, and `cel` their rules.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import cache
from typing import Any

import cel
import jsonschema
import kubernetes_validate
import yaml

from tests.paths import ROOT

CRDS = ROOT / "k8s" / "crds"
VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))
Object = dict[str, Any]
Schema = dict[str, Any]
# Keys whose values hold schemas again; `properties` maps names to schemas.
INSIDE = ("items", "additionalProperties", "not", "anyOf", "allOf", "oneOf")


@cache
def crds() -> dict[tuple[str, str], Schema]:
    """The schemas of the CRDs in k8s/crds, by apiVersion and kind."""
    found = [one for file in sorted(CRDS.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    schemas = {}
    for spec in (one["spec"] for one in found):
        for version in spec["versions"]:
            kind = (f"{spec['group']}/{version['name']}", spec["names"]["kind"])
            schemas[kind] = version["schema"]["openAPIV3Schema"]
    return schemas


def is_custom(one: Object) -> bool:
    return (one["apiVersion"], one["kind"]) in crds()


def refused(one: Object, version: str) -> list[str]:
    """By a version of Kubernetes, such as "1.34", without CRDs. Fields that it does not know are refused."""
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as fault:
        return [f"{one['kind']}.{'.'.join(map(str, fault.path))}: {fault.message}"]
    except kubernetes_validate.SchemaNotFoundError:
        return [f"{one['apiVersion']} has no kind {one['kind']}"]
    return []


def refused_by_crd(one: Object, schema: Schema | None = None) -> list[str]:
    """Rules are asked only where fields and types are right."""
    schema = crds()[one["apiVersion"], one["kind"]] if schema is None else schema
    everywhere = {
        "metadata": {"type": "object"},
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
    }
    tight = strict(schema | {"properties": schema["properties"] | everywhere})
    refused = jsonschema.Draft202012Validator(tight).iter_errors(one)
    fields = [f"{error.json_path}: {error.message}" for error in refused]
    return fields or list(_broken(schema, completed(schema, copy.deepcopy(one)), "$"))


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


def _broken(schema: Schema, value: Any, at: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        # A rule on oldSelf judges a change.
        if "oldSelf" not in rule["rule"] and not cel.evaluate(rule["rule"], {"self": value}):
            yield f"{at}: {rule.get('message', rule['rule'])}"
    for name, part, inner in _parts(schema, value):
        yield from _broken(inner, part, f"{at}{name}")


def _parts(schema: Schema, value: Any) -> Iterator[tuple[str, Any, Schema]]:
    if isinstance(value, dict):
        every = schema.get("additionalProperties")
        for name, part in value.items():
            inner = schema.get("properties", {}).get(name, every)
            if isinstance(inner, dict):
                yield f".{name}", part, inner
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        yield from ((f"[{number}]", part, schema["items"]) for number, part in enumerate(value))
