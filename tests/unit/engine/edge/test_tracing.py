from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineError,
    InternalError,
    InvalidArgument,
    Unavailable,
)
from engine.edge.traces import Context, Ending, Span, Trace, read_context, read_traceparent, spans_of
from tests.fakes.loop import ToyEngine

PARENT = Context(bytes(range(16)), bytes(range(8, 16)))
NAMES = ["queue", "prefill", "decode"]
TIMES = st.integers(0, 2**62)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("traceparent"), inner),
)
ERRORS = [
    Cancelled("request", "by the client"), DeadlineExceeded("timeout", "1 us"), InvalidArgument("seed", "-1"),
    Unavailable("queue", "full"), InternalError("engine", "failed"),
]  # fmt: skip


def traced(engine: ToyEngine, prompt: list[int], **options: Any) -> list[Span]:
    """Filled with the request's spans when it ends."""
    found: list[Span] = []
    emit = lambda trace, ending: found.extend(spans_of(trace, ending, "toy"))  # noqa: E731
    submit = engine.loop.submit
    trace = Trace(PARENT, engine.clock(), emit)
    engine.loop.submit = partial(submit, trace=trace)  # type: ignore[method-assign]
    engine.ask(prompt, **options)
    engine.loop.submit = submit  # type: ignore[method-assign]
    return found


class TestContext:
    @given(st.binary(min_size=16, max_size=16), st.binary(min_size=8, max_size=8), st.integers(0, 255))
    def test_what_triton_hands_over_is_read(self, trace_id: bytes, span_id: bytes, flags: int) -> None:
        carrier = json.dumps({"traceparent": f"00-{trace_id.hex()}-{span_id.hex()}-{flags:02x}", "other": 1})
        valid = any(trace_id) and any(span_id)
        assert read_context(carrier) == (Context(trace_id, span_id) if valid else None)

    @given(ANYTHING)
    def test_any_other_carrier_gives_no_context(self, carrier: Any) -> None:
        assert read_context(carrier) is None
        assert read_context(json.dumps(carrier)) is None

    @given(st.text())
    def test_any_other_text_gives_no_context(self, text: str) -> None:
        assert read_context(text) is None
        assert read_traceparent(text) is None

    @pytest.mark.parametrize(
        "carrier", ["[" * 4000, '{"traceparent":' * 500, "{" + " " * 5000 + "}", "NaN", "\ud800"]
    )
    def test_a_hostile_carrier_gives_no_context(self, carrier: str) -> None:
        assert read_context(carrier) is None

    def test_versions(self) -> None:
        ids = f"{'ab' * 16}-{'cd' * 8}-01"
        assert read_traceparent(f"01-{ids}-later") == read_traceparent(f"00-{ids}") is not None
        assert read_traceparent(f"ff-{ids}") is None
        assert read_traceparent(f"00-{ids.upper()}") is None


class TestSpans:
    @given(TIMES, st.none() | TIMES, st.none() | TIMES, TIMES, st.none() | st.sampled_from(ERRORS))
    def test_follow_each_other_without_a_gap(
        self, received: int, started: int | None, prefilled: int | None, ended: int, error: EngineError | None
    ) -> None:
        prefilled = None if started is None else prefilled
        times = [time for time in (received, started, prefilled, ended) if time is not None]
        trace = Trace(PARENT, received, lambda *_: None, started, prefilled)
        spans = spans_of(trace, Ending(ended, error=error), "toy")
        assert [span.name for span in spans] == NAMES[: len(times) - 1]
        assert [span.end_ns for span in spans[:-1]] == [span.begin_ns for span in spans[1:]]
        assert spans[0].begin_ns == received
        assert all(span.attributes["gen_ai.request.model"] == "toy" for span in spans)
        if times == sorted(times):
            assert [span.begin_ns for span in spans] == times[:-1]
            assert sum(span.end_ns - span.begin_ns for span in spans) == ended - received
            assert all(span.begin_ns <= span.end_ns for span in spans)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: str(error.code))
    def test_what_the_client_did_is_no_error_of_the_server(self, error: EngineError) -> None:
        *before, last = spans_of(Trace(PARENT, 0, lambda *_: None, 5), Ending(9, error=error), "toy")
        assert last.attributes["error.type"] == error.code.lower()
        assert bool(last.error) == (error.code not in {"CANCELLED", "INVALID_ARG"})
        assert not any(span.error or "error.type" in span.attributes for span in before)

    def test_a_clock_that_jumps_back_gives_no_negative_span(self) -> None:
        (span,) = spans_of(Trace(PARENT, 100, lambda *_: None), Ending(40), "toy")
        assert span.begin_ns == span.end_ns == 100


class TestEngine:
    def test_queue_prefill_and_decode_of_a_request(self) -> None:
        engine = ToyEngine(slots=1, chunk=8)
        engine.ask([1], max_tokens=1)
        spans = traced(engine, [2] * 20, max_tokens=3)
        start = engine.clock()
        while engine.loop.keys():
            engine.clock.advance(100)
            engine.step()
        queue, prefill, decode = spans
        assert (queue.begin_ns, queue.end_ns) == (start, start + 200_000_000)
        assert prefill.end_ns - prefill.begin_ns == 200_000_000  # three chunks, one each step
        assert decode.end_ns - decode.begin_ns == 200_000_000
        assert prefill.attributes == {
            "gen_ai.request.model": "toy", "gen_ai.usage.input_tokens": 20,
            "gen_ai.usage.cache_read.input_tokens": 0, "halimede.prefill.chunks": 3,
        }  # fmt: skip
        assert decode.attributes["gen_ai.usage.output_tokens"] == 3
        assert decode.attributes["gen_ai.response.finish_reasons"] == ("length",)

    def test_the_prefill_span_has_the_length_of_the_reused_prefix(self) -> None:
        engine = ToyEngine(min_reuse=4, chunk=64)
        engine.ask([7] * 20, max_tokens=2)
        engine.run()
        spans = traced(engine, [*[7] * 20, 1, 2], max_tokens=2)
        engine.run()
        assert spans[1].attributes["gen_ai.usage.cache_read.input_tokens"] == 20

    def test_a_request_that_never_started_has_a_queue_alone(self) -> None:
        engine = ToyEngine(slots=1)
        engine.ask([1], max_tokens=30)
        engine.step()
        spans = traced(engine, [2], timeout_ms=50)
        engine.clock.advance(60)
        engine.run()
        (queue,) = spans
        assert (queue.name, queue.error) == ("queue", "DEADLINE_EXCEEDED")

    def test_a_prefill_that_fails_is_the_last_span(self) -> None:
        engine = ToyEngine()
        engine.runner.faults["prefill"] = RuntimeError("no memory")
        spans = traced(engine, [1, 2])
        engine.run()
        assert [span.name for span in spans] == ["queue", "prefill"]
        assert spans[-1].error == "INTERNAL"

    def test_a_cancelled_answer_has_what_was_generated(self) -> None:
        engine = ToyEngine()
        spans = traced(engine, [1, 2], max_tokens=40)
        for _ in range(4):
            engine.step()
        engine.loop.cancel(engine.clients[-1].key)
        engine.run()
        assert spans[-1].attributes["error.type"] == "cancelled"
        assert spans[-1].attributes["gen_ai.usage.output_tokens"] == 4
        assert "gen_ai.response.finish_reasons" not in spans[-1].attributes

    @pytest.mark.parametrize("encoder", [False, True])
    @pytest.mark.parametrize("beams", [1, 3])
    def test_searches_and_encoders_have_the_same_spans(self, encoder: bool, beams: int) -> None:
        engine = ToyEngine(source_capacity=32 if encoder else 0)
        spans = traced(engine, [1, 2, 3], stream=False, num_beams=beams, max_tokens=5)
        engine.run()
        assert [span.name for span in spans] == NAMES
        assert spans[1].attributes["halimede.prefill.chunks"] == 1
        assert spans[2].attributes["gen_ai.usage.output_tokens"] == 5
