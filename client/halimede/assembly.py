"""Chunks into one Generation, with the times at which they came."""

from __future__ import annotations

from halimede.results import Chunk, Generation, Timing, TokenLogprob

__all__ = ["Assembly"]


class Assembly:
    """Times are of one monotonic clock, in seconds; `started_s` is when the request set out."""

    def __init__(self, started_s: float) -> None:
        self._started_s = started_s
        self._first_s: float | None = None
        self._last_s = started_s
        self._texts: list[str] = []
        self._finish_reason: str | None = None
        self._num_input_tokens: int | None = None
        self._num_output_tokens: int | None = None
        self._logprobs: list[TokenLogprob] = []

    def add(self, chunk: Chunk, now_s: float) -> None:
        if self._first_s is None:
            self._first_s = now_s
        self._last_s = now_s
        self._texts.append(chunk.text)
        self._finish_reason = chunk.finish_reason
        if chunk.num_input_tokens is not None:
            self._num_input_tokens = chunk.num_input_tokens
        if chunk.num_output_tokens is not None:
            self._num_output_tokens = (self._num_output_tokens or 0) + chunk.num_output_tokens
        self._logprobs.extend(chunk.logprobs)

    def generation(self, *, streamed: bool) -> Generation:
        first_s = self._first_s if streamed else None
        return Generation(
            text="".join(self._texts),
            finish_reason=self._finish_reason,
            num_input_tokens=self._num_input_tokens,
            num_output_tokens=self._num_output_tokens,
            logprobs=tuple(self._logprobs),
            timing=Timing(
                ttft_s=None if first_s is None else first_s - self._started_s,
                e2e_s=self._last_s - self._started_s,
            ),
        )
