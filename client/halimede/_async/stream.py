"""One answer as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from halimede.results import Assembly, Chunk, Generation
from halimede.timeouts import Clock

__all__ = ["AsyncStream"]


class AsyncStream:
    """An iterator of Chunks. The request is sent when the first is asked for.

    Leaving its `with` block, closing it or dropping it before the end cancels the request on the
    server. `generation` is the answer so far.
    """

    def __init__(self, chunks: AsyncGenerator[Chunk, None], clock: Clock, *, streamed: bool) -> None:
        self._chunks = chunks
        self._clock = clock
        self._streamed = streamed
        self._assembly: Assembly | None = None

    @property
    def generation(self) -> Generation:
        assembly = self._assembly or Assembly(self._clock())
        return assembly.generation(streamed=self._streamed)

    async def collect(self) -> Generation:
        """The rest of the answer, read to its end."""
        async with self:
            async for _ in self:
                pass
        return self.generation

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._assembly is None:
            self._assembly = Assembly(self._clock())
        chunk = await anext(self._chunks)
        self._assembly.add(chunk, self._clock())
        return chunk

    async def aclose(self) -> None:
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()
