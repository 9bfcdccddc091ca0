from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import BenchError
from loadtest.measure.record import Record, decode, decode_lines, encode, encode_lines
from tests.unit.loadtest.records import records

FINE = Record(
    request=7,
    kind="chat",
    protocol="grpc",
    model="smollm2",
    intended_s=1.0,
    sent_s=1.25,
    first_s=1.5,
    end_s=3.0,
    tokens_in=20,
    tokens_out=6,
    chunks=((1.5, 1), (2.0, 2), (2.75, 3)),
    finish_reason="length",
    error=None,
    expected=True,
    phase="measure",
)


def test_latencies_count_from_the_intended_start() -> None:
    assert (FINE.ttft_s, FINE.e2e_s, FINE.lag_s) == (0.5, 2.0, 0.25)


def test_a_reader_waits_for_a_chunk_and_each_of_its_tokens_has_its_share() -> None:
    assert FINE.gaps_s == (0.5, 0.75)
    assert FINE.itl == ((0.25, 2), (0.25, 3))
    assert FINE.tpot_s == 1.25 / 5


@given(st.lists(records()))
def test_records_survive_the_file(found: list[Record]) -> None:
    assert list(decode_lines(encode_lines(found))) == found


@given(records())
def test_a_record_is_one_line(record: Record) -> None:
    assert "\n" not in encode(record)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("request", -1, "a record.request: -1, must be a whole number from 0"),
        ("request", True, "request: True, must be a whole number"),
        ("kind", None, "kind: None, must be text"),
        ("protocol", "soap", "protocol: 'soap', must be one of grpc, http, unary"),
        ("intended_s", "1", "intended_s: '1', must be a number"),
        ("end_s", None, "end_s: None, must be a number"),
        ("first_s", float("inf"), "first_s: inf, must be a number"),
        ("tokens_out", 1.5, "tokens_out: 1.5, must be a whole number"),
        ("chunks", [[1.0, 0]], "at least one token each"),
        ("chunks", [[1.0]], "chunks: [[1.0]], must be"),
        ("chunks", [[True, 1]], "chunks: [[True, 1]], must be"),
        ("chunks", "x" * 500, "..., must be"),
        ("finish_reason", "eos", "must be one of stop, length, stop_sequence"),
        ("error", 14, "error: 14, must be text"),
        ("expected", 1, "expected: 1, must be true or false"),
        ("phase", "cooldown", "one of warmup, measure, drain"),
    ],
)
def test_a_bad_field_is_named(field: str, value: Any, says: str) -> None:
    with pytest.raises(BenchError) as caught:
        decode(json.dumps(json.loads(encode(FINE)) | {field: value}))
    assert says in str(caught.value)


def test_missing_and_unknown_fields_are_named() -> None:
    found = json.loads(encode(FINE))
    with pytest.raises(BenchError, match=r"a record\.colour: is not known here; known are "):
        decode(json.dumps(found | {"colour": "red"}))
    for name in list(found):
        with pytest.raises(BenchError, match=rf"a record\.{name}: is missing"):
            decode(json.dumps({key: value for key, value in found.items() if key != name}))


@pytest.mark.parametrize(("line", "says"), [("{", "no JSON"), ("[1]", "must be a table")])
def test_a_line_that_is_no_record_is_named(line: str, says: str) -> None:
    with pytest.raises(BenchError, match=f"line 3: a record.*{says}"):
        list(decode_lines([encode(FINE), "\n", line]))
