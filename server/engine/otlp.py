"""Spans in OTLP's protobuf form, written by hand: only the few messages that spans need.

The numbers of the fields are those of opentelemetry/proto/trace/v1/trace.proto, which is stable.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from engine.tracing import Attribute, Context, Span

_VARINT, _FIXED64, _BYTES = 0, 1, 2
_KIND_INTERNAL: Final = 1
_STATUS_ERROR: Final = 2


@dataclass(frozen=True, slots=True)
class Placed:
    """A span in its trace. `offset_ns` added to its times gives nanoseconds since 1970."""

    span: Span
    parent: Context
    span_id: bytes
    offset_ns: int


def export_request(spans: Iterable[Placed], service: str, scope: str) -> bytes:
    """An ExportTraceServiceRequest of one resource, called `service`."""
    resource = _bytes(1, _attribute("service.name", service))
    scoped = _bytes(1, _text(1, scope)) + b"".join(_bytes(2, _span(span)) for span in spans)
    return _bytes(1, _bytes(1, resource) + _bytes(2, scoped))


def _span(placed: Placed) -> bytes:
    span = placed.span
    return b"".join(
        [
            _bytes(1, placed.parent.trace_id),
            _bytes(2, placed.span_id),
            _bytes(4, placed.parent.span_id),
            _text(5, span.name),
            _number(6, _KIND_INTERNAL),
            _time(7, span.begin_ns + placed.offset_ns),
            _time(8, span.end_ns + placed.offset_ns),
            *(_bytes(9, _attribute(name, value)) for name, value in span.attributes.items()),
            _bytes(15, _text(2, span.error) + _number(3, _STATUS_ERROR)) if span.error else b"",
        ]
    )


def _attribute(name: str, value: Attribute) -> bytes:
    return _text(1, name) + _bytes(2, _value(value))


def _value(value: Attribute) -> bytes:
    if isinstance(value, str):
        return _text(1, value)
    if isinstance(value, int):
        return _number(3, value)
    return _bytes(5, b"".join(_bytes(1, _value(item)) for item in value))


def _text(field: int, text: str) -> bytes:
    return _bytes(field, text.encode())


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _time(field: int, nanoseconds: int) -> bytes:
    return _varint(field << 3 | _FIXED64) + struct.pack("<Q", nanoseconds)


def _varint(value: int) -> bytes:
    """The protobuf varint of a number that is not negative."""
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)
