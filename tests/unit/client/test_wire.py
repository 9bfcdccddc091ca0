"""The wire format without a network: the encoding of requests and the decoding of answers."""

from __future__ import annotations

import contextlib
import json
import math
import struct
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2 as pb

from halimede.errors import Internal, InvalidArgument, NotFound, ProtocolError, ServerError, Unavailable
from halimede.inputs import INPUTS
from halimede.results import Alternative, Chunk, TokenLogprob
from halimede.sampling import Message, Sampling
from halimede.wire import GenerateRequest, ReplyDecoder, proto
from halimede.wire.rest import encode_body, generate_path, status_error
from tests.contract import INPUTS as ROWS
from tests.contract import TYPES, example


def _argument(name: str) -> Any:
    return {5: -1.5} if name == "logit_bias" else example(name)


EVERYTHING = Sampling(**{one.argument: _argument(name) for name, one in INPUTS.items() if one.argument})

text = st.text()
chunks = st.builds(
    Chunk,
    text=text,
    finish_reason=st.none() | st.sampled_from(["stop", "length", "stop_sequence"]),
    num_input_tokens=st.integers(0, 2**31 - 1),
    num_output_tokens=st.integers(0, 2**31 - 1),
)


def _request(**fields: Any) -> GenerateRequest:
    return GenerateRequest(**{"model": "smollm2", "prompt": "Hi", **fields})


class TestRequest:
    def test_every_input_of_the_ensemble_can_be_sent(self) -> None:
        inputs = _request(sampling=EVERYTHING).inputs()
        assert inputs.keys() | {"messages"} == INPUTS.keys()

    def test_what_is_not_set_is_not_sent(self) -> None:
        assert _request().inputs() == {
            "text_input": "Hi",
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
            "stream": True,
        }

    def test_zero_and_false_are_set(self) -> None:
        inputs = _request(sampling=Sampling(temperature=0, seed=0, ignore_eos=False)).inputs()
        assert (inputs["temperature"], inputs["seed"], inputs["ignore_eos"]) == (0, 0, False)

    def test_one_stop_text_is_one_stop_word(self) -> None:
        assert _request(sampling=Sampling(stop="END")).inputs()["stop_words"] == ("END",)

    def test_messages_and_bias_are_sent_as_json(self) -> None:
        messages = [Message(role="user", content="Grüße 🙂")]
        request = _request(prompt=None, messages=messages, sampling=EVERYTHING)
        inputs = request.inputs()
        assert json.loads(str(inputs["messages"])) == messages
        assert json.loads(str(inputs["logit_bias"])) == {"5": -1.5}

    @pytest.mark.parametrize(("prompt", "messages"), [(None, None), ("Hi", [])])
    def test_a_request_has_either_a_prompt_or_messages(
        self, prompt: str | None, messages: list[Message] | None
    ) -> None:
        with pytest.raises(InvalidArgument, match="one of prompt and messages"):
            _request(prompt=prompt, messages=messages)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("max_tokens", 2**31),
            ("max_tokens", 1.5),
            ("max_tokens", True),
            ("max_tokens", "many"),
            ("seed", -1),
            ("seed", 2**64),
            ("temperature", math.nan),
            ("temperature", math.inf),
            ("temperature", 1e39),
            ("top_p", "0.5"),
            ("ignore_eos", 1),
            ("stop", ("fine", 5)),
            ("stop", "\ud800"),
            ("logit_bias", {1: object()}),
        ],
    )
    def test_a_value_that_its_datatype_cannot_hold_is_refused(self, field: str, value: object) -> None:
        with pytest.raises(InvalidArgument) as caught:
            replace(_request(), sampling=Sampling(**{field: value})).inputs()  # type: ignore[arg-type]
        assert caught.value.field == {"stop": "stop_words"}.get(field, field)

    def test_the_timeout_is_in_microseconds_and_never_zero(self) -> None:
        assert _request().timeout_us is None
        assert _request(timeout_s=1.5).timeout_us == 1_500_000
        assert _request(timeout_s=1e-9).timeout_us == 1


class TestProto:
    def test_an_input_has_the_shape_of_its_values(self) -> None:
        message = proto.encode(_request(sampling=EVERYTHING))
        shapes = {tensor.name: list(tensor.shape) for tensor in message.inputs}
        assert shapes == {name: [1, 2 if ROWS[name].get("many") else 1] for name in shapes}

    def test_datatypes_and_contents(self) -> None:
        message = proto.encode(_request(sampling=EVERYTHING))
        tensors = {tensor.name: tensor for tensor in message.inputs}
        assert {name: t.datatype for name, t in tensors.items()}.items() <= TYPES.items()
        assert list(tensors["seed"].contents.uint64_contents) == [2**64 - 1]
        assert list(tensors["temperature"].contents.fp32_contents) == [0.5]
        assert list(tensors["stream"].contents.bool_contents) == [True]
        assert list(tensors["max_tokens"].contents.int_contents) == [2]
        assert list(tensors["stop_words"].contents.bytes_contents) == [b"ab", "é".encode()]
        assert not message.raw_input_contents  # Triton takes one kind of contents or the other

    def test_model_id_and_timeout(self) -> None:
        message = proto.encode(_request(request_id="r1", timeout_s=2.0))
        assert (message.model_name, message.id) == ("smollm2", "r1")
        assert message.parameters["timeout"].int64_param == 2_000_000
        assert "timeout" not in proto.encode(_request()).parameters

    @given(chunks)
    def test_a_chunk_is_decoded(self, chunk: Chunk) -> None:
        assert proto.decode(_over_the_wire(_response(chunk))) == chunk

    def test_missing_outputs_get_defaults(self) -> None:
        response = pb.ModelStreamInferResponse()
        _add(response, "text_output", "BYTES", _bytes_of("Hi"))
        assert proto.decode(response) == Chunk("Hi")

    def test_an_error_in_the_stream_is_raised(self) -> None:
        text = "in ensemble 'smollm2', UNAVAILABLE: queue: 64 waiting, limit 64"
        with pytest.raises(Unavailable, match=r"^UNAVAILABLE: queue"):
            proto.decode(pb.ModelStreamInferResponse(error_message=text))

    def test_the_error_for_an_unknown_model_needs_no_code(self) -> None:
        text = "Request for unknown model: 'x' is not found"
        with pytest.raises(NotFound):
            proto.decode(pb.ModelStreamInferResponse(error_message=text))

    @pytest.mark.parametrize(
        ("datatype", "raw"),
        [("BYTES", b"\x09\0\0\0ab"), ("BYTES", b""), ("BYTES", b"\1\0\0\0\xff"), ("FP32", b"\0" * 4)],
    )
    def test_malformed_outputs_are_refused(self, datatype: str, raw: bytes) -> None:
        response = pb.ModelStreamInferResponse()
        _add(response, "text_output", datatype, raw)
        with pytest.raises(ProtocolError, match="text_output"):
            proto.decode(response)

    def test_outputs_without_contents(self) -> None:
        response = pb.ModelStreamInferResponse()
        response.infer_response.outputs.add(name="text_output", datatype="BYTES")
        with pytest.raises(ProtocolError, match="1 outputs with 0 contents"):
            proto.decode(response)

    @given(st.binary(max_size=40))
    def test_any_bytes_are_decoded_or_refused(self, raw: bytes) -> None:
        response = pb.ModelStreamInferResponse()
        _add(response, "text_output", "BYTES", raw)
        with contextlib.suppress(ProtocolError):
            proto.decode(response)


class TestRest:
    def test_the_body_holds_plain_scalars(self) -> None:
        body = json.loads(encode_body(_request(sampling=EVERYTHING, request_id="r1", timeout_s=2.0)))
        assert body["temperature"] == 0.5
        assert body["stop_words"] == ["ab", "é"]
        assert (body["id"], body["timeout"]) == ("r1", 2_000_000)

    def test_the_path_depends_on_streaming_and_quotes_the_model(self) -> None:
        assert generate_path(_request()) == "/v2/models/smollm2/generate_stream"
        assert generate_path(_request(model="a/b", stream=False)) == "/v2/models/a%2Fb/generate"

    @given(st.lists(chunks, max_size=5), st.data())
    def test_a_stream_does_not_depend_on_how_it_is_cut(self, sent: list[Chunk], data: Any) -> None:
        body = b"".join(_event(chunk) for chunk in sent)
        cuts = data.draw(st.lists(st.integers(0, len(body)), max_size=8).map(sorted))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        assert _read(200, "text/event-stream; charset=utf-8", *pieces) == sent

    @given(chunks)
    def test_a_unary_reply_is_one_chunk(self, chunk: Chunk) -> None:
        body = json.dumps(_outputs(chunk)).encode()
        assert _read(200, "application/json", body[:7], body[7:]) == [chunk]

    def test_an_error_under_status_200_is_raised(self) -> None:
        body = b'{"error":"in ensemble \'smollm2\', INTERNAL: step: 5, failed"}'
        with pytest.raises(Internal):
            _read(200, "application/json", body)
        with pytest.raises(Internal):
            _read(200, "text/event-stream", b"data: " + body + b"\n\n")

    def test_an_event_with_an_error_and_status_400_is_raised(self) -> None:
        body = b'data: {"error":"in ensemble \'smollm2\', UNAVAILABLE: queue: 64 waiting, limit 64"}\n\n'
        with pytest.raises(Unavailable) as caught:
            _read(400, "text/event-stream; charset=utf-8", body)
        assert (caught.value.field, caught.value.limit) == ("queue", "limit 64")

    @pytest.mark.parametrize(
        ("status", "body", "kind"),
        [
            (400, b'{"error":"what?"}', InvalidArgument),
            (400, b"", InvalidArgument),
            (500, b'{"error":"Unable to parse \'data\': ..."}', InvalidArgument),
            (500, b'{"error":"broken"}', Internal),
            (503, b"<html>busy</html>", Unavailable),
            (418, b'{"error": 5}', ServerError),
        ],
    )
    def test_other_replies_are_classified_by_their_status(
        self, status: int, body: bytes, kind: type[ServerError]
    ) -> None:
        assert type(status_error(status, body)) is kind
        with pytest.raises(kind):
            _read(status, "text/plain", body)

    @pytest.mark.parametrize(
        "body", [b"", b"{", b"[]", b'{"text_output": 5}', b'{"finish_reason": "stop"}', b"\xff"]
    )
    def test_a_malformed_reply_is_refused(self, body: bytes) -> None:
        with pytest.raises(ProtocolError):
            _read(200, "application/json", body)

    @given(st.binary(max_size=60))
    def test_any_stream_is_decoded_or_refused(self, body: bytes) -> None:
        with contextlib.suppress(ProtocolError, ServerError):
            _read(200, "text/event-stream", b"data: " + body + b"\n\n")


class TestLogprobs:
    def test_logprobs_are_parsed(self) -> None:
        top = {"id": 2, "token": "b", "bytes": [98], "logprob": -1}
        logprobs = [{"id": 1, "token": "Ġa", "bytes": [32, 97], "logprob": -0.5, "top": [top]}]
        (chunk,) = _read(
            200, "", json.dumps({"text_output": " a", "logprobs": json.dumps(logprobs)}).encode()
        )
        likely = (Alternative(2, "b", b"b", -1.0),)
        assert chunk.logprobs == (TokenLogprob(1, "Ġa", b" a", -0.5, likely),)

    @pytest.mark.parametrize("logprobs", ["{}", "[1]", '[{"id": 1}]', "[[]]"])
    def test_malformed_logprobs_are_refused(self, logprobs: str) -> None:
        with pytest.raises(ProtocolError):
            _read(200, "", json.dumps({"text_output": "", "logprobs": logprobs}).encode())


def _read(status: int, content_type: str, *pieces: bytes) -> list[Chunk]:
    reply = ReplyDecoder(status, content_type)
    found = [chunk for piece in pieces for chunk in reply.feed(piece)]
    return found + list(reply.finish())


def _outputs(chunk: Chunk) -> dict[str, object]:
    return {
        "model_name": "smollm2",
        "text_output": chunk.text,
        "finish_reason": chunk.finish_reason or "",
        "num_input_tokens": chunk.num_input_tokens,
        "num_output_tokens": chunk.num_output_tokens,
    }


def _event(chunk: Chunk) -> bytes:
    return b"data: " + json.dumps(_outputs(chunk), ensure_ascii=False).encode() + b"\n\n"


def _response(chunk: Chunk) -> Any:
    response = pb.ModelStreamInferResponse()
    _add(response, "text_output", "BYTES", _bytes_of(chunk.text))
    _add(response, "finish_reason", "BYTES", _bytes_of(chunk.finish_reason or ""))
    _add(response, "num_input_tokens", "INT32", struct.pack("<i", chunk.num_input_tokens))
    _add(response, "num_output_tokens", "INT32", struct.pack("<i", chunk.num_output_tokens))
    return response


def _add(response: Any, name: str, datatype: str, raw: bytes) -> None:
    response.infer_response.outputs.add(name=name, datatype=datatype, shape=[1, 1])
    response.infer_response.raw_output_contents.append(raw)


def _bytes_of(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _over_the_wire(message: Any) -> Any:
    return type(message).FromString(message.SerializeToString())
