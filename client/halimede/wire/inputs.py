"""The inputs of the ensemble: their datatypes, and the values that each datatype can hold."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from halimede.errors import InvalidArgument

__all__ = ["INPUT_TYPES", "InputValue", "checked", "checked_name"]

InputValue = str | int | float | bool | tuple[str, ...]

INPUT_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "text_input": "BYTES",
        "messages": "BYTES",
        "max_tokens": "INT32",
        "min_tokens": "INT32",
        "temperature": "FP32",
        "top_p": "FP32",
        "min_p": "FP32",
        "top_k": "INT32",
        "repetition_penalty": "FP32",
        "frequency_penalty": "FP32",
        "presence_penalty": "FP32",
        "seed": "UINT64",
        "stop_words": "BYTES",
        "logit_bias": "BYTES",
        "ignore_eos": "BOOL",
        "num_logprobs": "INT32",
        "num_beams": "INT32",
        "length_penalty": "FP32",
        "early_stopping": "BYTES",
        "no_repeat_ngram_size": "INT32",
        "forced_bos_token_id": "INT32",
        "forced_eos_token_id": "INT32",
        "decoder_start_token_id": "INT32",
        "return_num_input_tokens": "BOOL",
        "return_num_output_tokens": "BOOL",
        "stream": "BOOL",
    }
)

_LIMITS = {
    "BYTES": "must be text that UTF-8 can encode",
    "INT32": "must be a whole number of 32 bits",
    "UINT64": "must be a whole number from 0 to 2^64 - 1",
    "FP32": "must be a finite number of 32 bits",
    "BOOL": "must be true or false",
}

_MAX_FP32 = 3.4028234663852886e38


def checked(name: str, value: InputValue) -> InputValue:
    """The value itself. Raises InvalidArgument if its datatype cannot hold it; the server checks ranges."""
    datatype = INPUT_TYPES[name]
    values = value if isinstance(value, tuple) else (value,)
    if not all(_fits(datatype, element) for element in values):
        raise InvalidArgument.of(name, repr(value)[:100], _LIMITS[datatype])
    return value


def checked_name(field: str, name: str) -> str:
    """The name of a model or request. Raises InvalidArgument for bytes of argv that are not text."""
    if not _fits("BYTES", name):
        raise InvalidArgument.of(field, repr(name), _LIMITS["BYTES"])
    return name


def _fits(datatype: str, value: object) -> bool:
    if isinstance(value, bool) or datatype == "BOOL":
        return isinstance(value, bool) and datatype == "BOOL"
    match datatype, value:
        case "BYTES", str():
            return not any("\ud800" <= character <= "\udfff" for character in value)
        case "INT32", int():
            return -(2**31) <= value < 2**31
        case "UINT64", int():
            return 0 <= value < 2**64
        case "FP32", int() | float():
            return abs(value) <= _MAX_FP32  # false for NaN
    return False
