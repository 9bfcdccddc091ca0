from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from build.dialects.tensorrt.toolkit import Missing, RtxToolkit, rtx

# No test is timed, on machines that are shared least of all.
settings.register_profile("halimede", deadline=None)
settings.load_profile("halimede")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of a GPU are skipped, and say so, where there is none."""
    if Path("/dev/nvidiactl").exists():
        return
    skipped = pytest.mark.skip(reason="needs an NVIDIA GPU: make gpu-check, on a host that has one")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skipped)


@pytest.fixture(scope="session")
def toolkit() -> RtxToolkit:
    """TensorRT-RTX, which parses and builds without a GPU; `make test` installs it."""
    try:
        return rtx()
    except Missing as reason:
        pytest.skip(str(reason))
