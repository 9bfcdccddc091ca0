# Generated from halimede/_async by client/unasync.py: change the source and run it again.
"""One answer while it arrives."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import Self

from halimede.results import Assembly, Chunk, Generation
from halimede.timeouts import Clock

__all__ = ["Stream"]


class Stream:
    """An iterator over the Chunks of one answer. The first step sends the request.

    Leaving its `with` block, closing it or deleting it before the end cancels the request on the server.
    """

    def __init__(self, chunks: Generator[Chunk, None], clock: Clock, *, streamed: bool) -> None:
        self._chunks = chunks
        self._clock = clock
        self._streamed = streamed
        self._assembly: Assembly | None = None

    @property
    def generation(self) -> Generation:
        """The answer so far."""
        assembly = self._assembly or Assembly(self._clock())
        return assembly.generation(streamed=self._streamed)

    def collect(self) -> Generation:
        """Reads the rest of the answer and returns the whole of it."""
        with self:
            for _ in self:
                pass
        return self.generation

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        if self._assembly is None:
            self._assembly = Assembly(self._clock())
        chunk = next(self._chunks)
        self._assembly.add(chunk, self._clock())
        return chunk

    def close(self) -> None:
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
