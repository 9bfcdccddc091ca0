"""What the server answers, as frozen values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Alternative",
    "Assembly",
    "Chunk",
    "Generation",
    "Health",
    "Metrics",
    "ModelCard",
    "ModelInfo",
    "Sample",
    "Timing",
    "TokenLogprob",
]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A token that could have been chosen; `bytes` is what it adds to the text."""

    id: int
    token: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob(Alternative):
    """A token of the answer, and the likeliest tokens at its place."""

    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One response of the server. `finish_reason` is set on the last: stop, length or
    stop_sequence. `num_output_tokens` counts the tokens of this chunk alone."""

    text: str = ""
    finish_reason: str | None = None
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def is_heartbeat(self) -> bool:
        """Sent while a request waits, so that the server notices a client that has left."""
        return not (self.text or self.num_output_tokens or self.finish_reason)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from the first attempt. `ttft_s` is None when the answer came in one piece."""

    ttft_s: float | None
    e2e_s: float


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer; of a stream that was left early, what has arrived (finish_reason None)."""

    text: str
    finish_reason: str | None
    num_input_tokens: int | None
    num_output_tokens: int | None
    logprobs: tuple[TokenLogprob, ...]
    timing: Timing


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


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model of the server's repository. `state` is Triton's, e.g. READY or UNAVAILABLE.

    `backend` is "ensemble" for an ensemble, whose models are `steps`; it, the sizes and the names
    come from the model's config, which only a ready model has.
    """

    name: str
    version: str
    state: str
    reason: str = ""
    backend: str | None = None
    max_batch_size: int | None = None
    steps: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        return self.state == "READY"

    @property
    def alive(self) -> bool:
        """Whether it takes memory: also while it loads, and while its last requests end."""
        return self.state in ("LOADING", "READY", "UNLOADING")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an engine of Halimede says of itself: its manifest, and the limits it was loaded with.

    `task` is chat, complete, summarize or translate. `quality` has perplexity, reference_perplexity
    and greedy_agreement among its figures. `max_source` is 0 for a model without an encoder.
    `kv_bytes_per_token` is what the keys and values of a token take, `kv_bytes` those of all slots.
    `kv_max_context` is the largest context that so many slots could have within `kv_budget_bytes`.
    `experimental`: what computes has not been measured on such a device.
    `kernels` is the level of the CPU's kernels that computes, `kernels_missing` why there is none.
    None: the server does not say.
    """

    name: str
    task: str
    precision: str
    dialect: str
    size_bytes: int
    quality: Mapping[str, float]
    slots: int
    max_context: int
    max_source: int
    max_queue: int
    device: str
    licence: str | None = None
    kv_bytes_per_token: int | None = None
    kv_bytes_per_source_token: int | None = None
    kv_bytes_per_slot: int | None = None
    kv_bytes: int | None = None
    kv_budget_bytes: int | None = None
    kv_max_context: int | None = None
    experimental: bool | None = None
    kernels: str | None = None
    kernels_missing: str | None = None


@dataclass(frozen=True, slots=True)
class Health:
    live: bool
    ready: bool
    model: str
    model_ready: bool
    server_name: str
    server_version: str
    model_versions: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.live and self.ready and self.model_ready


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of Prometheus text."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Metrics:
    samples: tuple[Sample, ...]

    def select(self, name: str, **labels: str) -> tuple[Sample, ...]:
        """The samples of that name that carry all these labels."""
        wanted = labels.items()
        return tuple(s for s in self.samples if s.name == name and wanted <= s.labels.items())

    def total(self, name: str, **labels: str) -> float | None:
        """The sum over `select`; None where there is no such sample."""
        found = self.select(name, **labels)
        return sum(sample.value for sample in found) if found else None
