from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from loadtest import pages
from loadtest.measure.record import Record
from loadtest.measure.result import Facts, Server, decode, encode, summarise
from tests.unit.loadtest.records import records

FACTS = Facts(
    profile={"name": "chat", "slo": {"ttft_p99_s": 0.5, "request_ttft_s": 0.4}},
    started="2026-11-01T10:00:00+00:00",
    machine={"cpu": "a CPU", "cores": 2, "date": "2026-11-01", "commit": "abc", "uncommitted_changes": False},
    server=Server("127.0.0.1:8001", "2.51.0", ("smollm2",)),
    window_s=(10.0, 60.0),
    gauges={"running": ((1.0, 2.0), (2.0, 3.0))},
)


@given(st.lists(records(), max_size=6))
def test_a_result_survives_its_file(found: list[Record]) -> None:
    result = summarise(found, FACTS)
    assert decode(encode(result)) == result


@given(st.lists(records(), max_size=6))
def test_any_run_fits_on_a_screen(found: list[Record]) -> None:
    output = io.StringIO()
    pages.show(summarise(found, FACTS), Console(file=output, width=80))
    lines = output.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "TTFT" in output.getvalue()
