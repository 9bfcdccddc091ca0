"""Records of what a worker that died owed: what it should have sent and did not, or did and could not tell.
Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass
from itertools import islice

from loadtest.measure.record import Record
from loadtest.traffic.arrivals import Closed
from loadtest.traffic.profile import Profile
from loadtest.traffic.schedule import Planned, schedule, share_of
from loadtest.users.faults import WORKER_LOST
from loadtest.users.tape import Tape, phase_of


@dataclass(frozen=True, slots=True)
class Loss:
    """`at_s` is when it was noticed; `until_s` when the run ended, early or not."""

    worker: int
    workers: int
    at_s: float
    until_s: float


def owed(profile: Profile, model: str, loss: Loss, seen: Set[int]) -> Iterator[Record]:
    """An error for each request of its share that nobody heard of; `seen` are the numbers of the known
    records.

    In a closed loop nobody knows what it would have sent: one for each of its users, who had one under way.
    """
    share = schedule(profile, loss.worker, loss.workers)
    missing = (planned for planned in share if planned.request not in seen)
    if isinstance(profile.arrivals, Closed):
        users = share_of(profile.arrivals.users, loss.worker, loss.workers)
        for planned in islice(missing, users):
            yield _lost(profile, model, planned, min(loss.at_s, loss.until_s), loss)
        return
    for planned in missing:
        assert planned.at_s is not None
        if planned.at_s >= loss.until_s:
            return
        yield _lost(profile, model, planned, planned.at_s, loss)


def _lost(profile: Profile, model: str, planned: Planned, intended_s: float, loss: Loss) -> Record:
    name = planned.kind.model or model
    tape = Tape(planned, name, intended_s, phase_of(profile, intended_s))
    tape.sent(intended_s)  # nobody knows, and the generator's lag it was not
    return tape.record(max(loss.at_s, intended_s), WORKER_LOST)
