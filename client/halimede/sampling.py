"""How an answer is drawn. A field left out is not sent: the server's default holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

__all__ = ["CallOptions", "Message", "Sampling", "SamplingFields"]


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """The sampling inputs of the ensemble, by its names (`stop` is its `stop_words`).

    The server checks the ranges. temperature 0 is greedy. num_logprobs is the number of
    alternatives reported for each token. logit_bias maps token ids to what is added to their
    logits. max_tokens and min_tokens count output tokens. num_beams above 1 searches: such an answer
    is greedy, comes in one piece, and is shaped by length_penalty, early_stopping (true, false or
    "never") and no_repeat_ngram_size, as in transformers. The forced and the start tokens are ids.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    logit_bias: Mapping[int, float] | None = None
    ignore_eos: bool | None = None
    num_logprobs: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    no_repeat_ngram_size: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    return_num_input_tokens: bool | None = True
    return_num_output_tokens: bool | None = True


class SamplingFields(TypedDict, total=False):
    """The fields of `Sampling` as keyword arguments."""

    max_tokens: int | None
    min_tokens: int | None
    temperature: float | None
    top_p: float | None
    min_p: float | None
    top_k: int | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    stop: str | Sequence[str]
    logit_bias: Mapping[int, float] | None
    ignore_eos: bool | None
    num_logprobs: int | None
    num_beams: int | None
    length_penalty: float | None
    early_stopping: bool | str | None
    no_repeat_ngram_size: int | None
    forced_bos_token_id: int | None
    forced_eos_token_id: int | None
    decoder_start_token_id: int | None
    return_num_input_tokens: bool | None
    return_num_output_tokens: bool | None


class CallOptions(SamplingFields, total=False):
    """What every generating call takes besides its prompt.

    sampling: the base that the other sampling arguments change. model, timeout: instead of the
    client's; timeout is in seconds, `math.inf` for none. request_id: shown in the server's logs.
    traceparent: the span that the server's are put under, as W3C writes it; where OpenTelemetry is in use,
    by default the current one.
    """

    sampling: Sampling
    model: str
    timeout: float
    request_id: str
    traceparent: str
