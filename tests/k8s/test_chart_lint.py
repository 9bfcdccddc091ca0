"""helm lint and template of every scenario with Helm 3 and 4 for every Kubernetes; checkov's practice."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.k8s.charts import CHART, SCENARIOS, Refused, objects
from tests.k8s.schemas import VERSIONS

REASONS = Path(__file__).with_name("checkov.yaml")


@pytest.mark.parametrize("helm", ["helm3", "helm4"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_lint_finds_nothing(tools: Path, scenario: str, helm: str) -> None:
    values = CHART / "ci" / f"{scenario}-values.yaml"
    command = [
        str(tools / helm),
        "lint",
        "--strict",
        str(CHART),
        f"--values={values}",
        "--kube-version=1.37.0",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_helm_3_and_4_say_the_same(tools: Path, scenario: str, version: str) -> None:
    said = [_said(scenario, helm, version) for helm in ("helm3", "helm4")]
    assert said[0] == said[1]


def _said(scenario: str, helm: str, version: str) -> list[str]:
    try:
        found = objects(scenario, helm=helm, kube=f"{version}.0")
    except Refused:
        assert (scenario, version < "1.33") == ("air-gapped", True)
        return ["refused"]
    return sorted(json.dumps(one, sort_keys=True) for one in found)


def test_checkov_finds_only_what_has_a_reason(tools: Path, tmp_path: Path) -> None:
    files = []
    for scenario in ("cpu", "gpu"):
        files.append(tmp_path / f"{scenario}.yaml")
        files[-1].write_text(yaml.safe_dump_all(objects(scenario)))
    command = [str(tools / "checkov"), "--framework", "kubernetes", "--skip-download", "--output", "json"]
    done = subprocess.run([*command, "-f", *map(str, files)], capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert report["summary"]["passed"] > 100
    failed = report["results"]["failed_checks"]
    reasons = yaml.safe_load(REASONS.read_text())
    found = {(one["check_id"], one["resource"].partition(".")[0]) for one in failed}
    known = {(check, kind) for check, kind in found if check in reasons or f"{check} {kind}" in reasons}
    assert found - known == set()
    assert {check if check in reasons else f"{check} {kind}" for check, kind in known} == set(reasons)
