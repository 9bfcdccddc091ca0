"""One answer while it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Self

from halimede.results import Assembly, Chunk, Generation
from halimede.timeouts import Clock

__all__ = ["AsyncStream"]


class AsyncStream:
    """An iterator over the Chunks of one answer. The first step sends the request.

    Leaving its `with` block, closing it or deleting it before the end cancels the request on the server.
    """

    def __init__(self, chunks: AsyncGenerator[Chunk, None], clock: Clock, *, streamed: bool) -> None:
        self._chunks = chunks
        self._clock = clock
        self._streamed = streamed
        self._assembly: Assembly | None = None

    @property
    def generation(self) -> Generation:
        """The answer so far."""
        assembly = self._assembly or Assembly(self._clock())
        return assembly.generation(streamed=self._streamed)

    async def collect(self) -> Generation:
        """Reads the rest of the answer and returns the whole of it."""
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
