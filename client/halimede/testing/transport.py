"""A transport that answers from a script, without a network."""

# ruff: noqa: ARG002 - no call here needs its timeout

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from halimede.errors import HalimedeError, NotFound
from halimede.results import Chunk, Health, ModelCard, ModelInfo
from halimede.testing.script import Step, Turns
from halimede.wire.request import GenerateRequest

__all__ = ["FakeTransport"]


class FakeTransport:
    """Answers the nth request with the nth turn, for a Client and an AsyncClient.

    A turn is a sequence of texts, Chunks and errors; `answer` makes a whole one. `requests` holds the
    requests in order, and `cancelled` counts the streams that were closed before their end. `changes`
    holds the loads and unloads, which change the states of `models`. `broken` maps a model to the error
    that its load raises. Every call but a request raises `failure`, if it is set.
    """

    def __init__(
        self,
        *turns: Sequence[Step],
        models: Sequence[ModelInfo] = (),
        cards: Sequence[ModelCard] = (),
        broken: Mapping[str, HalimedeError] = MappingProxyType({}),
        health: Health | None = None,
        metrics: str = "",
        failure: HalimedeError | None = None,
    ) -> None:
        self._turns = Turns(turns)
        self._models = tuple(models)
        self._cards = {card.name: card for card in cards}
        self._broken = broken
        self._health = health
        self._metrics = metrics
        self._failure = failure
        self.requests: list[GenerateRequest] = []
        self.changes: list[tuple[str, str]] = []
        self.cancelled = 0
        self.closed = False

    def generate(self, request: GenerateRequest) -> Generator[Chunk, None, None]:
        self.requests.append(request)
        steps = self._turns.take()
        try:
            for step in steps:
                if isinstance(step, HalimedeError):
                    raise step
                assert isinstance(step, Chunk), f"{step!r} needs a fake server"
                yield step
        except GeneratorExit:
            self.cancelled += 1
            raise

    async def agenerate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        for chunk in (chunks := self.generate(request)):
            try:
                yield chunk
            except GeneratorExit:
                chunks.close()
                raise

    def models(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        self._fail()
        return self._models

    async def amodels(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        return self.models(timeout_s)

    def index(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        return self.models(timeout_s)

    async def aindex(self, timeout_s: float | None) -> tuple[ModelInfo, ...]:
        return self.models(timeout_s)

    def card(self, model: str, timeout_s: float | None) -> ModelCard:
        self._fail()
        if model not in self._cards:
            raise NotFound.of("model", f"{model}_engine", "is not in the server's repository")
        return self._cards[model]

    async def acard(self, model: str, timeout_s: float | None) -> ModelCard:
        return self.card(model, timeout_s)

    def load(self, model: str, timeout_s: float | None) -> None:
        self._fail()
        self.changes.append(("load", model))
        if model in self._broken:
            raise self._broken[model]
        self._set(model, "READY", version="1")

    async def aload(self, model: str, timeout_s: float | None) -> None:
        self.load(model, timeout_s)

    def unload(self, model: str, timeout_s: float | None) -> None:
        self._fail()
        self.changes.append(("unload", model))
        self._set(model, "UNAVAILABLE", reason="unloaded")

    async def aunload(self, model: str, timeout_s: float | None) -> None:
        self.unload(model, timeout_s)

    def health(self, model: str, timeout_s: float | None) -> Health:
        self._fail()
        return self._health or Health(True, True, model, True, "fake", "0", ("1",))

    async def ahealth(self, model: str, timeout_s: float | None) -> Health:
        return self.health(model, timeout_s)

    def metrics(self, timeout_s: float | None) -> str:
        self._fail()
        return self._metrics

    async def ametrics(self, timeout_s: float | None) -> str:
        return self.metrics(timeout_s)

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.close()

    def _set(self, model: str, state: str, version: str = "", reason: str = "") -> None:
        self._models = tuple(
            replace(row, state=state, version=row.version or version, reason=reason)
            if row.name == model
            else row
            for row in self._models
        )

    def _fail(self) -> None:
        if self._failure is not None:
            raise self._failure
