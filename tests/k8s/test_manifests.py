"""k8s/manifests and the chart's README are what the chart says, and kubectl takes them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8s import render
from tests.k8s.charts import objects
from tests.paths import ROOT

MANIFESTS = ROOT / "k8s" / "manifests"


def applied(tools: Path, folder: str) -> list[dict[str, Any]]:
    command = [str(tools / "kubectl"), "kustomize", str(MANIFESTS / folder)]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return list(yaml.safe_load_all(rendered))


def test_they_are_in_step(tools: Path) -> None:
    made = render.made()
    stale = [str(path) for path, text in made.items() if path.read_text("utf-8") != text]
    assert stale == [], "make manifests"
    assert {path.parent.name for path in made} == {"chart", *(folder.name for folder in MANIFESTS.iterdir())}


@pytest.mark.parametrize("folder", sorted(render.VARIANTS))
def test_kubectl_takes_them_into_any_namespace(tools: Path, folder: str) -> None:
    found = applied(tools, folder)
    assert found
    for one in found:
        assert "namespace" not in one["metadata"]
        assert one["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kustomize"


@pytest.mark.parametrize("folder", ["cpu", "gpu"])
def test_they_are_the_charts_objects(tools: Path, folder: str) -> None:
    charts = {(one["kind"], one["metadata"]["name"]) for one in objects(folder, "tests.enabled=false")}
    assert {(one["kind"], one["metadata"]["name"]) for one in applied(tools, folder)} == charts


def test_a_value_of_the_readme_has_its_default_and_its_limits() -> None:
    schema = {
        "properties": {
            "global": {"description": "of helm"},
            "mode": {"description": "a|b", "enum": ["a", "b"]},
            "part": {
                "description": "some",
                "properties": {"n": {"description": "x", "minimum": 1, "maximum": 2}},
            },
        }
    }
    assert list(render.rows(schema, {"mode": "a|b", "part": {"n": 1}})) == [
        '| `mode` | `"a\\|b"` | a\\|b; one of `a`, `b` |',
        "| **`part`** | | some |",
        "| `part.n` | `1` | x; 1 to 2 |",
    ]


def test_an_image_without_a_tag_is_the_latest() -> None:
    text = render.kustomization('  image: a/b:1.2\n  image: "c"\n  image: a/b:1.2\n')
    images = [{"name": "a/b", "newTag": "1.2"}, {"name": "c", "newTag": "latest"}]
    assert yaml.safe_load(text)["images"] == images
