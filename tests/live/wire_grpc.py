"""Triton's ModelStreamInfer with tensors of shape [1, n], as its OpenAI frontend sends them."""

from __future__ import annotations

import struct
import time
from collections.abc import Generator, Iterable
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from tests.contract import TYPES
from tests.live.wire import WAIT_SECONDS, Address, Reply, WireError

_CONTENTS = {
    "BYTES": "bytes_contents",
    "INT32": "int_contents",
    "FP32": "fp32_contents",
    "UINT64": "uint64_contents",
    "BOOL": "bool_contents",
}


class GrpcWire:
    """One channel; each request is an RPC of its own."""

    name = "grpc"

    def __init__(self, address: Address) -> None:
        self._model = address.model
        # Own connections: a channel of another test must not lend its broken one.
        self._channel = grpc.insecure_channel(address.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = GRPCInferenceServiceStub(self._channel)

    def open(self, **inputs: Any) -> Generator[Reply, None, None]:
        yield from self.call([self.request(**inputs)])

    def call(self, requests: Iterable[Any]) -> Generator[Reply, None, None]:
        """One RPC with these requests; leaving it early cancels it.

        An error comes in `error_message`. The metadata `triton_grpc_error: true` would turn it into the
        status of the call, but Triton 2.51 dies of that after some 20 errors.
        """
        stream = self.stub.ModelStreamInfer(iter(requests), timeout=WAIT_SECONDS)
        try:
            for message in stream:
                if message.error_message:
                    raise WireError(None, message.error_message)
                yield decode(message.infer_response)
        except grpc.RpcError as error:
            raise WireError(error.code().name, error.details() or "") from None
        finally:
            stream.cancel()

    def abandon(self, seconds: float, **inputs: Any) -> None:
        stream = self.stub.ModelStreamInfer(iter([self.request(**inputs)]), timeout=WAIT_SECONDS)
        time.sleep(seconds)
        stream.cancel()

    def request(self, timeout: int | None = None, **inputs: Any) -> Any:
        """A ModelInferRequest."""
        message = service_pb2.ModelInferRequest(model_name=self._model)
        for name, value in inputs.items():
            values = list(value) if isinstance(value, list | tuple) else [value]
            add_tensor(message, name, TYPES[name], [1, len(values)], values)
        if timeout is not None:
            message.parameters["timeout"].int64_param = timeout
        return message

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()


def add_tensor(message: Any, name: str, kind: str, shape: list[int], values: list[Any]) -> None:
    tensor = message.inputs.add(name=name, datatype=kind, shape=shape)
    plain = [value.encode() if isinstance(value, str) else value for value in values]
    getattr(tensor.contents, _CONTENTS[kind]).extend(plain)


def decode(response: Any) -> Reply:
    """Every output of the ensemble is one value, in a tensor of shape [1, 1]."""
    assert all(list(output.shape) == [1, 1] for output in response.outputs), response
    return Reply({
        output.name: _value(output.datatype, raw)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    })  # fmt: skip


def _value(kind: str, raw: bytes) -> str | int:
    if kind == "INT32":
        return int(struct.unpack("<i", raw)[0])
    assert kind == "BYTES", kind
    (length,) = struct.unpack_from("<I", raw)
    assert length == len(raw) - 4, "more than one string"
    return raw[4:].decode()
