# Made by contract/write.py from contract/*.toml: change those, then run it.

"""The inputs of an ensemble, and how an answer is sampled as arguments of a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

__all__ = ["INPUTS", "Input", "Sampling", "SamplingFields"]


@dataclass(frozen=True, slots=True)
class Input:
    """`datatype` is Triton's on the wire; `many` says that there may be several values; `json`, that the
    text is JSON. `argument` is the field of Sampling, if it is one; `help` says what the input does.
    """

    datatype: str
    many: bool = False
    json: bool = False
    argument: str = ""
    help: str = ""


INPUTS: Mapping[str, Input] = {
    "text_input": Input("BYTES", help="The prompt. Either this or messages."),
    "messages": Input(
        "BYTES",
        json=True,
        help="A conversation for the model's chat template; the roles are system, user and assistant.",
    ),
    "max_tokens": Input("INT32", argument="max_tokens", help="Maximum number of tokens in the answer."),
    "min_tokens": Input(
        "INT32",
        argument="min_tokens",
        help="Minimum number of tokens in the answer: before it neither an end-of-sequence token nor a stop word ends it.",
    ),
    "temperature": Input("FP32", argument="temperature", help="Sampling temperature; 0 is greedy."),
    "top_p": Input(
        "FP32",
        argument="top_p",
        help="Sample from the most likely tokens whose probabilities add up to this.",
    ),
    "top_k": Input(
        "INT32",
        argument="top_k",
        help="Sample from this many of the most likely tokens; 0 disables the limit.",
    ),
    "min_p": Input(
        "FP32", argument="min_p", help="Drop tokens whose probability is below this share of the highest one."
    ),
    "repetition_penalty": Input(
        "FP32",
        argument="repetition_penalty",
        help="Above 1, tokens of the prompt and the answer become less likely.",
    ),
    "frequency_penalty": Input(
        "FP32",
        argument="frequency_penalty",
        help="Subtracted from the logit of a token for each time it is in the answer.",
    ),
    "presence_penalty": Input(
        "FP32",
        argument="presence_penalty",
        help="Subtracted from the logit of a token once it is in the answer.",
    ),
    "seed": Input(
        "UINT64",
        argument="seed",
        help="Seed of the random numbers: the same seed gives the same answer. The default is random.",
    ),
    "stop_words": Input(
        "BYTES", many=True, argument="stop", help="Text that ends the answer and is not part of it."
    ),
    "bad_words": Input(
        "BYTES",
        many=True,
        argument="bad_words",
        help="Text that the answer never contains, wherever its tokens begin and end.",
    ),
    "logit_bias": Input(
        "BYTES", json=True, argument="logit_bias", help="Added to the logits of tokens, by their ids."
    ),
    "ignore_eos": Input(
        "BOOL", argument="ignore_eos", help="Continue after the end-of-sequence token, up to max_tokens."
    ),
    "num_logprobs": Input(
        "INT32",
        argument="num_logprobs",
        help="Report log-probabilities: of each token, and of so many alternatives.",
    ),
    "num_beams": Input(
        "INT32",
        argument="num_beams",
        help="Number of beams; 1 for no beam search. A beam search is greedy, takes a slot for each beam and answers in one response.",
    ),
    "length_penalty": Input(
        "FP32",
        argument="length_penalty",
        help="Beam search: above 0 favours longer answers, below 0 shorter ones.",
    ),
    "early_stopping": Input(
        "BYTES",
        argument="early_stopping",
        help="Beam search: when it is over, as in transformers: false, true or never.",
    ),
    "no_repeat_ngram_size": Input(
        "INT32",
        argument="no_repeat_ngram_size",
        help="No sequence of this many tokens occurs twice; 0 disables the rule. A decoder's prompt counts too.",
    ),
    "forced_bos_token_id": Input(
        "INT32",
        argument="forced_bos_token_id",
        help="Id of the first token of an encoder-decoder's answer, such as a language of mBART.",
    ),
    "forced_eos_token_id": Input(
        "INT32",
        argument="forced_eos_token_id",
        help="Id of the last token of an answer that max_tokens cuts.",
    ),
    "decoder_start_token_id": Input(
        "INT32",
        argument="decoder_start_token_id",
        help="Id of the token with which the decoder of an encoder-decoder starts.",
    ),
    "stream": Input(
        "BOOL",
        help="True for an answer in several responses, as tokens are computed; the setting stream_interval says how often.",
    ),
    "return_num_input_tokens": Input(
        "BOOL", argument="return_num_input_tokens", help="Report the number of tokens of the prompt."
    ),
    "return_num_output_tokens": Input(
        "BOOL", argument="return_num_output_tokens", help="Report the number of tokens of each response."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is sampled. A field that is not set is not sent, and the server's default applies.

    The server checks the ranges.

    max_tokens: Maximum number of tokens in the answer.
    min_tokens: Minimum number of tokens in the answer: before it neither an end-of-sequence token nor a stop word ends it.
    temperature: Sampling temperature; 0 is greedy.
    top_p: Sample from the most likely tokens whose probabilities add up to this.
    top_k: Sample from this many of the most likely tokens; 0 disables the limit.
    min_p: Drop tokens whose probability is below this share of the highest one.
    repetition_penalty: Above 1, tokens of the prompt and the answer become less likely.
    frequency_penalty: Subtracted from the logit of a token for each time it is in the answer.
    presence_penalty: Subtracted from the logit of a token once it is in the answer.
    seed: Seed of the random numbers: the same seed gives the same answer. The default is random.
    stop: Text that ends the answer and is not part of it.
    bad_words: Text that the answer never contains, wherever its tokens begin and end.
    logit_bias: Added to the logits of tokens, by their ids.
    ignore_eos: Continue after the end-of-sequence token, up to max_tokens.
    num_logprobs: Report log-probabilities: of each token, and of so many alternatives.
    num_beams: Number of beams; 1 for no beam search. A beam search is greedy, takes a slot for each beam and answers in one response.
    length_penalty: Beam search: above 0 favours longer answers, below 0 shorter ones.
    early_stopping: Beam search: when it is over, as in transformers: false, true or never.
    no_repeat_ngram_size: No sequence of this many tokens occurs twice; 0 disables the rule. A decoder's prompt counts too.
    forced_bos_token_id: Id of the first token of an encoder-decoder's answer, such as a language of mBART.
    forced_eos_token_id: Id of the last token of an answer that max_tokens cuts.
    decoder_start_token_id: Id of the token with which the decoder of an encoder-decoder starts.
    return_num_input_tokens: Report the number of tokens of the prompt.
    return_num_output_tokens: Report the number of tokens of each response.
    """

    max_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: str | Sequence[str] = ()
    bad_words: str | Sequence[str] = ()
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
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int | None
    stop: str | Sequence[str]
    bad_words: str | Sequence[str]
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
