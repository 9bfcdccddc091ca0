"""Loading and unloading a model of a running server: an ensemble with its steps.

Triton 2.51's own load of an ensemble is not enough. It reports success when the new version of a step
fails and the old one still serves, and it may leave steps loaded when it unloads their ensemble. The
client therefore loads and unloads each step by name. It loads the engine first, because that is the
step that fails. Running requests keep the steps that they started with.
"""

from __future__ import annotations

from halimede._async.transport import AsyncTransport
from halimede.errors import DeadlineExceeded, ServerError, Unavailable, Unsupported
from halimede.results import ModelInfo
from halimede.timeouts import AsyncSleep, Clock, Deadline
from halimede.wire.repository import failed_load, parts_of, unknown_model, version_of

__all__ = ["AsyncRepository"]

POLL_S = 0.1
CALL_S = 10.0
SETTLE_S = 3.0


class AsyncRepository:
    """The repository of a server. Raises NotFound, which lists its models, for a model that is not there."""

    def __init__(self, transport: AsyncTransport, clock: Clock, sleep: AsyncSleep) -> None:
        self._transport = transport
        self._clock = clock
        self._sleep = sleep

    async def load(self, model: str, timeout_s: float) -> str:
        """Returns the version that serves. A failed load is rolled back; a previous version keeps serving."""
        deadline = Deadline(timeout_s, self._clock)
        rows = await self._rows(model, deadline)
        before = {row.name for row in rows if row.ready}
        parts = parts_of(model, rows)
        try:
            for part in parts:
                await self._transport.aload(part, deadline.allowance_s())
        except (DeadlineExceeded, Unsupported):
            raise
        except ServerError as error:
            for part in parts:
                if part not in before:
                    await self._transport.aunload(part, deadline.allowance_s())
            raise failed_load(model, error, serves=model in before) from error
        return version_of(model, await self._rows(model, deadline))

    async def reload(self, model: str, timeout_s: float) -> str:
        """Loads the newest version of a loaded model. Raises Unavailable if the model is not loaded."""
        rows = await self._rows(model, Deadline(timeout_s, self._clock))
        if not any(row.ready for row in rows if row.name == model):
            raise Unavailable.of("model", model, "is not loaded")
        return await self.load(model, timeout_s)

    async def unload(self, model: str, timeout_s: float) -> None:
        """Drains and unloads a model. Returns when its memory is free."""
        deadline = Deadline(timeout_s, self._clock)
        rows = await self._transport.amodels(deadline.allowance_s())
        shared = {step for row in rows if row.ready and row.name != model for step in row.steps}
        ensemble_first = reversed(parts_of(model, self._known(model, rows)))
        parts = [part for part in ensemble_first if part == model or part not in shared]
        for part in parts:
            await self._transport.aunload(part, deadline.allowance_s())
        try:
            while parts[-1] in await self._alive(model, deadline):
                await self._sleep(POLL_S)
        except DeadlineExceeded as error:
            problem = f"{model} is draining: it refuses new requests and unloads when the running ones end"
            raise DeadlineExceeded.of("timeout", f"{timeout_s} s", problem) from error
        await self._settle(model, parts, Deadline(SETTLE_S, self._clock))

    async def _settle(self, model: str, parts: list[str], deadline: Deadline) -> None:
        """Waits until the steps that send the last tokens are unloaded too. The engine already is.

        The wait is short, because Triton keeps those steps of a model whose last requests failed.
        """
        while deadline.remaining_s():
            if (await self._alive(model, Deadline(CALL_S, self._clock))).isdisjoint(parts):
                return
            await self._sleep(POLL_S)

    async def _alive(self, model: str, deadline: Deadline) -> set[str]:
        return {row.name for row in await self._rows(model, deadline) if row.alive}

    async def _rows(self, model: str, deadline: Deadline) -> tuple[ModelInfo, ...]:
        return self._known(model, await self._transport.aindex(deadline.allowance_s()))

    def _known(self, model: str, rows: tuple[ModelInfo, ...]) -> tuple[ModelInfo, ...]:
        if not any(row.name == model for row in rows):
            raise unknown_model(model, rows)
        return rows
