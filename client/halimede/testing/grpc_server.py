"""A gRPC server on a local port that answers like Triton, from a script."""

# ruff: noqa: ARG002, N802 - gRPC prescribes the methods and their arguments

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    add_GRPCInferenceServiceServicer_to_server,
)

from halimede.errors import ServerError
from halimede.results import Chunk
from halimede.testing.script import Event, Step, Turns

__all__ = ["FakeGrpcServer"]

MODEL = "smollm2"
# Clients may ping without limit: Triton's default would end the connection of a test with a short keepalive.
_PINGED = (("grpc.http2.max_ping_strikes", 0),)


class FakeGrpcServer(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Answers each ModelStreamInfer with one turn of the script. The model is called smollm2.

    `requests` holds the messages in order, `metadata` the metadata of each. `cancelled` is set when a
    client closes a request before the end of its answer.
    """

    def __init__(self, *turns: Sequence[Step]) -> None:
        self._turns = Turns(turns)
        self._server = grpc.server(ThreadPoolExecutor(8), options=_PINGED)
        add_GRPCInferenceServiceServicer_to_server(self, self._server)
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.url = f"127.0.0.1:{port}"
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str]] = []
        self.cancelled = threading.Event()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stops the server and breaks its connections."""
        self._server.stop(grace=0).wait()

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[Any]:
        self.requests += requests
        self.metadata.append(dict(context.invocation_metadata()))
        over, answered = threading.Event(), threading.Event()

        def end() -> None:
            if not answered.is_set():
                self.cancelled.set()
            over.set()

        context.add_callback(end)
        for step in self._turns.take():
            if isinstance(step, Event):
                if step is Event.DROP:
                    answered.set()
                    threading.Thread(target=self.stop).start()
                over.wait()
            elif isinstance(step, ServerError):
                answered.set()
                yield pb.ModelStreamInferResponse(error_message=f"in ensemble '{MODEL}', {step}")
                return
            else:
                assert isinstance(step, Chunk), step
                yield _response(step)
        answered.set()

    def ServerLive(self, request: Any, context: Any) -> Any:
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=True)

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        return pb.ServerMetadataResponse(name="triton", version="2.51.0")

    def ModelReady(self, request: Any, context: Any) -> Any:
        return pb.ModelReadyResponse(ready=request.name == MODEL)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        return pb.ModelMetadataResponse(name=request.name, versions=["1"])

    def RepositoryIndex(self, request: Any, context: Any) -> Any:
        index = pb.RepositoryIndexResponse()
        index.models.add(name=MODEL, version="1", state="READY")
        index.models.add(name="broken", state="UNAVAILABLE", reason="no engine")
        return index

    def ModelConfig(self, request: Any, context: Any) -> Any:
        response = pb.ModelConfigResponse()
        config = response.config
        config.name, config.platform, config.max_batch_size = request.name, "ensemble", 1
        config.input.add(name="text_input", dims=[1])
        config.output.add(name="text_output", dims=[1])
        config.ensemble_scheduling.step.add(model_name=f"{MODEL}_engine", model_version=-1)
        return response


def _response(chunk: Chunk) -> Any:
    infer = pb.ModelInferResponse(model_name=MODEL, model_version="1")
    _add_text(infer, "text_output", chunk.text)
    _add_text(infer, "finish_reason", chunk.finish_reason or "")
    _add_count(infer, "num_input_tokens", chunk.num_input_tokens)
    _add_count(infer, "num_output_tokens", chunk.num_output_tokens)
    return pb.ModelStreamInferResponse(infer_response=infer)


def _add_text(infer: Any, name: str, text: str) -> None:
    infer.outputs.add(name=name, datatype="BYTES", shape=[1, 1])
    infer.raw_output_contents.append(struct.pack("<I", len(text.encode())) + text.encode())


def _add_count(infer: Any, name: str, count: int | None) -> None:
    if count is not None:
        infer.outputs.add(name=name, datatype="INT32", shape=[1, 1])
        infer.raw_output_contents.append(struct.pack("<i", count))
