"""The engines of a GPU: built, served, put through the contract tests, and measured.

`make gpu-check` runs it after the tests. On a host without a GPU it builds what it can and then fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.artifacts import CACHE, MODEL, ROOT
from loadtest.errors import BenchError, exit_code
from loadtest.launched import served
from loadtest.options import names_of

ENGINES = {"onnxruntime": "ONNX Runtime on CUDA", "tensorrt": "TensorRT"}
STREAMS = "1,8,16"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m loadtest.gpu", description=__doc__)
    add = parser.add_argument
    add("--engines", type=names_of(ENGINES), default=tuple(ENGINES), metavar="ENGINE,…")
    add("--precision", default="fp16")
    add("--json", type=Path, default=ROOT, metavar="DIR", help="where bench-ENGINE.json is written")
    add("--quick", action="store_true", help="a benchmark whose figures mean nothing")
    options = parser.parse_args(arguments)
    return exit_code(lambda: _check(options))


def _check(options: argparse.Namespace) -> int:
    for engine in options.engines:
        print(f"== {ENGINES[engine]}, {options.precision}", flush=True)
        repository = CACHE.with_name("gpu") / engine
        build = ["--precision", options.precision, "--repository", str(repository), "--force"]
        build += ["--engine", engine] if engine != "onnxruntime" else []
        _run("the engine could not be built", "-m", "build", MODEL, *build)
        with served(repository, repository.with_suffix(".log")) as server:
            address = {"HALIMEDE_URL": server.urls["grpc"], "HALIMEDE_HTTP_URL": server.urls["http"]}
            _run("a contract test failed", "-m", "pytest", "-q", "tests/live", "-m", "contract", **address)
            bench = ["--url", server.at("grpc"), "--json", str(options.json / f"bench-{engine}.json")]
            bench += ["--quick"] if options.quick else ["--streams", STREAMS]
            _run("the benchmark failed", "-m", "loadtest.bench", "--rows", "url", *bench)
    return 0


def _run(problem: str, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, **environment}, check=False
    )
    if done.returncode:
        raise BenchError(f"{problem}: {' '.join(arguments[:4])} … says why above")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
