"""How an answer is sampled. A field that is not set is not sent, and the server's default applies."""

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
    """The sampling inputs of the ensemble, under its names; only `stop_words` is called `stop` here.

    The server checks the ranges. temperature 0 is greedy. num_logprobs is the number of alternatives that
    are reported for each token. logit_bias maps token ids to numbers that are added to their logits.
    max_tokens and min_tokens count output tokens. num_beams above 1 runs a beam search: its answer is
    greedy and is not streamed, and length_penalty and early_stopping (true, false or "never") apply to
    it, as in transformers. The forced and the start tokens are ids.
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
    """The arguments of every call that generates text, apart from its prompt.

    sampling: values for all sampling arguments that are not given. model, timeout: replace those of the
    client; timeout is in seconds, `math.inf` for none. request_id: appears in the server's logs.
    traceparent: the parent of the server's spans, in the format of W3C. Its default is the current span of
    OpenTelemetry, if the program uses it.
    """

    sampling: Sampling
    model: str
    timeout: float
    request_id: str
    traceparent: str
