"""The transport over gRPC: each request is one ModelStreamInfer call."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
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

__all__ = ["AsyncGrpcTransport"]


class AsyncGrpcTransport:
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
                    self._channel = grpc.aio.secure_channel(address, credentials, options=self._options)
                else:
                    self._channel = grpc.aio.insecure_channel(address, options=self._options)
                self._stub = GRPCInferenceServiceStub(self._channel)
                self._infer = proto.model_stream_infer(self._channel)

    async def agenerate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        metadata = tuple({**dict(self._metadata), **request.headers}.items())
        self._connect()
        call = self._infer(
            proto.encode(request), metadata=metadata or None, timeout=with_grace(request.timeout_s)
        )
        ended = False
        try:
            with raises_our_errors(self._target):
                async for response in call:
                    ended = proto.is_last(response)
                    yield proto.decode(response)
        finally:
            # Triton 2.51 never frees some streams that are cancelled after their last message: read on.
            if ended:
                with suppress(grpc.RpcError):
                    async for _ in call:
                        pass
            call.cancel()

    async def aindex(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        index = await self._ask("RepositoryIndex", pb.RepositoryIndexRequest(), timeout_s)
        return tuple(model_info(_as_dict(row), None) for row in index.models)

    async def amodels(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        index = await self._ask("RepositoryIndex", pb.RepositoryIndexRequest(), timeout_s)
        models = [await self._model(row, timeout_s) for row in index.models]
        return tuple(models)

    async def _model(self, row: Any, timeout_s: float | None) -> ModelInfo:
        config = None
        if row.state == "READY":
            ask = pb.ModelConfigRequest(name=row.name, version=row.version)
            answer = await self._ask("ModelConfig", ask, timeout_s)
            config = _as_dict(answer.config)
        return model_info(_as_dict(row), config)

    async def acard(self, model: str, timeout_s: float | None) -> ModelCard:
        self._connect()
        call = self._infer(proto.encode_card(model), metadata=self._metadata or None, timeout=timeout_s)
        # Read to the end: Triton 2.51 never unloads the model of a call that was cancelled.
        with raises_our_errors(self._target):
            cards = [card_of(proto.chunk_text(response)) async for response in call]
        if not cards:
            raise ProtocolError(f"{model}: its engine answered without a card")
        return cards[0]

    async def aload(self, model: str, timeout_s: float | None) -> None:
        await self._ask("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name=model), timeout_s)

    async def aunload(self, model: str, timeout_s: float | None) -> None:
        await self._ask("RepositoryModelUnload", pb.RepositoryModelUnloadRequest(model_name=model), timeout_s)

    async def ahealth(self, model: str, timeout_s: float | None) -> Health:
        live = await self._ask("ServerLive", pb.ServerLiveRequest(), timeout_s)
        ready = await self._ask("ServerReady", pb.ServerReadyRequest(), timeout_s)
        server = await self._ask("ServerMetadata", pb.ServerMetadataRequest(), timeout_s)
        versions = await self._versions(model, timeout_s)
        return Health(
            live=live.live,
            ready=ready.ready,
            model=model,
            model_ready=versions is not None,
            server_name=server.name,
            server_version=server.version,
            model_versions=versions or (),
        )

    async def _versions(self, model: str, timeout_s: float | None) -> tuple[str, ...] | None:
        """The versions of the model, or None if it is not ready."""
        try:
            ready = await self._ask("ModelReady", pb.ModelReadyRequest(name=model), timeout_s)
            if not ready.ready:
                return None
            ask = pb.ModelMetadataRequest(name=model)
            return tuple((await self._ask("ModelMetadata", ask, timeout_s)).versions)
        except ServerError:  # Triton does not know the model
            return None

    async def ametrics(self, timeout_s: float | None) -> str:
        from halimede._async.http import fetch_metrics  # noqa: PLC0415 - it imports httpx

        return await fetch_metrics(self._metrics_url, self._tls, timeout_s)

    async def _ask(self, method: str, message: Any, timeout_s: float | None) -> Any:
        self._connect()
        call = getattr(self._stub, method)
        with raises_our_errors(self._target):
            return await call(message, metadata=self._metadata or None, timeout=timeout_s)

    async def aclose(self) -> None:
        if self._channel is not None:
            await self._channel.close()


def _as_dict(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return found
