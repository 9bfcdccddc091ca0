"""The schemas of Kubernetes itself, strict: fields it does not know are problems."""

from __future__ import annotations

from collections.abc import Iterator

import kubernetes_validate

from k8s.check.bundle import Object, Problem, where

BUILT_IN = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apps",
        "autoscaling",
        "batch",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)
VERSIONS = tuple(f"1.{minor}" for minor in range(30, 38))


def is_built_in(one: Object) -> bool:
    """Whether Kubernetes has the schema of `one`, and not a CRD."""
    group, slash, _ = str(one["apiVersion"]).partition("/")
    return not slash or group in BUILT_IN


def problems(one: Object, version: str) -> Iterator[Problem]:
    """What Kubernetes `version`, such as "1.34", would refuse of `one`, if its kind is built in."""
    if not is_built_in(one):
        return
    check = f"kubernetes {version}"
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as refused:
        at = ".".join(map(str, refused.path)) or "the object"
        yield Problem(check, where(one), f"{at}: {refused.message}")
    except kubernetes_validate.SchemaNotFoundError:
        yield Problem(check, where(one), f"{one['apiVersion']} has no kind {one['kind']}")
