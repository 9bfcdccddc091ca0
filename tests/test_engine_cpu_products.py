"""Where products of bytes need ONNX Runtime's slow but exact way, they get it, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.runner_onnx import _sums_in_32_bits


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("model name : x\nflags\t\t: fpu avx2 avx512_vnni\nbugs :\n", True),
        ("flags\t\t: fpu avx2 avx_vnni fma\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", True),  # not an x86: its products never saturate
    ],
)
def test_the_processor_says_whether_sums_saturate(text: str, exact: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert _sums_in_32_bits(tmp_path / "cpuinfo") is exact


def test_an_unknown_processor_gets_exact_sums(tmp_path: Path) -> None:
    assert not _sums_in_32_bits(tmp_path / "absent")
