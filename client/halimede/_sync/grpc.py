# Generated from halimede/_async by client/unasync.py: change the source and run it again.
"""The transport over gRPC: each request is one ModelStreamInfer call."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import suppress
from threading import Lock
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

from halimede.errors import ProtocolError, ServerError
from halimede.grpc_faults import channel_options, raises_our_errors
from halimede.results import Chunk, Health, ModelCard, ModelInfo
from halimede.target import Target
from halimede.timeouts import with_grace
from halimede.tls import Tls
from halimede.wire import proto
from halimede.wire.repository import card_of, model_info
from halimede.wire.request import GenerateRequest

__all__ = ["GrpcTransport"]


class GrpcTransport:
    """A transport with one channel, which any number of requests share."""

    def __init__(
        self,
        target: Target,
        headers: Mapping[str, str],
        metrics_url: str,
        tls: Tls | None,
        keepalive_s: float,
    ) -> None:
        self._target = target
        self._options = channel_options(keepalive_s)
        self._tls = tls
        self._metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._metrics_url = metrics_url
        self._opening = Lock()
        self._channel: Any = None
        self._stub: Any = None
        self._infer: Any = None

    def _connect(self) -> None:
        """On the first call: an asyncio channel belongs to the running loop."""
        with self._opening:
            if self._channel is None:
                address = self._target.address
                if self._target.is_secure:
                    credentials = (self._tls or Tls()).credentials()
                    self._channel = grpc.secure_channel(address, credentials, options=self._options)
                else:
                    self._channel = grpc.insecure_channel(address, options=self._options)
                self._stub = GRPCInferenceServiceStub(self._channel)
                self._infer = proto.model_stream_infer(self._channel)

    def generate(self, request: GenerateRequest) -> Generator[Chunk, None]:
        metadata = tuple({**dict(self._metadata), **request.headers}.items())
        self._connect()
        call = self._infer(
            proto.encode(request), metadata=metadata or None, timeout=with_grace(request.timeout_s)
        )
        ended = False
        try:
            with raises_our_errors(self._target):
                for response in call:
                    ended = proto.is_last(response)
                    yield proto.decode(response)
        finally:
            # Triton 2.51 never frees some streams that are cancelled after their last message: read on.
            if ended:
                with suppress(grpc.RpcError):
                    for _ in call:
                        pass
            call.cancel()

    def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        index = self._ask("RepositoryIndex", pb.RepositoryIndexRequest(), timeout_s)
        return tuple(model_info(_as_dict(row), None) for row in index.models)

    def models(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        index = self._ask("RepositoryIndex", pb.RepositoryIndexRequest(), timeout_s)
        models = [self._model(row, timeout_s) for row in index.models]
        return tuple(models)

    def _model(self, row: Any, timeout_s: float | None) -> ModelInfo:
        config = None
        if row.state == "READY":
            ask = pb.ModelConfigRequest(name=row.name, version=row.version)
            answer = self._ask("ModelConfig", ask, timeout_s)
            config = _as_dict(answer.config)
        return model_info(_as_dict(row), config)

    def card(self, model: str, timeout_s: float | None) -> ModelCard:
        self._connect()
        call = self._infer(proto.encode_card(model), metadata=self._metadata or None, timeout=timeout_s)
        # Read to the end: Triton 2.51 never unloads the model of a call that was cancelled.
        with raises_our_errors(self._target):
            cards = [card_of(proto.chunk_text(response)) for response in call]
        if not cards:
            raise ProtocolError(f"{model}: its engine answered without a card")
        return cards[0]

    def load(self, model: str, timeout_s: float | None) -> None:
        self._ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model), timeout_s)

    def unload(self, model: str, timeout_s: float | None) -> None:
        self._ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model), timeout_s)

    def health(self, model: str, timeout_s: float | None) -> Health:
        live = self._ask("ServerLive", pb.ServerLiveRequest(), timeout_s)
        ready = self._ask("ServerReady", pb.ServerReadyRequest(), timeout_s)
        server = self._ask("ServerMetadata", pb.ServerMetadataRequest(), timeout_s)
        versions = self._versions(model, timeout_s)
        return Health(
            live=live.live,
            ready=ready.ready,
            model=model,
            model_ready=versions is not None,
            server_name=server.name,
            server_version=server.version,
            model_versions=versions or (),
        )

    def _versions(self, model: str, timeout_s: float | None) -> tuple[str, ...] | None:
        """The versions of the model, or None if it is not ready."""
        try:
            ready = self._ask("ModelReady", pb.ModelReadyRequest(name=model), timeout_s)
            if not ready.ready:
                return None
            ask = pb.ModelMetadataRequest(name=model)
            return tuple((self._ask("ModelMetadata", ask, timeout_s)).versions)
        except ServerError:  # Triton does not know the model
            return None

    def metrics(self, timeout_s: float | None) -> str:
        from halimede._sync.http import fetch_metrics  # noqa: PLC0415 - it imports httpx

        return fetch_metrics(self._metrics_url, self._tls, timeout_s)

    def _ask(self, method: str, message: Any, timeout_s: float | None) -> Any:
        self._connect()
        call = getattr(self._stub, method)
        with raises_our_errors(self._target):
            return call(message, metadata=self._metadata or None, timeout=timeout_s)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()


def _as_dict(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found
