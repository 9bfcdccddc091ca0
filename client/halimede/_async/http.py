"""The transport over HTTP: Triton's generate extension, and its endpoints for health and the repository."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from halimede.errors import Unsupported
from halimede.http_faults import LIMITS, proxy_of, raises_our_errors, socket_options, timeouts, verified_by
from halimede.results import Chunk, Health, ModelCard, ModelInfo
from halimede.target import Target, without_password
from halimede.tls import Tls
from halimede.wire.answer import parse_json, typed
from halimede.wire.faults import server_error
from halimede.wire.repository import CARD_INPUTS, card_of, engine_of, model_info
from halimede.wire.request import GenerateRequest
from halimede.wire.rest import ReplyDecoder, encode_body, generate_path, model_path, status_error

__all__ = ["AsyncHttpTransport", "fetch_metrics"]

T = TypeVar("T")


class AsyncHttpTransport:
    """A transport with a pool of connections, since HTTP/1.1 needs one for each running request."""

    def __init__(
        self,
        target: Target,
        headers: Mapping[str, str],
        metrics_url: str,
        tls: Tls | None,
        keepalive_s: float,
    ) -> None:
        self._address = target.address
        self._metrics_url = metrics_url
        self._tls = tls
        with raises_our_errors(self._address):
            connections = httpx.AsyncHTTPTransport(
                verify=verified_by(tls),
                limits=LIMITS,
                proxy=proxy_of(target),
                socket_options=socket_options(keepalive_s),
            )
            self._http = httpx.AsyncClient(base_url=str(target), headers=dict(headers), transport=connections)

    async def agenerate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        with raises_our_errors(self._address):
            async with self._http.stream(
                "POST",
                generate_path(request),
                content=encode_body(request),
                headers={"content-type": "application/json", **request.headers},
                timeout=timeouts(request.timeout_s),
            ) as response:
                reply = ReplyDecoder(response.status_code, response.headers.get("content-type", ""))
                async for received in response.aiter_bytes():
                    for chunk in reply.feed(received):
                        yield chunk
                for chunk in reply.finish():
                    yield chunk

    async def aindex(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        response = await self._ask("POST", "/v2/repository/index", timeout_s)
        return tuple(model_info(row, None) for row in _body(response, list))

    async def amodels(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        response = await self._ask("POST", "/v2/repository/index", timeout_s)
        models = [await self._model(row, timeout_s) for row in _body(response, list)]
        return tuple(models)

    async def _model(self, row: Any, timeout_s: float | None) -> ModelInfo:
        info = model_info(row, None)
        if not info.ready:
            return info
        path = f"{model_path(info.name)}/versions/{info.version}/config"
        return model_info(row, _body(await self._ask("GET", path, timeout_s), dict))

    async def acard(self, model: str, timeout_s: float | None) -> ModelCard:
        body = {name: value for name, (_, value) in CARD_INPUTS.items()}
        path = f"{model_path(engine_of(model))}/generate"
        reply = _body(await self._ask("POST", path, timeout_s, body), dict)
        if "error" in reply:
            raise server_error(str(reply["error"]))
        return card_of(typed(reply.get("chunk"), str, "chunk"))

    async def aload(self, model: str, timeout_s: float | None) -> None:  # noqa: ARG002
        """Always raises Unsupported. Triton 2.51 loads in one of its eight HTTP threads, which also write the
        streams: an eighth of them stall meanwhile, and lose their end if they fall far behind.
        """
        remedy = "works over gRPC only, since it would break HTTP streams: use the gRPC port, by default 8001"
        raise Unsupported.of("load", f"{model} at http://{self._address}", remedy)

    async def aunload(self, model: str, timeout_s: float | None) -> None:
        path = f"/v2/repository/models/{quote(model, safe='')}/unload"
        response = await self._ask("POST", path, timeout_s)
        if response.status_code != 200:
            raise status_error(response.status_code, response.content)

    async def ahealth(self, model: str, timeout_s: float | None) -> Health:
        live = await self._ask("GET", "/v2/health/live", timeout_s)
        ready = await self._ask("GET", "/v2/health/ready", timeout_s)
        server = _body(await self._ask("GET", "/v2", timeout_s), dict)
        versions = await self._versions(model, timeout_s)
        return Health(
            live=live.status_code == 200,
            ready=ready.status_code == 200,
            model=model,
            model_ready=versions is not None,
            server_name=str(server.get("name", "")),
            server_version=str(server.get("version", "")),
            model_versions=versions or (),
        )

    async def _versions(self, model: str, timeout_s: float | None) -> tuple[str, ...] | None:
        """The versions of the model, or None if it is not ready."""
        ready = await self._ask("GET", f"{model_path(model)}/ready", timeout_s)
        if ready.status_code != 200:
            return None
        metadata = _body(await self._ask("GET", model_path(model), timeout_s), dict)
        return tuple(str(version) for version in metadata.get("versions", ()))

    async def ametrics(self, timeout_s: float | None) -> str:
        return await fetch_metrics(self._metrics_url, self._tls, timeout_s)

    async def _ask(
        self, method: str, path: str, timeout_s: float | None, body: dict[str, Any] | None = None
    ) -> httpx.Response:
        with raises_our_errors(self._address):
            response = await self._http.request(method, path, json=body, timeout=timeouts(timeout_s))
        if response.status_code in (401, 403):
            raise status_error(response.status_code, response.content)
        return response

    async def aclose(self) -> None:
        await self._http.aclose()


async def fetch_metrics(url: str, tls: Tls | None, timeout_s: float | None) -> str:
    """The text of the server's metrics. They are served over HTTP even if the requests use gRPC."""
    http = httpx.AsyncClient(verify=verified_by(tls), timeout=timeouts(timeout_s))
    with raises_our_errors(without_password(url)):
        async with http:
            response = await http.get(url)
    if response.status_code != 200:
        raise status_error(response.status_code, response.content)
    return response.text


def _body(response: httpx.Response, kind: type[T]) -> T:
    if response.status_code != 200:
        raise status_error(response.status_code, response.content)
    return parse_json(response.content, kind)
