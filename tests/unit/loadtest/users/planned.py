"""Planned requests of load tests, generated."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from loadtest.traffic.arrivals import Closed, Constant
from loadtest.traffic.lengths import Constant as Fixed
from loadtest.traffic.profile import Bad, MixEntry, Profile, Protocol, Task
from loadtest.traffic.schedule import Planned


def planned(request: int = 0, at_s: float | None = 0.0, **kind: Any) -> Planned:
    return Planned(
        request=request,
        at_s=at_s,
        kind=MixEntry(**{"name": "chat", **kind}),
        tokens_in=20,
        tokens_out=8,
        prefix_group=None,
        prefix_tokens=0,
        clipped=False,
        seed=request,
    )


def profile(rate_per_s: float = 5.0, duration_s: float = 10.0, users: int | None = None) -> Profile:
    entry = MixEntry("chat", prompt_tokens=Fixed(20), output_tokens=Fixed(8))
    arrivals = Constant(rate_per_s) if users is None else Closed(users)
    return Profile("test", (entry,), arrivals, duration_s=duration_s, warmup_s=2.0)


protocols = st.sampled_from(Protocol)
tasks = st.sampled_from(Task)
bads = st.none() | st.sampled_from(Bad)
