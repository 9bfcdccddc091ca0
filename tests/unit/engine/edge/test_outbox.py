from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.core.errors import Cancelled, EngineError
from engine.core.request import FinishReason
from engine.core.stops import TextStream
from engine.core.tokens import TokenTable
from engine.edge.chunks import FALLBACK, Chunk, Outbox, decode_chunk, read_handle
from engine.edge.metrics import GAP, Recorder
from tests.fakes.loop import TOY_TABLE, VOCAB, Client, FakeClock, unexpected

ALL = ("num_input_tokens", "num_output_tokens", "logprobs")


def outbox_of(report: Callable[[BaseException], None] = unexpected) -> Outbox:
    return Outbox(Recorder(report), FakeClock())


def chunks_of(tokens: list[int], handle: str = "h/1", returns: tuple[str, ...] = ()) -> list[Chunk]:
    """One chunk for each token, the last one final."""
    stream, chunks = TextStream(TOY_TABLE, ()), []
    for place, token in enumerate(tokens, 1):
        last = place == len(tokens)
        stream.push(token)
        finish = FinishReason.LENGTH if last else None
        logprobs = ({"id": token, "logprob": -0.5},)
        chunks.append(Chunk(handle, stream.take(final=last), 5, 1, finish, logprobs, returns))
    return chunks


tokens_of = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=30)


@given(tokens_of, st.lists(st.booleans(), min_size=1, max_size=30))
def test_a_stream_that_falls_behind_is_joined(tokens: list[int], sends: list[bool]) -> None:
    faults: list[BaseException] = []
    outbox, client = outbox_of(faults.append), Client()
    for place, chunk in enumerate(chunks_of(tokens)):
        outbox.put(client, chunk)
        if sends[place % len(sends)]:
            assert outbox.send_pending() == 1
    outbox.send_pending()
    assert client.text == TOY_TABLE.join(tokens).decode("utf-8", "replace")
    assert client.tokens == len(tokens)
    assert [entry["id"] for chunk in client.chunks for entry in chunk.logprobs] == tokens
    assert (client.finals, client.late) == (1, 0)
    assert client.finish is FinishReason.LENGTH
    assert not faults


def test_an_error_takes_the_place_of_what_was_not_sent() -> None:
    outbox, client = outbox_of(), Client()
    outbox.put(client, chunks_of([1, 2])[0])
    outbox.put(client, Cancelled("request", "gone"))
    assert outbox.send_pending() == 1
    assert client.chunks == []
    assert client.error == "CANCELLED: request: gone"


def test_each_client_gets_its_own_first_come_first_served() -> None:
    order: list[str] = []

    class Named(Client):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def send(self, chunk: Chunk, final: bool) -> None:
            order.append(self.name)
            super().send(chunk, final)

    outbox = outbox_of()
    a, b = Named("a"), Named("b")
    for chunk in chunks_of([1, 2, 3]):
        outbox.put(a, chunk)
        outbox.put(b, chunk)
    outbox.send_pending()
    assert order == ["a", "b"]
    assert a.text == b.text == "abc"


class Timed(Client):
    """Notes when text came, as a reader sees it."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__()
        self._clock = clock
        self._read_ns: list[int] = []

    def send(self, chunk: Chunk, final: bool) -> None:
        super().send(chunk, final)
        if self.texts[-1]:
            self._read_ns.append(self._clock())

    @property
    def gaps(self) -> list[float]:
        return [(later - earlier) / 1e9 for earlier, later in pairwise(self._read_ns)]


@given(
    st.lists(tokens_of, min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.integers(0, 10**9)), max_size=60),
)
def test_a_gap_is_the_time_from_text_to_text_of_one_stream(
    answers: list[list[int]], turns: list[tuple[int, bool, int]]
) -> None:
    """Streams get their next chunk by turns, and what is pending is sent now and then; some never end."""
    clock, recorder = FakeClock(), Recorder(unexpected)
    outbox, clients = Outbox(recorder, clock), [Timed(clock) for _ in answers]
    left = [chunks_of(tokens) for tokens in answers]
    for turn, sends, passed_ns in turns:
        place = turn % len(answers)
        if left[place]:
            outbox.put(clients[place], left[place].pop(0))
        clock.now += passed_ns
        if sends:
            outbox.send_pending()
    outbox.send_pending()
    found = recorder.drain().observations.get((GAP, ()), [])
    assert sorted(found) == sorted(gap for client in clients for gap in client.gaps)


def test_a_response_without_text_neither_ends_a_gap_nor_begins_one() -> None:
    """A token without text, the first byte of a character, its last one; and an end without text."""
    clock, recorder = FakeClock(), Recorder(unexpected)
    outbox, client = Outbox(recorder, clock), Client()
    for chunk in chunks_of([0, 1, 0, 14, 15, 2, 0]):
        outbox.put(client, chunk)
        outbox.send_pending()
        clock.advance(100)
    assert client.texts == ["", "a", "", "", "é", "b", ""]
    assert recorder.drain().observations == {(GAP, ()): [pytest.approx(0.3), 0.1]}


def test_a_client_that_has_its_last_response_is_let_go() -> None:
    outbox, first = outbox_of(lambda _: None), chunks_of([1, 2])[0]
    gone = []
    for last in (chunks_of([1])[0], Cancelled("request", "gone")):
        for kind in (Client, BrokenAtTheEnd):
            client = kind()
            gone.append(weakref.ref(client))
            for parcel in (first, last):
                outbox.put(client, parcel)
                outbox.send_pending()
            del client
    gc.collect()
    assert [client() for client in gone] == [None] * 4


class BrokenAtTheEnd(Client):
    def send(self, chunk: Chunk, final: bool) -> None:
        if final:
            raise ConnectionError("the client is gone")

    def fail(self, error: EngineError) -> None:
        raise ConnectionError("the client is gone")


class Broken(Client):
    def send(self, chunk: Chunk, final: bool) -> None:
        raise ConnectionError("the client is gone")

    def fail(self, error: EngineError) -> None:
        raise ConnectionError("the client is gone")


def test_a_broken_client_does_not_end_the_thread() -> None:
    faults: list[BaseException] = []
    outbox, broken, well = outbox_of(faults.append), Broken(), Client()
    thread = threading.Thread(target=outbox.run)
    thread.start()
    outbox.put(broken, chunks_of([1])[0])
    outbox.put(Broken(), Cancelled("request", "gone"))
    outbox.put(well, chunks_of([1])[0])
    outbox.close()
    thread.join(30)
    assert not thread.is_alive()
    assert well.text == "a"
    assert [str(fault) for fault in faults] == ["the client is gone"] * 2


def test_what_is_pending_is_sent_before_the_thread_ends() -> None:
    """A slow client: what comes meanwhile for it is joined, and all is sent at the close."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow(Client):
        def send(self, chunk: Chunk, final: bool) -> None:
            begun.set()
            assert go_on.wait(30)
            super().send(chunk, final)

    outbox, client = outbox_of(), Slow()
    thread = threading.Thread(target=outbox.run)
    thread.start()
    first, *others = chunks_of([1, 2, 3, 4])
    outbox.put(client, first)
    assert begun.wait(30)
    for chunk in others:
        outbox.put(client, chunk)
    outbox.close()
    go_on.set()
    thread.join(30)
    assert not thread.is_alive()
    assert [chunk.tokens for chunk in client.chunks] == [1, 3]
    assert client.texts == ["a", "bcab"]


def test_a_closed_outbox_with_nothing_to_send_ends_at_once() -> None:
    outbox = outbox_of()
    outbox.close()
    outbox.run()


@given(tokens_of)
def test_the_protocol_carries_text_counts_and_handle(tokens: list[int]) -> None:
    first, *others = chunks_of(tokens, "halimede-1-ab/7", ALL)
    for chunk in others:
        first = first.then(chunk)
    data = first.to_json().encode()
    decoded = decode_chunk(data, TOY_TABLE)
    assert decoded.handle == read_handle(data) == "halimede-1-ab/7"
    assert decoded.answer.text == TOY_TABLE.join(tokens).decode("utf-8", "replace")
    assert decoded.answer.finish_reason == "length"
    assert decoded.answer.num_input_tokens == 5
    assert decoded.answer.num_output_tokens == len(tokens)
    assert json.loads(decoded.answer.logprobs or "") == list(first.logprobs)


def test_outputs_that_nobody_asked_for_are_absent() -> None:
    answer = decode_chunk(chunks_of([1])[0].to_json().encode(), TOY_TABLE).answer
    assert (answer.num_input_tokens, answer.num_output_tokens, answer.logprobs) == (None, None, None)


def test_a_chunk_that_is_not_the_last_has_no_finish_reason() -> None:
    first = chunks_of([1, 2])[0]
    assert decode_chunk(first.to_json().encode(), TOY_TABLE).answer.finish_reason == ""


@pytest.mark.parametrize("chunk", [b"", b"{}", b"[]", b"\xff", b'{"ids":[1]}', b'{"ids":"x","skip":0}'])
def test_what_the_engine_did_not_write_raises(chunk: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_chunk(chunk, TOY_TABLE)


@pytest.mark.parametrize(
    ("chunk", "handle"),
    [
        (b"", ""),
        (b"nonsense", ""),
        (b'{"handle":"a/1","ids":[', "a/1"),
        (b'{"handle":"a', ""),
        (b'{"handle":"\xff/1"}', "\ufffd/1"),
    ],
)
def test_a_handle_is_found_in_a_broken_chunk(chunk: bytes, handle: str) -> None:
    assert read_handle(chunk) == handle


def test_the_fallback_is_an_empty_chunk() -> None:
    assert FALLBACK.text == FALLBACK.finish_reason == ""


def test_a_padding_id_in_a_chunk_adds_no_text() -> None:
    fields: dict[str, Any] = json.loads(chunks_of([1])[0].to_json())
    fields["ids"] = [1, 10**6]
    decoded = decode_chunk(json.dumps(fields).encode(), TokenTable([b"", b"a"]))
    assert decoded.answer.text == "a"
