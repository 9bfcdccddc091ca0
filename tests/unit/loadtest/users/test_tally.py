from __future__ import annotations

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from loadtest.traffic.schedule import schedule
from loadtest.users.tally import owed
from tests.unit.loadtest.users.planned import profile


@given(st.integers(1, 5), st.data())
def test_what_is_known_and_what_is_owed_make_the_whole_share(workers: int, data: st.DataObject) -> None:
    worker = data.draw(st.integers(0, workers - 1))
    at_s, until_s = data.draw(st.floats(0, 20)), data.draw(st.floats(0, 12))
    plan = profile()
    due = [p for p in schedule(plan, worker, workers) if p.at_s is not None and p.at_s < until_s]
    seen = set(data.draw(st.lists(st.sampled_from([p.request for p in due]), unique=True)) if due else [])
    found = list(owed(plan, "smollm2", worker, workers, at_s, until_s, seen))
    assert {record.request for record in found}.isdisjoint(seen)
    assert sorted({record.request for record in found} | seen) == [p.request for p in due]
    assert all(record.error == "worker_lost" and not record.expected for record in found)
    assert all(record.end_s >= at_s for record in found)


@given(st.integers(1, 3), st.integers(1, 9))
def test_in_a_closed_loop_each_user_of_the_lost_worker_owes_one(workers: int, users: int) -> None:
    plan = profile(users=users)
    known = {p.request for w in range(workers) for p in islice(schedule(plan, w, workers), 3)}
    found = [r for w in range(workers) for r in owed(plan, "smollm2", w, workers, 5.0, 12.0, known)]
    assert len(found) == len({record.request for record in found}) == users
    assert not {record.request for record in found} & known
    assert all(record.phase == "measure" for record in found)
