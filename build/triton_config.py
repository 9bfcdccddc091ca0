"""Writes config.pbtxt for the four models that serve one engine, as text that a person reads and edits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Tensor:
    name: str
    dtype: str
    dims: int
    about: str
    optional: bool = True


_REQUEST = (
    Tensor("text_input", "STRING", 1, "the prompt; or messages"),
    Tensor("messages", "STRING", 1, "JSON list of {role, content}, for the chat template"),
    Tensor("max_tokens", "INT32", 1, "tokens to generate at most"),
    Tensor("min_tokens", "INT32", 1, "tokens before an end-of-sequence token counts"),
    Tensor("temperature", "FP32", 1, "0 is greedy"),
    Tensor("top_p", "FP32", 1, "in (0, 1]"),
    Tensor("top_k", "INT32", 1, "0 is off"),
    Tensor("min_p", "FP32", 1, "in [0, 1], relative to the likeliest token"),
    Tensor("repetition_penalty", "FP32", 1, "1 is off"),
    Tensor("frequency_penalty", "FP32", 1, "0 is off"),
    Tensor("presence_penalty", "FP32", 1, "0 is off"),
    Tensor("seed", "UINT64", 1, "same seed, same answer"),
    Tensor("stop_words", "STRING", -1, "never part of the answer"),
    Tensor("logit_bias", "STRING", 1, "JSON object, token id to bias"),
    Tensor("ignore_eos", "BOOL", 1, "generate max_tokens, past any end of sequence"),
    Tensor("num_logprobs", "INT32", 1, "alternatives reported for each token"),
    Tensor("num_beams", "INT32", 1, "more than 1: beam search; not with stream, temperature, stop_words"),
    Tensor("length_penalty", "FP32", 1, "beams: more than 0 favours long answers, less short ones"),
    Tensor("early_stopping", "STRING", 1, "beams: false, true or never, as in transformers"),
    Tensor("no_repeat_ngram_size", "INT32", 1, "no sequence of n tokens occurs twice; 0 is off"),
    Tensor("forced_bos_token_id", "INT32", 1, "first token of an encoder-decoder's answer"),
    Tensor("forced_eos_token_id", "INT32", 1, "last token when max_tokens is reached"),
    Tensor("decoder_start_token_id", "INT32", 1, "an encoder-decoder's answer follows it"),
    Tensor("stream", "BOOL", 1, "false: one response; true: several, as tokens come"),
    Tensor("return_num_input_tokens", "BOOL", 1, ""),
    Tensor("return_num_output_tokens", "BOOL", 1, ""),
)
_ANSWER = (
    Tensor("text_output", "STRING", 1, "the text this response adds"),
    Tensor("finish_reason", "STRING", 1, "empty until the last: stop, length, stop_sequence"),
    Tensor("num_input_tokens", "INT32", 1, ""),
    Tensor("num_output_tokens", "INT32", 1, "tokens of this response"),
    Tensor("logprobs", "STRING", 1, "JSON, one entry for each token of this response"),
)
_IDS = Tensor("input_ids", "INT32", -1, "the prompt's token ids", optional=False)
_JOB = Tensor("request", "STRING", 1, "the validated request, JSON", optional=False)
_CHUNK = Tensor("chunk", "STRING", 1, "new tokens and what decoding them needs, JSON", False)

_TOKENIZER_PARAMETERS = {
    "default_max_tokens": ("256", "where the request names no max_tokens"),
    "max_stop_words": ("16", "stop words of one request"),
    "max_stop_bytes": ("256", "UTF-8 bytes of one stop word"),
    "max_input_bytes": ("1048576", "UTF-8 bytes of text_input or messages"),
}
_CONTEXT = 2048
_ENGINE_PARAMETERS = {
    "slots": ("16", "sequences generated at once; each holds a KV cache of max_context tokens"),
    "max_context": (str(_CONTEXT), "tokens of prompt and answer together"),
    "max_source": ("0", "source tokens of an encoder-decoder; 0 takes the model's, at most 1024"),
    "threads": ("0", "threads of the model; 0 for the cores that the server may use"),
    "max_queue": ("64", "requests that wait for a slot; the next one is refused at once"),
    "kv_budget_bytes": (
        "0",
        "memory for the KV cache and each thread's scratch; 0 allows 80 % of what is free",
    ),
    "prefill_chunk": ("128", "prompt tokens per step, so that a long prompt does not stall streams"),
    "prefill_stall_percent": (
        "250",
        "time of a chunk while streams run, in % of a decode step's; 0 for chunks of fixed size",
    ),
    "heartbeat_ms": ("500", "an empty chunk this often while a streamed request waits"),
    "stream_interval": (
        "0",
        "steps from one response to the next; 0 for each token at once, and up to 8 where many streams run",
    ),
    "speculative_tokens": (
        "0",
        "most tokens that prompt lookup proposes for a step, where the kernels run; 0 for none, up to 15",
    ),
    "kernels": (
        "auto",
        "auto: the processor's best or ONNX Runtime; off: ONNX Runtime; on; avx512, avxvnni, avx2, plain",
    ),
    "device": ("auto", "cpu or cuda; auto is the GPU of KIND_GPU, or any that the engine cannot do without"),
}


def configs(
    name: str, max_positions: int = _CONTEXT, settings: Mapping[str, int] = MappingProxyType({})
) -> dict[str, str]:
    """config.pbtxt text by model name; `max_positions` are those of the model, `settings` of its engine."""
    return {
        name: _ensemble(name),
        f"{name}_tokenizer": _tokenizer(name),
        f"{name}_engine": _engine(name, {"max_context": min(_CONTEXT, max_positions), **settings}),
        f"{name}_detokenizer": _detokenizer(name),
    }


def _ensemble(name: str) -> str:
    request = {tensor.name: tensor.name for tensor in _REQUEST}
    answer = {tensor.name: tensor.name for tensor in _ANSWER}
    ids = {tensor.name: tensor.name for tensor in (_IDS, _JOB)}
    chunk = {_CHUNK.name: _CHUNK.name}
    steps = [
        _step(f"{name}_tokenizer", request, ids),
        _step(f"{name}_engine", ids, chunk),
        _step(f"{name}_detokenizer", chunk, answer),
    ]
    return _document(
        f"# {name}: text in, text out. Every input is optional and reaches the tokenizer, which\n"
        "# validates them all: Triton answers an absent required input of an ensemble with nothing.",
        [
            f'name: "{name}"\nplatform: "ensemble"\nmax_batch_size: 1',
            _tensors("input", _REQUEST),
            _tensors("output", _ANSWER, mark_optional=False),
            "ensemble_scheduling {\n  step [\n" + ",\n".join(steps) + "\n  ]\n}",
        ],
    )


def _tokenizer(name: str) -> str:
    return _document(
        f"# {name}_tokenizer: a request in text or chat messages becomes token ids, or a clear error.",
        [
            _head(f"{name}_tokenizer", "llm_tokenizer"),
            _tensors("input", _REQUEST),
            _tensors("output", (_IDS, _JOB), mark_optional=False),
            _ONE_INSTANCE,
            _parameters(_TOKENIZER_PARAMETERS),
        ],
    )


def _engine(name: str, settings: Mapping[str, int]) -> str:
    named = {key: (str(value), _ENGINE_PARAMETERS[key][1]) for key, value in settings.items()}
    parameters = {**_ENGINE_PARAMETERS, **named}
    return _document(
        f"# {name}_engine: token ids to new token ids, many requests in one continuous batch.\n"
        "# The engine batches by itself: one instance for a CPU or for each GPU, and no batching by Triton.",
        [
            _head(f"{name}_engine", "llm_engine"),
            "model_transaction_policy {\n  decoupled: true  # many responses to one request\n}",
            _tensors("input", (_IDS, _JOB)),
            _tensors("output", (_CHUNK,), mark_optional=False),
            _ONE_INSTANCE,
            _parameters(parameters),
        ],
    )


def _detokenizer(name: str) -> str:
    return _document(
        f"# {name}_detokenizer: new token ids to whole UTF-8 text.\n"
        "# Exactly one instance and no dynamic batching: two instances send chunks out of order, and\n"
        "# batching drops the chunks of cancelled requests, which then never end.",
        [
            _head(f"{name}_detokenizer", "llm_detokenizer"),
            _tensors("input", (_CHUNK,)),
            _tensors("output", _ANSWER, mark_optional=False),
            _ONE_INSTANCE,
        ],
    )


_ONE_INSTANCE = "instance_group [\n  {\n    count: 1\n    kind: KIND_CPU\n  }\n]"


def _head(name: str, backend: str) -> str:
    return f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: 1'


def _document(comment: str, parts: Sequence[str]) -> str:
    return "\n\n".join([comment + "\n" + parts[0], *parts[1:]]) + "\n"


def _tensors(kind: str, tensors: Sequence[Tensor], mark_optional: bool = True) -> str:
    return f"{kind} [\n" + ",\n".join(_tensor(t, mark_optional) for t in tensors) + "\n]"


def _tensor(tensor: Tensor, mark_optional: bool) -> str:
    about = f"  # {tensor.about}" if tensor.about else ""
    lines = [
        f'    name: "{tensor.name}"{about}',
        f"    data_type: TYPE_{tensor.dtype}",
        f"    dims: [ {tensor.dims} ]",
    ]
    if mark_optional and tensor.optional:
        lines.append("    optional: true")
    return "  {\n" + "\n".join(lines) + "\n  }"


def _step(model: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> str:
    lines = [f'      model_name: "{model}"', "      model_version: -1"]
    lines += [_mapping("input_map", key, value) for key, value in inputs.items()]
    lines += [_mapping("output_map", key, value) for key, value in outputs.items()]
    return "    {\n" + "\n".join(lines) + "\n    }"


def _mapping(kind: str, key: str, value: str) -> str:
    return f'      {kind} {{ key: "{key}" value: "{value}" }}'


def _parameters(parameters: Mapping[str, tuple[str, str]]) -> str:
    return "\n".join(
        f'# {about}\nparameters {{ key: "{key}" value {{ string_value: "{value}" }} }}'
        for key, (value, about) in parameters.items()
    )
