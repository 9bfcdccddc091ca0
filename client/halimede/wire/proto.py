"""Triton's gRPC messages: one ModelInferRequest out, ModelStreamInferResponses back.

The models have max_batch_size 1, so scalars are tensors of shape [1, 1] and stop_words is [1, n]. An
error arrives as text in `error_message`, which carries our code. With the metadata
`triton_grpc_error: true` Triton would end the call with a status instead. The client never sends it:
early errors then crash Triton 2.51 (a segmentation fault after about 20 of them).
"""

from __future__ import annotations

import struct
from typing import Any

from tritonclient.grpc import service_pb2

from halimede.errors import ProtocolError
from halimede.inputs import INPUTS
from halimede.results import Chunk
from halimede.wire.answer import chunk_of, typed
from halimede.wire.faults import server_error
from halimede.wire.inputs import InputValue
from halimede.wire.repository import CARD_INPUTS, engine_of
from halimede.wire.request import GenerateRequest

__all__ = ["chunk_text", "decode", "encode", "encode_card", "is_last", "model_stream_infer"]

_CONTENTS = {
    "BYTES": "bytes_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "UINT64": "uint64_contents",
    "BOOL": "bool_contents",
}


def model_stream_infer(channel: Any) -> Any:
    """ModelStreamInfer of one request: what gRPC sends is the same as with a stream of one.

    grpc.aio with a stream of requests loses the status of a call that the server ends before the request is
    on its way, as it does for a wrong key: grpc/grpc#36066.
    """
    return channel.unary_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


def encode(request: GenerateRequest) -> Any:
    """The request as a service_pb2.ModelInferRequest."""
    message = service_pb2.ModelInferRequest(model_name=request.model, id=request.request_id)
    for name, value in request.inputs().items():
        _add_input(message, name, INPUTS[name].datatype, value)
    if request.timeout_us is not None:
        message.parameters["timeout"].int64_param = request.timeout_us
    return message


def encode_card(model: str) -> Any:
    """A request to the engine of a model, which answers it with its card."""
    message = service_pb2.ModelInferRequest(model_name=engine_of(model))
    for name, (datatype, value) in CARD_INPUTS.items():
        _add_input(message, name, datatype, value)
    return message


def _add_input(message: Any, name: str, datatype: str, value: InputValue) -> None:
    values = value if isinstance(value, tuple) else (value,)
    tensor = message.inputs.add(name=name, datatype=datatype, shape=(1, len(values)))
    contents = getattr(tensor.contents, _CONTENTS[datatype])
    contents.extend(v.encode() if isinstance(v, str) else v for v in values)


def decode(response: Any) -> Chunk:
    """The chunk in a service_pb2.ModelStreamInferResponse, or the error in it."""
    return chunk_of(_outputs(response))


def is_last(response: Any) -> bool:
    """Whether Triton marks the response as the last one before the status of the call."""
    final = response.infer_response.parameters["triton_final_response"]
    return bool(response.error_message or final.bool_param)


def chunk_text(response: Any) -> str:
    """The `chunk` output of an engine."""
    return typed(_outputs(response).get("chunk"), str, "chunk")


def _outputs(response: Any) -> dict[str, object]:
    if response.error_message:
        raise server_error(response.error_message)
    infer = response.infer_response
    names, contents = infer.outputs, infer.raw_output_contents
    if len(names) != len(contents):
        raise ProtocolError(f"{len(names)} outputs with {len(contents)} contents")
    tensors = zip(names, contents, strict=True)
    return {tensor.name: _scalar(tensor, raw) for tensor, raw in tensors}


def _scalar(tensor: Any, raw: bytes) -> object:
    try:
        match tensor.datatype:
            case "BYTES":  # the length as a little-endian u32, then the UTF-8
                (length,) = struct.unpack_from("<I", raw)
                (text,) = struct.unpack(f"{length}s", raw[4:])
                return str(text, "utf-8")
            case "INT32":
                (number,) = struct.unpack("<i", raw)
                return number
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"{tensor.name}: not one {tensor.datatype}: {raw[:40]!r}") from error
    raise ProtocolError(f"{tensor.name}: unexpected datatype {tensor.datatype}")
