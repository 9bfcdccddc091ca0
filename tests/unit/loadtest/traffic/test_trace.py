"""Traces are read row by row, and what is wrong in them is named by line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.errors import TrafficError
from loadtest.traffic.arrivals import Arrival, read_trace

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def _file(folder: Path, text: str) -> Path:
    path = folder / "trace.csv"
    path.write_text(text, "utf-8")
    return path


def test_dates_of_seven_digits_are_read(tmp_path: Path) -> None:
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    first, second = read_trace(_file(tmp_path, HEADER + rows))
    assert first == Arrival(0.0, 374, 44)
    assert (second.tokens_in, second.tokens_out) == (396, 109)
    assert second.at_s == pytest.approx(4.314579, abs=2e-6)


def test_times_of_zones_are_brought_together(tmp_path: Path) -> None:
    rows = "2023-11-16T18:00:00+00:00,1,1\n2023-11-16T19:00:30+01:00,2,2\n2023-11-16T18:01:00Z,3,3\n"
    assert [row.at_s for row in read_trace(_file(tmp_path, HEADER + rows))] == [0, 30, 60]


def test_seconds_columns_and_blank_lines_of_ones_own(tmp_path: Path) -> None:
    path = _file(tmp_path, "\ufeffid, out, when, in\na,5,10.5,7\n\nb,6,12.5,8\n")
    assert read_trace(path, ("when", "in", "out")) == (Arrival(0.0, 7, 5), Arrival(2.0, 8, 6))


def test_speed_shortens_the_gaps_alone(tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER + "0,1,2\n10,3,4\n")
    assert read_trace(path, speed=4) == (Arrival(0.0, 1, 2), Arrival(2.5, 3, 4))


def test_rows_out_of_order_are_put_in_order(tmp_path: Path) -> None:
    path = _file(tmp_path, HEADER + "9,1,1\n5,2,2\n9,3,3\n")
    assert [(row.at_s, row.tokens_in) for row in read_trace(path)] == [(0, 2), (4, 1), (4, 3)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: no column TIMESTAMP; there are none"),
        ("when,in,out\n", "line 1: no column TIMESTAMP; there are when, in, out"),
        (HEADER, "has no request"),
        (HEADER + "1,2\n", "line 2: has 2 columns, must have at least 3"),
        (HEADER + "1,2,3\nsoon,2,3\n", "line 3, TIMESTAMP: 'soon', must be an ISO date or seconds"),
        (HEADER + "inf,2,3\n", "line 2, TIMESTAMP: 'inf', must be finite"),
        (HEADER + "1,-2,3\n", "line 2, ContextTokens: '-2', must be a whole number from 0 to 1,000,000"),
        (HEADER + "1,2,2.5\n", "line 2, GeneratedTokens: '2.5', must be a whole number"),
        (HEADER + "1,2,1000001\n", "GeneratedTokens: '1000001', must be a whole number from 0 to 1,000,000"),
        (HEADER + f"1,{'9' * 5000},1\n", "ContextTokens: '9999.*, must be a whole number"),
        (HEADER + "1,²,1\n", "ContextTokens: '²', must be a whole number"),
    ],
)
def test_a_bad_row_is_refused_by_line_column_and_value(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TrafficError, match=message):
        read_trace(_file(tmp_path, text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TrafficError, match="is not CSV in UTF-8"):
        read_trace(path)
    with pytest.raises(TrafficError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.csv")
