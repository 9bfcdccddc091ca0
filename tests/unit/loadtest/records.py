"""Records of load tests, generated: whatever a load generator may have seen."""

from __future__ import annotations

from hypothesis import strategies as st

from loadtest.measure.record import FINISHES, PHASES, Chunk, Record

seconds = st.floats(0, 100, allow_nan=False)
gaps = st.floats(0, 10, allow_nan=False)
texts = st.text(max_size=12)


@st.composite
def chunk_lists(draw: st.DrawFn, start_s: float) -> tuple[Chunk, ...]:
    chunks, at = [], start_s
    for gap, tokens in draw(st.lists(st.tuples(gaps, st.integers(1, 5)), max_size=8)):
        at += gap
        chunks.append((at, tokens))
    return tuple(chunks)


@st.composite
def records(draw: st.DrawFn) -> Record:
    protocol = draw(st.sampled_from(("grpc", "http", "unary")))
    intended_s = draw(seconds)
    sent_s = intended_s + draw(gaps)
    chunks = () if protocol == "unary" else draw(chunk_lists(sent_s))
    error = draw(st.none() | texts)
    return Record(
        request=draw(st.integers(0, 10**6)),
        kind=draw(texts),
        protocol=protocol,
        model=draw(texts),
        intended_s=intended_s,
        sent_s=sent_s,
        first_s=chunks[0][0] if chunks else None,
        end_s=(chunks[-1][0] if chunks else sent_s) + draw(gaps),
        tokens_in=draw(st.integers(0, 4000)),
        tokens_out=sum(tokens for _, tokens in chunks) if chunks else draw(st.integers(0, 500)),
        chunks=chunks,
        finish_reason=None if error is not None else draw(st.none() | st.sampled_from(FINISHES)),
        error=error,
        expected=draw(st.booleans()),
        phase=draw(st.sampled_from(PHASES)),
    )
