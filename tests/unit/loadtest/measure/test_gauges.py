from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import BenchError
from loadtest.measure.gauges import read_gauges

LABELS = '{model="smollm2_engine",version="1"}'


def scrape(at_s: float, **values: float) -> tuple[float, str]:
    return at_s, "".join(f"halimede_{name}{LABELS} {value}\n" for name, value in values.items())


def test_gauges_have_the_values_that_were_read() -> None:
    found = read_gauges([scrape(1.0, num_requests_running=3), scrape(2.0, num_requests_running=5)])
    assert found == {"running": ((1.0, 3.0), (2.0, 5.0))}


def test_models_are_added_and_the_fullest_cache_counts() -> None:
    text = "".join(
        f'halimede_{name}{{model="{model}"}} {value}\n'
        for model, value in (("a", 0.25), ("b", 0.5))
        for name in ("num_requests_waiting", "kv_cache_usage_perc")
    )
    found = read_gauges([(0.0, text)])
    assert found == {"waiting": ((0.0, 0.75),), "kv_usage": ((0.0, 0.5),)}


def test_a_counter_becomes_its_rate_and_a_restart_says_nothing() -> None:
    counts = [(0.0, 10), (2.0, 30), (3.0, 5), (4.0, 6)]
    found = read_gauges(scrape(at_s, generation_tokens_total=count) for at_s, count in counts)
    assert found == {"generation_tokens_per_s": ((2.0, 10.0), (4.0, 1.0))}


def test_hits_are_a_share_of_what_was_asked_since() -> None:
    readings = [(0.0, 0, 0), (1.0, 10, 4), (2.0, 10, 4), (3.0, 20, 14)]
    found = read_gauges(
        scrape(at_s, prefix_cache_queries_total=asked, prefix_cache_hits_total=hits)
        for at_s, asked, hits in readings
    )
    assert found == {"prefix_hit_ratio": ((1.0, 0.4), (3.0, 1.0))}


@given(st.lists(st.floats(), max_size=5))
def test_a_value_that_is_no_number_is_left_out(values: list[float]) -> None:
    found = read_gauges(scrape(float(at), num_requests_running=v) for at, v in enumerate(values))
    finite = [v for v in values if abs(v) < float("inf")]
    assert [value for _, value in found.get("running", ())] == finite


def test_a_text_that_is_no_prometheus_names_the_moment() -> None:
    with pytest.raises(BenchError, match=r"the server's metrics at 2\.0 s: not a Prometheus sample"):
        read_gauges([(2.0, "<html>")])
