"""Requests with the published quantiles of a conversation service: a trace that needs no file.

Lengths: Azure LLM inference trace 2023, conversations, 19,366 requests, CC-BY 4.0; P. Patel et al.,
"Splitwise: Efficient generative LLM inference using phase splitting", ISCA 2024. Input and output are drawn
independently: in the trace they correlate at -0.11.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from loadtest.traffic.arrivals import Trace, random_times
from loadtest.traffic.lengths import Quantiles
from loadtest.traffic.trace import Arrival

INPUT = Quantiles(((0.1, 207), (0.5, 1020), (0.9, 2735), (0.99, 4142)))
OUTPUT = Quantiles(((0.1, 54), (0.5, 129), (0.9, 424), (0.99, 601)))


def generated(trace: Trace, seed: int) -> Iterator[Arrival]:
    """Arrivals without end, at `rate_per_s` times `speed`; their lengths do not depend on the rate."""
    lengths = Random(f"{seed}/lengths")
    times = random_times(trace.rate_per_s * trace.speed, trace.variation, Random(f"{seed}/times"))
    for at_s in times:
        yield Arrival(at_s, INPUT.sample(lengths), OUTPUT.sample(lengths))
