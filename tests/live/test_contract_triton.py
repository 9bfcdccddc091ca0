"""What Triton itself refuses, before a request reaches a step: in its own words and with its own statuses.

They are tested as they are, so that a Triton that behaves otherwise is noticed.
"""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.live.wire import WireError, ask
from tests.live.wire_grpc import GrpcWire, add_tensor
from tests.live.wire_http import HttpWire

pytestmark = [pytest.mark.contract, pytest.mark.e2e]

PROMPT = "The capital of France is"

BODIES = {
    "number as text": (b'{"text_input": "a", "max_tokens": "8"}', "Unable to parse 'data'"),
    "text as number": (b'{"text_input": 5}', "Unable to parse JSON bytes array"),
    "half a token": (b'{"text_input": "a", "max_tokens": 1.5}', "Unable to parse 'data'"),
    "flag as text": (b'{"text_input": "a", "stream": "yes"}', "Unable to parse 'data'"),
    "null": (b'{"text_input": "a", "max_tokens": null}', "Unable to parse 'data'"),
    "negative seed": (b'{"text_input": "a", "seed": -1}', "Unable to parse 'data'"),
    "empty body": (b"", "failed to parse the request JSON buffer"),
    "malformed": (b'{"text_input"', "failed to parse the request JSON buffer"),
    "no object": (b"[]", "attempt to get members for non-object"),
    "two values": (b'{"text_input": ["a", "b"]}', "batch-size must be <= 1"),
    "two values elsewhere": (b'{"text_input": "a", "max_tokens": [1, 2]}', "batch size does not match"),
    "an object as parameter": (b'{"text_input": "a", "foo": {"a": 1}}', "parameter 'foo' has invalid type"),
    "no inputs": (b"{}", "request has 0 inputs"),
}

SHAPES: dict[str, tuple[str, str, list[int], list[Any], str]] = {
    "no batch dimension": ("text_input", "BYTES", [1], ["a"], "unexpected shape for input 'text_input'"),
    "two values": ("text_input", "BYTES", [1, 2], ["a", "b"], "unexpected shape for input 'text_input'"),
    "batch of two": ("text_input", "BYTES", [2, 1], ["a", "b"], "batch-size must be <= 1"),
    "less than its shape": ("text_input", "BYTES", [1, 1], [], "expected 1 string elements"),
    "another type": ("max_tokens", "UINT64", [1, 1], [8], "data-type is 'UINT64'"),
    "unknown input": ("max_token", "INT32", [1, 1], [8], "unexpected inference input 'max_token'"),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_triton_refuses(http_wire: HttpWire, case: str) -> None:
    body, problem = BODIES[case]
    response = http_wire.post("generate", body)
    assert response.status in {400, 500}
    assert problem in response.body
    assert ask(http_wire, PROMPT, max_tokens=2).tokens == 2


@pytest.mark.parametrize("case", SHAPES)
def test_a_tensor_that_triton_refuses(grpc_wire: GrpcWire, case: str) -> None:
    name, kind, shape, values, problem = SHAPES[case]
    request = grpc_wire.request()
    if name != "text_input":
        add_tensor(request, "text_input", "BYTES", [1, 1], ["a"])
    add_tensor(request, name, kind, shape, values)
    with pytest.raises(WireError) as caught:
        list(grpc_wire.call([request]))
    assert problem in caught.value.text
    assert ask(grpc_wire, PROMPT, max_tokens=2).tokens == 2


def test_a_number_past_32_bits_arrives_wrapped_and_is_refused(http_wire: HttpWire) -> None:
    response = http_wire.post("generate", b'{"text_input": "a", "max_tokens": 3000000000}')
    assert "INVALID_ARG: max_tokens: -1294967296, must be" in response.body


def test_over_grpc_triton_reads_a_timeout_as_unsigned_and_refuses_one_that_is_no_number(
    grpc_wire: GrpcWire,
) -> None:
    request = grpc_wire.request(text_input=PROMPT)
    request.parameters["timeout"].string_param = "soon"
    with pytest.raises(WireError, match="invalid value type for 'timeout' parameter"):
        list(grpc_wire.call([request]))
    assert ask(grpc_wire, PROMPT, max_tokens=2, timeout=-1).tokens == 2  # 2**64 - 1


def test_model_infer_is_unimplemented(grpc_wire: GrpcWire) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        grpc_wire.stub.ModelInfer(grpc_wire.request(text_input=PROMPT), timeout=60)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_infer_is_refused(http_wire: HttpWire) -> None:
    body = b'{"inputs": [{"name": "text_input", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}]}'
    response = http_wire.post("infer", body)
    assert response.status == 501
    assert "decoupled" in response.body


def test_a_streamed_answer_on_generate_is_an_error_under_200(http_wire: HttpWire) -> None:
    response = http_wire.post("generate", b'{"text_input": "a", "max_tokens": 8, "stream": true}')
    assert response.status == 200
    assert "exactly 1 response" in response.body


def test_after_an_error_the_stream_of_requests_goes_on(grpc_wire: GrpcWire) -> None:
    asked = [grpc_wire.request(text_input=PROMPT, max_tokens=tokens) for tokens in (0, 2)]
    messages = list(grpc_wire.stub.ModelStreamInfer(iter(asked), timeout=60))
    assert sorted(bool(message.error_message) for message in messages) == [False, True]


def test_an_unknown_model(http_wire: HttpWire, grpc_wire: GrpcWire) -> None:
    request = grpc_wire.request(text_input=PROMPT)
    request.model_name = "nobody"
    with pytest.raises(WireError, match="unknown model: 'nobody'"):
        list(grpc_wire.call([request]))
    response = http_wire.get("/v2/models/nobody/config")
    assert response.status in {400, 404}


def test_the_server_and_its_model_are_ready(http_wire: HttpWire, grpc_wire: GrpcWire) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", f"/v2/models/{grpc_wire.request().model_name}/ready"):
        assert http_wire.get(path).status == 200
