"""The values that the datatype of an input can hold."""

from __future__ import annotations

from halimede.errors import InvalidArgument
from halimede.inputs import INPUTS

__all__ = ["InputValue", "checked", "checked_name"]

InputValue = str | int | float | bool | tuple[str, ...]

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
    datatype = INPUTS[name].datatype
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
