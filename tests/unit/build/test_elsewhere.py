"""What a build on another processor changes: nothing in floats, and little in 8 and 4 bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.core import _multiarray_umath

from build.dialects.onnxruntime.session import Session
from build.quantise import Floats
from tests.models import tiny

WANTED = {"llama": ["fp32", "fp16", "int8", "int4"], "gpt2": ["fp32", "fp16", "int8", "int4"]}
# Other kernels of numpy's BLAS, other threads, and without the instructions of numpy's and libc's functions.
FEATURES = [name for name in _multiarray_umath.__cpu_dispatch__ if _multiarray_umath.__cpu_features__[name]]
ELSEWHERE = {
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENBLAS_NUM_THREADS": "1",
    "NPY_DISABLE_CPU_FEATURES": " ".join(FEATURES),
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX2_Usable,-FMA_Usable,-FMA4_Usable",
}


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `here` and `elsewhere`, of a child each: a library takes its kernels when it is loaded."""
    folder = tmp_path_factory.mktemp("engines")
    for family in WANTED:
        tiny.write_folder(folder / family, family)
    computed = [
        written(folder, "here", {"OPENBLAS_NUM_THREADS": "2"}),
        written(folder, "elsewhere", ELSEWHERE),
    ]
    assert computed[0] != computed[1], "numpy computes alike in both children: nothing is compared"
    return folder


def written(folder: Path, name: str, settings: dict[str, str]) -> str:
    command = [sys.executable, "-m", "tests.models.engines_elsewhere", str(folder), str(folder / name)]
    environment = os.environ | settings | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*command, json.dumps(WANTED)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("family", WANTED)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_engines_in_floats_have_the_same_bytes(engines: Path, family: str, precision: str) -> None:
    here, elsewhere = (engines / name / family / precision for name in ("here", "elsewhere"))
    names = sorted(path.name for path in here.iterdir())
    assert "model.onnx.data" in names
    assert names == sorted(path.name for path in elsewhere.iterdir())
    assert all((here / name).read_bytes() == (elsewhere / name).read_bytes() for name in names)


@pytest.mark.parametrize("family", WANTED)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounded_engines_differ_by_a_tenth_of_what_rounding_costs_at_most(
    engines: Path, family: str, precision: str
) -> None:
    exact = logits(engines / "here" / family / "fp32", family)
    here, elsewhere = (logits(engines / name / family / precision, family) for name in ("here", "elsewhere"))
    lost = [rms(found - exact) for found in (here, elsewhere)]
    assert lost[1] == pytest.approx(lost[0], rel=0.05)
    assert rms(elsewhere - here) < 0.1 * lost[0]


def logits(engine: Path, family: str) -> Floats:
    """[prompts, vocab] after prompts of several lengths."""
    session = Session(engine / "model.onnx", 64)
    found = []
    for length in (1, 7, 20, 40, 60):
        session.reset()
        found.append(
            session.prefill(0, np.random.default_rng(length).integers(3, len(tiny.VOCAB), length))[-1]
        )
    return np.array(found)


def rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
