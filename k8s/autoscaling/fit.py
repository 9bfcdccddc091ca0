"""The parts that were timed one by one, made to fit what the server does with requests that come as they do.

The rates are multiples of the capacity that the parts promise; the check is on other requests than the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from halimede import Client
from k8s.autoscaling.arrivals import chat, poisson
from k8s.autoscaling.calibration import Calibration
from k8s.autoscaling.capacity import capacity
from k8s.autoscaling.compare import beside, distance
from k8s.autoscaling.play import play
from k8s.autoscaling.replica import Request, StepTimes

FITTED: Final = (0.7, 1.3)
CHECKED: Final = (1.0, 1.2)
SECONDS: Final = 40.0
# On average, and more seconds where these are not due in time: of none there are no figures.
REQUESTS: Final = 8
FIT_SEED: Final = 2
CHECK_SEED: Final = 3


def fit(
    client: Client, parts: Calibration, say: Callable[[str], None], seconds: float = SECONDS
) -> Calibration:
    """An easy rate and a hard one, and two others beside the model. Raises what a request did."""
    unit_per_s = capacity(StepTimes(parts), chat)
    fitted, checked = [], []
    # In turns: a machine that slows down meanwhile should show in both.
    for to_fit, to_check in zip(FITTED, CHECKED, strict=True):
        fitted.append(_played(client, to_fit * unit_per_s, FIT_SEED, seconds))
        checked.append(_played(client, to_check * unit_per_s, CHECK_SEED, seconds))
    found = best(parts, fitted)
    say(f"under load all takes {found.slowdown:.2f} times as long; a request costs {_costs(found)}")
    for share, requests in zip(CHECKED, checked, strict=True):
        say(f"\nother requests, {share * unit_per_s:.2f}/s:\n\n{beside(requests, found)}")
    return found


def best(parts: Calibration, played: Sequence[Sequence[Request]]) -> Calibration:
    """The candidate that is most like what the server did."""
    return min(_candidates(parts), key=lambda one: sum(distance(requests, one) for requests in played))


def _candidates(parts: Calibration) -> Iterator[Calibration]:
    """Slower by up to 1.8 times, and with less of a request's cost in the chunks of its prompt."""
    for step in range(40):
        for share in (1.0, 0.5, 0.25, 0.0):
            yield replace(_less_per_chunk(parts, share), slowdown=1 + step / 50)


def _less_per_chunk(parts: Calibration, share: float) -> Calibration:
    """Short prompts alone cannot tell a request's own cost from its one chunk's."""
    call_s = share * parts.prefill_call_s
    return replace(parts, prefill_call_s=call_s, request_s=parts.request_s + parts.prefill_call_s - call_s)


def _played(client: Client, rate_per_s: float, seed: int, seconds: float) -> list[Request]:
    return play(client, planned(rate_per_s, seed, seconds))


def planned(rate_per_s: float, seed: int, seconds: float) -> list[Request]:
    lasting = max(seconds, REQUESTS / rate_per_s)
    return list(poisson([(0, 1), (lasting, 1)], rate_per_s, chat, seed))


def _costs(found: Calibration) -> str:
    return f"{found.request_s * 1000:.1f} ms, a chunk {found.prefill_call_s * 1000:.1f} ms"
