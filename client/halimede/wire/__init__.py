"""The wire format, pure: requests to bytes and bytes to results, no sockets, clocks or threads.

`GenerateRequest` is what a client asks, whatever the protocol. `wire.proto` speaks Triton's gRPC
messages (it imports protobuf, so it stands apart), `wire.rest` Triton's generate extension over
HTTP, `wire.sse` its streams, `wire.faults` its errors and `wire.prometheus` its metrics.
"""

from halimede.wire.faults import server_error
from halimede.wire.prometheus import parse_metrics
from halimede.wire.request import GenerateRequest
from halimede.wire.rest import ReplyDecoder
from halimede.wire.sse import SseParser

__all__ = ["GenerateRequest", "ReplyDecoder", "SseParser", "parse_metrics", "server_error"]
