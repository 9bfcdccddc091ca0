"""Client and AsyncClient over a fake transport."""

from __future__ import annotations

import gc
import math

import pytest

from halimede import AsyncClient, Client, ModelInfo, Sampling
from halimede.errors import (
    ConnectionFailed,
    DeadlineExceeded,
    HalimedeError,
    InvalidArgument,
    NotFound,
    ProtocolError,
)
from halimede.results import Chunk, Generation, Timing, TokenLogprob
from halimede.sampling import Message
from halimede.testing import Event, FakeTransport, answer

QUESTION = [Message(role="user", content="Who?")]
HEARTBEAT = Chunk(num_input_tokens=3, num_output_tokens=0)


class TestGenerate:
    def test_the_answer_is_put_together(self) -> None:
        token = TokenLogprob(1, "a", b"a", -0.5)
        turn = [
            Chunk("a", None, 7, 1, (token,)),
            Chunk("b", None, 7, 2, (token, token)),
            Chunk("", "length", 7, 0),
        ]
        found = Client(transport=FakeTransport(turn)).generate("?")
        assert (found.text, found.finish_reason) == ("ab", "length")
        assert (found.num_input_tokens, found.num_output_tokens) == (7, 3)
        assert found.logprobs == (token, token, token)

    def test_missing_counts_are_none(self) -> None:
        found = Client(transport=FakeTransport([Chunk("a", "stop")])).generate("?")
        assert (found.num_input_tokens, found.num_output_tokens) == (None, None)

    def test_generate_requests_a_single_response(self) -> None:
        fake = FakeTransport(answer("a"))
        Client(transport=fake).generate("?")
        assert fake.requests[0].stream is False

    def test_a_whole_answer_has_no_time_to_its_first_token(self) -> None:
        clock = iter(range(1000)).__next__
        client = Client(transport=FakeTransport([Chunk("a", "stop")]), clock=clock, timeout=math.inf)
        timing = client.generate("?").timing
        assert timing.ttft_s is None
        assert timing.e2e_s > 0

    def test_chat_and_generate_send_messages(self) -> None:
        fake = FakeTransport(answer("a"), answer("b"))
        client = Client(transport=fake)
        client.chat(QUESTION)
        client.generate(messages=QUESTION)
        assert [request.messages for request in fake.requests] == [QUESTION, QUESTION]
        assert fake.requests[0].prompt is None

    def test_prompt_and_messages_exclude_each_other(self) -> None:
        client = Client(transport=FakeTransport())
        with pytest.raises(InvalidArgument):
            client.generate()
        with pytest.raises(InvalidArgument):
            client.stream("?", messages=QUESTION)

    def test_keywords_override_sampling(self) -> None:
        fake = FakeTransport(answer("a"))
        base = Sampling(max_tokens=5, temperature=0.5)
        Client(transport=fake).generate("?", sampling=base, temperature=0, stop="END")
        assert fake.requests[0].sampling == Sampling(max_tokens=5, temperature=0, stop="END")

    def test_a_misspelt_keyword_is_a_type_error(self) -> None:
        with pytest.raises(TypeError, match="max_token"):
            Client(transport=FakeTransport()).generate("?", max_token=5)  # type: ignore[call-arg]

    def test_model_and_request_id_of_one_call(self) -> None:
        fake = FakeTransport(answer("a"), answer("b"))
        client = Client(model="one", transport=fake)
        client.generate("?")
        client.generate("?", model="two", request_id="r1")
        assert [(r.model, r.request_id) for r in fake.requests] == [("one", ""), ("two", "r1")]

    def test_an_answer_without_a_last_chunk_is_a_protocol_error(self) -> None:
        client = Client(transport=FakeTransport(["cut"], []))
        with pytest.raises(ProtocolError):
            client.generate("?")
        with pytest.raises(ProtocolError):
            client.generate("?")


class TestStream:
    def test_a_stream_skips_heartbeats(self) -> None:
        turn = [HEARTBEAT, *answer("a", "b"), HEARTBEAT]
        stream = Client(transport=FakeTransport(turn)).stream("?")
        assert [chunk.text for chunk in stream] == ["a", "b", ""]

    def test_no_text_may_follow_the_last_chunk(self) -> None:
        with pytest.raises(ProtocolError):
            list(Client(transport=FakeTransport([*answer("a"), "b"])).stream("?"))

    def test_the_request_is_sent_when_the_first_chunk_is_requested(self) -> None:
        fake = FakeTransport(answer("a"))
        stream = Client(transport=fake).stream("?")
        assert fake.requests == []
        next(stream)
        assert fake.requests[0].stream is True

    def test_times_are_of_the_first_and_last_chunk(self) -> None:
        clock = iter([0.0, 0.0, 1.5, 2.0, 4.0]).__next__
        client = Client(transport=FakeTransport(answer("a", "b")), clock=clock, timeout=math.inf)
        assert client.stream("?").collect().timing == Timing(ttft_s=1.5, e2e_s=4.0)

    def test_leaving_the_with_block_cancels(self) -> None:
        fake = FakeTransport(answer("a", "b"))
        with Client(transport=fake).stream("?") as stream:
            next(stream)
        assert fake.cancelled == 1
        assert _text_and_end(stream.generation) == ("a", None)

    def test_deleting_the_stream_cancels(self) -> None:
        fake = FakeTransport(answer("a", "b"))
        for _ in Client(transport=fake).stream("?"):
            break
        gc.collect()
        assert fake.cancelled == 1

    def test_reading_to_the_end_does_not_cancel(self) -> None:
        fake = FakeTransport(answer("a", "b"))
        with Client(transport=fake).chat_stream(QUESTION) as stream:
            assert _text_and_end(stream.collect()) == ("ab", "stop")
        assert fake.cancelled == 0

    def test_collect_continues_after_the_chunks_already_read(self) -> None:
        with Client(transport=FakeTransport(answer("a", "b"))).stream("?") as stream:
            next(stream)
            assert stream.collect().text == "ab"

    def test_an_error_ends_the_stream(self) -> None:
        stream = Client(transport=FakeTransport(["a", NotFound("x")])).stream("?")
        next(stream)
        with pytest.raises(NotFound):
            next(stream)
        with pytest.raises(StopIteration):
            next(stream)

    def test_the_generation_is_empty_before_the_first_chunk(self) -> None:
        assert _text_and_end(Client(transport=FakeTransport()).stream("?").generation) == ("", None)

    def test_the_deadline_of_a_stream_runs_from_its_start(self) -> None:
        clock = iter([0.0, 0.0, 9.0]).__next__
        stream = Client(transport=FakeTransport(), clock=clock, timeout=5).stream("?")
        with pytest.raises(DeadlineExceeded):
            next(stream)


class TestServer:
    def test_models_are_sorted(self) -> None:
        fake = FakeTransport(models=[ModelInfo("b", "1", "READY"), ModelInfo("a", "2", "READY")])
        assert [model.name for model in Client(transport=fake).models()] == ["a", "b"]

    def test_health_checks_the_clients_model_or_the_given_one(self) -> None:
        client = Client(model="one", transport=FakeTransport())
        assert client.health().model == "one"
        assert client.health("two").model == "two"

    def test_metrics_are_parsed(self) -> None:
        fake = FakeTransport(metrics='halimede_num_requests_running{model="smollm2"} 3\n')
        assert Client(transport=fake).metrics().total("halimede_num_requests_running") == 3

    def test_every_call_to_a_stopped_server_raises(self) -> None:
        client = Client(transport=FakeTransport(failure=ConnectionFailed("gone")))
        for ask in (client.models, client.health, client.metrics):
            with pytest.raises(ConnectionFailed):
                ask()

    def test_a_closed_client_refuses_calls(self) -> None:
        fake = FakeTransport()
        with Client(transport=fake) as client:
            pass
        assert fake.closed
        with pytest.raises(HalimedeError, match="closed"):
            client.generate("?")
        with pytest.raises(HalimedeError, match="closed"):
            client.health()

    def test_repr(self) -> None:
        assert repr(Client(transport=FakeTransport())) == "<Client grpc://localhost:8001 smollm2>"


class TestFakeTransport:
    def test_a_request_without_a_turn_fails_the_test(self) -> None:
        with pytest.raises(AssertionError, match="request 1, but 0 are scripted"):
            Client(transport=FakeTransport()).generate("?")

    def test_a_step_that_needs_a_server_fails_the_test(self) -> None:
        with pytest.raises(AssertionError, match="needs a fake server"):
            Client(transport=FakeTransport([Event.HANG])).generate("?")


@pytest.mark.anyio
class TestAsync:
    async def test_generate_chat_and_streams(self) -> None:
        fake = FakeTransport(*[answer("a", "b")] * 4)
        async with AsyncClient(transport=fake) as client:
            assert (await client.generate("?")).text == "ab"
            assert (await client.chat(QUESTION)).text == "ab"
            assert [chunk.text async for chunk in client.stream("?")] == ["a", "b", ""]
            assert (await client.chat_stream(QUESTION).collect()).text == "ab"
        assert [request.stream for request in fake.requests] == [False, False, True, True]
        assert fake.closed

    async def test_leaving_a_stream_cancels(self) -> None:
        fake = FakeTransport(answer("a", "b"))
        async with AsyncClient(transport=fake).stream("?") as stream:
            async for chunk in stream:
                assert chunk.text == "a"
                break
        assert fake.cancelled == 1

    async def test_errors_before_and_between_chunks(self) -> None:
        client = AsyncClient(transport=FakeTransport([NotFound("x")], ["a", NotFound("y")]))
        with pytest.raises(NotFound, match="x"):
            await client.generate("?")
        with pytest.raises(NotFound, match="y"):
            await client.stream("?").collect()

    async def test_the_server(self) -> None:
        fake = FakeTransport(models=[ModelInfo("a", "1", "READY")], metrics="up 1\n")
        async with AsyncClient(transport=fake) as client:
            assert (await client.models())[0].ready
            assert (await client.health()).ok
            assert (await client.metrics()).total("up") == 1


def _text_and_end(answer: Generation) -> tuple[str, str | None]:
    return answer.text, answer.finish_reason
