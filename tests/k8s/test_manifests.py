"""k8s/manifests and the chart's README are what the chart says; and a change is noticed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from k8s.render import __main__ as render
from tests.k8s.charts import BIN, ROOT


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
def test_they_are_in_step(helm: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check", "--helm", str(BIN / helm)]) == 0, capsys.readouterr().out


def test_a_change_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = {Path(render.K8S / "chart" / "README.md"): "something else\n"}
    monkeypatch.setattr(render, "made", lambda _helm: changed)
    assert render.main(["--check"]) == 1


def test_without_helm_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main(["--check", "--helm", "/nowhere/helm"]) == 2
    assert "/nowhere/helm" in capsys.readouterr().err


def test_kubectl_renders_the_load_test(tools: Path) -> None:
    command = [str(tools / "kubectl"), "kustomize", str(ROOT / "k8s" / "loadtest")]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sorted(document["kind"] for document in yaml.safe_load_all(rendered)) == [
        "ConfigMap", "Deployment", "Job", "NetworkPolicy", "NetworkPolicy", "PersistentVolumeClaim",
        "Service",
    ]  # fmt: skip
