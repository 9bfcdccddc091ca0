"""Write the files that are generated from the chart: its README of values, and k8s/manifests.

`make manifests` runs this; a test compares.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

K8S: Final = Path(__file__).resolve().parent
CHART: Final = K8S / "chart"
HELM: Final = K8S.parent / ".cache" / "k8s" / "bin" / "helm4"
KUBERNETES: Final = "1.33.0"
# The chart's values for each folder.
VARIANTS: Final = {
    "cpu": ("--values", str(CHART / "ci" / "cpu-values.yaml")),
    "gpu": ("--values", str(CHART / "ci" / "gpu-values.yaml")),
    "loadtest": ("--set", "loadtest.enabled=true", "--show-only", "templates/loadtest.yaml"),
}
HEAD: Final = "# Made from k8s/chart by `make manifests`; change the chart.\n"
# The namespace of kubectl or kustomize holds.
OF_HELM: Final = re.compile(r"^  namespace: .*\n|^ +helm\.sh/chart: .*\n", re.MULTILINE)
IMAGE: Final = re.compile(r"^ *image: \"?([^\s:\"]+)(?::([^\s\"]+))?\"?$", re.MULTILINE)
README: Final = """\
# The chart `halimede`

Made by `make manifests` from `values.yaml` and `values.schema.json`; change those. Helm 3.17 or 4, Kubernetes
1.30 or newer. Rendered and checked with both Helms; not yet installed on a real cluster.

```console
python -m build smollm2 && python -m deliver seal model_repository   # onto the volume halimede-models
helm install halimede k8s/chart --set image.repository=REGISTRY/halimede
helm test halimede --logs
```

`ci/` has a scenario each for CPU, GPU, several models, KEDA, TLS, air-gapped clusters, routes and monitoring.
Values that contradict each other are refused with the field, the value and what to do. The key for
administration is in no manifest: it is the Pod's uid or comes from a Secret, as the API key does.

| Value | Default | What |
|---|---|---|
"""


def made() -> dict[Path, str]:
    """The text of every file."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
    files = {CHART / "README.md": README + "".join(f"{row}\n" for row in rows(schema, values))}
    for variant, arguments in VARIANTS.items():
        text = manifest(arguments)
        files[K8S / "manifests" / variant / "halimede.yaml"] = text
        files[K8S / "manifests" / variant / "kustomization.yaml"] = kustomization(text)
    return files


def manifest(arguments: tuple[str, ...]) -> str:
    """What helm renders, without what only Helm reads. Exits with what helm says where it refuses."""
    command = [str(HELM), "template", "halimede", str(CHART), "--skip-tests", "--kube-version", KUBERNETES]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join([*command, *arguments])}: {done.stderr}")
    return HEAD + OF_HELM.sub("", done.stdout).replace("managed-by: Helm", "managed-by: kustomize")


def kustomization(manifests: str) -> str:
    """Names the images, so that `kustomize edit set image` changes them."""
    lines = ["apiVersion: kustomize.config.k8s.io/v1beta1", "kind: Kustomization"]
    lines += ["resources:", "- halimede.yaml", "images:"]
    for name, tag in sorted(set(IMAGE.findall(manifests))):
        lines += [f"- name: {name}", f'  newTag: "{tag or "latest"}"']
    return HEAD + "\n".join(lines) + "\n"


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """A row for each value; a group of values gets a row of its own before them."""
    for name, part in schema["properties"].items():
        if name == "global":
            continue
        default, about = values.get(name), part["description"].replace("|", "\\|")
        if "properties" in part and isinstance(default, Mapping):
            yield f"| **`{path}{name}`** | | {about} |"
            yield from rows(part, default, f"{path}{name}.")
        else:
            shown = json.dumps(default, ensure_ascii=False).replace("|", "\\|")
            yield f"| `{path}{name}` | `{shown}` | {about}{_limits(part)} |"


def _limits(part: Mapping[str, Any]) -> str:
    """The choices or the range that the schema allows, if any."""
    if "enum" in part:
        return f"; one of {', '.join(f'`{value}`' for value in part['enum'])}"
    return f"; {part['minimum']} to {part['maximum']}" if "minimum" in part else ""


if __name__ == "__main__":
    for file, content in made().items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, "utf-8")
