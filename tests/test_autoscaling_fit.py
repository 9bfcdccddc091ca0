"""The loads of a calibration."""

from __future__ import annotations

import pytest

from k8s.autoscaling.fit import CHECK_SEED, FIT_SEED, planned


@pytest.mark.parametrize("seed", [FIT_SEED, CHECK_SEED])
@pytest.mark.parametrize("rate_per_s", [0.001, 0.05, 2.0])
def test_a_slow_server_gets_requests_too(rate_per_s: float, seed: int) -> None:
    """Seen: in eight seconds none was due at the rate of a server that was short of processor."""
    assert len(planned(rate_per_s, seed, 8.0)) >= 3
