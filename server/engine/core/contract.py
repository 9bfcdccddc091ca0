# Made by contract/write.py from contract/*.toml: change those, then run it.

"""The inputs, settings and metrics of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from engine.core.limits import MAX_INT32, MAX_UINT64, Limit


class EarlyStoppingChoice(StrEnum):
    FALSE = "false"
    TRUE = "true"
    NEVER = "never"


class KernelsChoice(StrEnum):
    AUTO = "auto"
    ON = "on"
    OFF = "off"
    AVX512 = "avx512"
    AVXVNNI = "avxvnni"
    AVX2 = "avx2"
    PLAIN = "plain"


class DeviceChoice(StrEnum):
    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True)
class Input:
    """`type` is Triton's; `many` says that there may be several values; `json`, that the text is JSON."""

    type: str
    many: bool = False
    json: bool = False


INPUTS: Final[Mapping[str, Input]] = {
    "text_input": Input("STRING"),
    "messages": Input("STRING", json=True),
    "max_tokens": Input("INT32"),
    "min_tokens": Input("INT32"),
    "temperature": Input("FP32"),
    "top_p": Input("FP32"),
    "top_k": Input("INT32"),
    "min_p": Input("FP32"),
    "repetition_penalty": Input("FP32"),
    "frequency_penalty": Input("FP32"),
    "presence_penalty": Input("FP32"),
    "seed": Input("UINT64"),
    "stop_words": Input("STRING", many=True),
    "bad_words": Input("STRING", many=True),
    "logit_bias": Input("STRING", json=True),
    "ignore_eos": Input("BOOL"),
    "num_logprobs": Input("INT32"),
    "num_beams": Input("INT32"),
    "length_penalty": Input("FP32"),
    "early_stopping": Input("STRING"),
    "no_repeat_ngram_size": Input("INT32"),
    "forced_bos_token_id": Input("INT32"),
    "forced_eos_token_id": Input("INT32"),
    "decoder_start_token_id": Input("INT32"),
    "stream": Input("BOOL"),
    "return_num_input_tokens": Input("BOOL"),
    "return_num_output_tokens": Input("BOOL"),
}
LIMITS: Final[Mapping[str, Limit]] = {
    "max_tokens": Limit(int, 1, MAX_INT32),
    "min_tokens": Limit(int, 0, MAX_INT32),
    "temperature": Limit(float, 0, 100),
    "top_p": Limit(float, 0, 1, open_low=True),
    "top_k": Limit(int, 0, MAX_INT32),
    "min_p": Limit(float, 0, 1),
    "repetition_penalty": Limit(float, 0.001, 10),
    "frequency_penalty": Limit(float, -2, 2),
    "presence_penalty": Limit(float, -2, 2),
    "seed": Limit(int, 0, MAX_UINT64),
    "num_logprobs": Limit(int, 0, 20),
    "num_beams": Limit(int, 1, 64),
    "length_penalty": Limit(float, -5, 5),
    "no_repeat_ngram_size": Limit(int, 0, MAX_INT32),
    "forced_bos_token_id": Limit(int, 0, MAX_INT32),
    "forced_eos_token_id": Limit(int, 0, MAX_INT32),
    "decoder_start_token_id": Limit(int, 0, MAX_INT32),
}


@dataclass(frozen=True, slots=True)
class SamplingInputs:
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int | None = None
    stop_words: tuple[str, ...] = ()
    bad_words: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    num_logprobs: int | None = None
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStoppingChoice = EarlyStoppingChoice.FALSE
    no_repeat_ngram_size: int = 0
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    decoder_start_token_id: int | None = None


@dataclass(frozen=True, slots=True)
class TokenizerSettings:
    default_max_tokens: int = 256
    max_stop_words: int = 16
    max_stop_bytes: int = 256
    max_input_bytes: int = 1048576


@dataclass(frozen=True, slots=True)
class EngineSettings:
    slots: int = 16
    max_context: int = 2048
    max_source: int = 0
    threads: int = 0
    max_queue: int = 64
    kv_budget_bytes: int = 0
    prefill_chunk: int = 128
    prefill_stall_percent: int = 250
    heartbeat_ms: int = 500
    stream_interval: int = 0
    speculative_tokens: int = 0
    kernels: KernelsChoice = KernelsChoice.AUTO
    device: DeviceChoice = DeviceChoice.AUTO


SETTINGS: Final[Mapping[str, Limit | type[StrEnum]]] = {
    "default_max_tokens": Limit(int, 1, MAX_INT32),
    "max_stop_words": Limit(int, 1, MAX_INT32),
    "max_stop_bytes": Limit(int, 1, MAX_INT32),
    "max_input_bytes": Limit(int, 1, MAX_INT32),
    "slots": Limit(int, 1, 1024),
    "max_context": Limit(int, 2, 1048576),
    "max_source": Limit(int, 0, 1048576),
    "threads": Limit(int, 0, 1024),
    "max_queue": Limit(int, 1, 1048576),
    "kv_budget_bytes": Limit(int, 0, 1125899906842624),
    "prefill_chunk": Limit(int, 1, 1048576),
    "prefill_stall_percent": Limit(int, 0, 100000),
    "heartbeat_ms": Limit(int, 10, 60000),
    "stream_interval": Limit(int, 0, 1024),
    "speculative_tokens": Limit(int, 0, 15),
    "kernels": KernelsChoice,
    "device": DeviceChoice,
}


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels` have the values whose series exist from the start; `buckets` are seconds."""

    kind: str
    help: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...]


METRICS: Final[Mapping[str, Metric]] = {
    "num_requests_waiting": Metric("gauge", "Requests in the queue", {}, ()),
    "num_requests_running": Metric("gauge", "Requests in a slot", {}, ()),
    "kv_cache_usage_perc": Metric(
        "gauge", "Share of the KV cache that running requests fill, 0 to 1", {}, ()
    ),
    "kernels_info": Metric(
        "gauge",
        "1 for the level of kernels in use, or for none (ONNX Runtime) and the reason; of an engine on a CPU",
        {"level": (), "why": ()},
        (),
    ),
    "prompt_tokens_total": Metric("counter", "Prompt tokens of requests whose prefill is complete", {}, ()),
    "generation_tokens_total": Metric("counter", "Tokens generated", {}, ()),
    "prefix_cache_queries_total": Metric("counter", "Prompt tokens looked up in the prefix cache", {}, ()),
    "prefix_cache_hits_total": Metric("counter", "Prompt tokens taken from the prefix cache", {}, ()),
    "request_success_total": Metric(
        "counter",
        "Requests completed, by reason",
        {"finished_reason": ("stop", "length", "stop_sequence")},
        (),
    ),
    "requests_rejected_total": Metric(
        "counter",
        "Requests refused or ended without completion, by reason",
        {"reason": ("invalid_arg", "unavailable", "deadline_exceeded", "cancelled", "internal")},
        (),
    ),
    "spec_decode_num_draft_tokens_total": Metric("counter", "Tokens proposed by prompt lookup", {}, ()),
    "spec_decode_num_accepted_tokens_total": Metric(
        "counter", "Tokens proposed by prompt lookup that became the answer's", {}, ()
    ),
    "trace_spans_dropped_total": Metric("counter", "Spans that did not reach the trace collector", {}, ()),
    "time_to_first_token_seconds": Metric(
        "histogram",
        "Seconds from arrival to the first token",
        {"streamed": ("false", "true")},
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
    "inter_token_latency_seconds": Metric(
        "histogram",
        "Seconds between two tokens of a request, as they are computed",
        {"streamed": ("false", "true")},
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
    "inter_response_latency_seconds": Metric(
        "histogram",
        "Seconds between two responses with text of one stream, as they are sent",
        {},
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
    "e2e_request_latency_seconds": Metric(
        "histogram",
        "Seconds from arrival to the last token",
        {"streamed": ("false", "true")},
        (0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    ),
    "request_queue_time_seconds": Metric(
        "histogram",
        "Seconds from arrival to the start of prefill",
        {},
        (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    ),
}
