"""The engine's hand-written protobuf, read by OpenTelemetry's own."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.edge.traces import Context, Placed, Span, export_request
from tests.k8s.span_receiver import Received, from_protobuf

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = TEXT | st.integers(0, 2**63 - 1) | st.lists(TEXT, max_size=3).map(tuple)
IDS = st.binary(min_size=8, max_size=8)


@st.composite
def placed(draw: Any) -> Placed:
    begin, end = sorted(draw(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62))))
    span = Span(draw(TEXT), begin, end, draw(st.dictionaries(TEXT, VALUES)), draw(TEXT))
    context = Context(draw(IDS) + draw(IDS), draw(IDS))
    return Placed(span, context, draw(IDS), draw(st.integers(0, 2**62)))


@given(st.lists(placed(), max_size=4), TEXT)
def test_every_span_comes_out_as_it_went_in(spans: list[Placed], service: str) -> None:
    assert from_protobuf(export_request(spans, service, "scope")) == [
        Received(
            service=service,
            name=one.span.name,
            trace_id=one.parent.trace_id.hex(),
            span_id=one.span_id.hex(),
            parent_id=one.parent.span_id.hex(),
            begin_ns=one.span.begin_ns + one.offset_ns,
            end_ns=one.span.end_ns + one.offset_ns,
            attributes={n: list(v) if isinstance(v, tuple) else v for n, v in one.span.attributes.items()},
            failed=bool(one.span.error),
        )
        for one in spans
    ]
