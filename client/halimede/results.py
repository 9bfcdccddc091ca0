"""What the server answers: frozen values, and the Assembly that makes one Generation of many Chunks."""

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
    """A token that could have been chosen. `bytes` is its part of the text."""

    id: int
    token: str
    bytes: bytes
    logprob: float


@dataclass(frozen=True, slots=True)
class TokenLogprob(Alternative):
    """A token of the answer, with the most likely tokens at its position."""

    top: tuple[Alternative, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """One response of the server. The last one has a `finish_reason`: stop, length or stop_sequence.

    `num_output_tokens` counts the tokens of this chunk alone.
    """

    text: str = ""
    finish_reason: str | None = None
    num_input_tokens: int | None = None
    num_output_tokens: int | None = None
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def is_heartbeat(self) -> bool:
        """Whether the server sent it only to find out if the client of a waiting request is still there."""
        return not (self.text or self.num_output_tokens or self.finish_reason)


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds since the first attempt began. `ttft_s` is None when the answer was not streamed."""

    ttft_s: float | None
    e2e_s: float


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer, or the part of it that has arrived: then `finish_reason` is None."""

    text: str
    finish_reason: str | None
    num_input_tokens: int | None
    num_output_tokens: int | None
    logprobs: tuple[TokenLogprob, ...]
    timing: Timing


class Assembly:
    """Puts the Chunks of one answer together. Times are seconds of one monotonic clock."""

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
    """A model of the server's repository. `state` is Triton's, such as READY or UNAVAILABLE.

    `backend` is "ensemble" for an ensemble, and `steps` names its models. All fields after `reason` come
    from the model's config, which only a ready model has.
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
        """Whether the model takes memory: while it loads, serves, or ends its last requests."""
        return self.state in ("LOADING", "READY", "UNLOADING")


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What an engine of Halimede reports: its manifest and the limits that it was loaded with.

    `task` is chat, complete, summarize or translate. `quality` maps names to figures, such as
    perplexity, reference_perplexity and greedy_agreement. `max_source` is 0 for a model without an encoder.
    `kv_bytes_per_token` is the memory for the keys and values of one token, `kv_bytes` that for all slots.
    `kv_max_context` is the largest context for which `kv_budget_bytes` suffices with so many slots.
    `experimental` says that the engine has not been measured on such a device. `kernels` is the level of
    the CPU kernels that compute, `kernels_missing` the reason why none do. A field that the server does
    not send is None.
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
        """The samples with that name and all these labels."""
        wanted = labels.items()
        return tuple(s for s in self.samples if s.name == name and wanted <= s.labels.items())

    def total(self, name: str, **labels: str) -> float | None:
        """The sum of the samples that `select` finds; None if it finds none."""
        found = self.select(name, **labels)
        return sum(sample.value for sample in found) if found else None
