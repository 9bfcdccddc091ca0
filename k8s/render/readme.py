"""The chart's README: a table of all values, from values.schema.json and the defaults of values.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

HEAD: Final = """\
# The chart `halimede`

Made by `make manifests` from `values.yaml` and `values.schema.json`; change those. Helm 3.17 or 4, Kubernetes
1.30 or newer. Rendered and checked with both Helms; not yet installed on a real cluster.

```console
python -m build smollm2 && python -m deliver seal model_repository   # onto the volume halimede-models
helm install halimede k8s/chart --set image.repository=REGISTRY/halimede
helm test halimede --logs
```

`ci/` has a scenario each for CPU, GPU, several models, KEDA, TLS, air-gapped clusters, routes and monitoring.
What cannot work together is refused with the field, the value and what to do. The key for administration is
in no manifest: it is the Pod's uid or comes from a Secret, as the API key does.

| Value | Default | What |
|---|---|---|
"""


def readme(chart: Path) -> str:
    schema = json.loads((chart / "values.schema.json").read_text("utf-8"))
    values = yaml.safe_load((chart / "values.yaml").read_text("utf-8"))
    return HEAD + "".join(f"{row}\n" for row in rows(schema, values))


def rows(schema: Mapping[str, Any], values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """A row for each value that has no values of its own, after a row for what they are about."""
    for name, part in schema["properties"].items():
        if name == "global":
            continue
        default, full = values.get(name), f"{path}{name}"
        if "properties" in part and isinstance(default, Mapping):
            yield f"| **`{full}`** | | {_cell(part['description'])} |"
            yield from rows(part, default, f"{full}.")
        else:
            yield f"| `{full}` | {shown(default)} | {_cell(part['description'])}{limits(part)} |"


def shown(default: object) -> str:
    return f"`{_cell(json.dumps(default, ensure_ascii=False))}`"


def limits(part: Mapping[str, Any]) -> str:
    """What the schema allows, where that is a choice or a range."""
    if "enum" in part:
        return f"; one of {', '.join(f'`{value}`' for value in part['enum'])}"
    if "minimum" in part:
        return f"; {part['minimum']} to {part['maximum']}"
    return ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
