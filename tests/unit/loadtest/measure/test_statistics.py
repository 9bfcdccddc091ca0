from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import quantiles

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import BenchError
from loadtest.measure.record import Record
from loadtest.measure.result import summarise
from loadtest.measure.slo import Limits, holds, limits_of, verdicts
from loadtest.measure.statistics import Points, latency, measured, observe, percentiles, timeline
from tests.unit.loadtest.play import MEASURED_S, WARMUP_S, facts, play, played
from tests.unit.loadtest.records import records

values = st.floats(0, 1e4, allow_nan=False)
weighted = st.lists(st.tuples(values, st.integers(1, 20)), min_size=1, max_size=30)


def points(rows: list[tuple[float, int]]) -> Points:
    return Points.of([(0.0, value, weight) for value, weight in rows])


@given(weighted, st.lists(st.floats(0, 100), min_size=1, max_size=5))
def test_percentiles_are_those_of_values_written_out(
    rows: list[tuple[float, int]], asked: list[float]
) -> None:
    written_out = [value for value, weight in rows for _ in range(weight)]
    assert percentiles(points(rows), asked) == pytest.approx(list(np.percentile(written_out, asked)))


@given(st.lists(values, min_size=2, max_size=50))
def test_percentiles_are_those_of_the_standard_library(found: list[float]) -> None:
    cuts = quantiles(found, n=100, method="inclusive")
    assert percentiles(points([(value, 1) for value in found]), range(1, 100)) == pytest.approx(cuts)


@given(weighted)
def test_a_latency_is_ordered_and_counts_every_token(rows: list[tuple[float, int]]) -> None:
    found = latency(points(rows))
    assert found is not None
    assert found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max
    assert found.n == sum(weight for _, weight in rows)
    assert found.mean == pytest.approx(sum(v * w for v, w in rows) / found.n)


def test_nothing_seen_is_no_latency() -> None:
    assert latency(points([])) is None


@given(st.lists(records(), max_size=6))
def test_gaps_of_a_stream_add_up_to_its_length(found: list[Record]) -> None:
    seen = observe(found)
    length_s = sum(record.chunks[-1][0] - record.chunks[0][0] for record in found if record.chunks)
    assert float((seen.itl.value * seen.itl.weight).sum()) == pytest.approx(length_s)
    assert float(seen.gap.value.sum()) == pytest.approx(length_s)
    assert len(seen.gap) == sum(max(len(record.chunks) - 1, 0) for record in found)
    assert int(seen.tokens.weight.sum()) == sum(record.tokens_out for record in found)


@given(st.lists(records(), max_size=8))
def test_only_measured_requests_count(found: list[Record]) -> None:
    assert {record.phase for record in measured(found)} <= {"measure"}
    assert len(measured(found)) == sum(record.phase == "measure" for record in found)


@given(st.lists(records(), max_size=6), st.sampled_from([1.0, 2.5]))
def test_windows_lose_nothing(found: list[Record], width_s: float) -> None:
    windows = timeline(found, width_s)
    assert sum(w.offered_per_s for w in windows) * width_s == pytest.approx(len(found))
    assert sum(w.tokens_per_s for w in windows) * width_s == pytest.approx(sum(r.tokens_out for r in found))
    assert sum(sum(w.errors.values()) for w in windows) == sum(not record.expected for record in found)
    busy_s = sum(record.end_s - record.sent_s for record in found)
    assert sum(w.in_flight for w in windows) * width_s == pytest.approx(busy_s)


class TestSummary:
    def test_of_a_run(self) -> None:
        found, result = play(1), played(1)
        taken = measured(found)
        assert result.requests.total == len(taken)
        assert sum(result.requests.kinds.values()) == len(taken)
        assert result.offered_per_s == len(taken) / MEASURED_S
        assert result.goodput_per_s <= result.offered_per_s
        assert result.window_s == (WARMUP_S, WARMUP_S + MEASURED_S)
        assert result.slo_met

    def test_an_answer_in_one_piece_has_no_ttft(self) -> None:
        unary = played(1).by_kind["unary"]
        assert (unary.ttft_s, unary.gap_s, unary.itl_s, unary.tpot_s) == (None,) * 4
        assert unary.e2e_s is not None

    def test_planned_refusals_are_no_failures(self) -> None:
        bad = played(1).by_kind["bad"].requests
        assert (bad.unexpected, bad.errors) == (0, {})
        assert bad.planned_errors == {"INVALID_ARG": bad.total}

    def test_a_late_generator_and_few_requests_are_doubted(self) -> None:
        late = [replace(record, sent_s=record.intended_s + 1) for record in play(1)]
        said = " ".join(summarise(late, facts()).doubts)
        assert "sent requests late" in said
        assert "little more than the largest" in said


class TestObjectives:
    def test_are_met_missed_or_not_measured(self) -> None:
        limits = limits_of({"ttft_p99_s": 1.0, "itl_p50_s": 0.01, "e2e_max_s": 5})
        found = latency(points([(0.5, 1)]))
        met = {v.name: v.met for v in verdicts(limits, {"ttft": found, "itl": found, "e2e": None}, 0.0)}
        assert met == {"error_ratio": True, "ttft_p99_s": True, "itl_p50_s": False, "e2e_max_s": None}

    def test_an_answer_is_as_good_as_its_longest_gap(self) -> None:
        record = next(r for r in play(1) if r.is_complete and len(r.chunks) > 2)
        moments = [at_s for at_s, _ in record.chunks]
        longest_s = max(later - earlier for earlier, later in pairwise(moments))
        assert limits_of({"request_gap_s": longest_s}).accepts(record)
        assert not limits_of({"request_gap_s": 0.99 * longest_s}).accepts(record)

    def test_a_limit_without_a_measurement_is_not_held(self) -> None:
        assert not holds(verdicts(limits_of({}), {}, None))
        assert holds(verdicts(limits_of({}), {}, 0.0))
        assert not holds(verdicts(limits_of({}), {}, 0.01))

    @given(records(), st.floats(0, 50), st.floats(0, 50))
    def test_a_tighter_limit_accepts_no_more(self, record: Record, a: float, b: float) -> None:
        tight, loose = (Limits({}, {"request_e2e_s": limit}) for limit in sorted((a, b)))
        assert tight.accepts(record) <= loose.accepts(record)

    @pytest.mark.parametrize(
        ("slo", "says"),
        [
            ({"ttft_p98_s": 1}, "slo.ttft_p98_s is no limit, must be error_ratio, request_ttft_s"),
            ({"ttft_p99_s": "1"}, "slo.ttft_p99_s is '1', must be a finite number of at least 0"),
            ({"error_ratio": True}, "slo.error_ratio is True"),
            ({"e2e_p99_s": -1}, "at least 0"),
        ],
    )
    def test_a_bad_limit_is_named(self, slo: dict[str, object], says: str) -> None:
        with pytest.raises(BenchError) as caught:
            limits_of(slo)
        assert says in str(caught.value)
