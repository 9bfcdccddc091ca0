"""The wire format: requests to bytes and bytes to results, without sockets, clocks or threads.

`GenerateRequest` is a request for both protocols. `wire.proto` translates it to Triton's gRPC messages
(import it by itself: it needs protobuf), `wire.rest` to the generate extension over HTTP, whose streams
`wire.sse` parses. `wire.answer` makes Chunks of outputs, `wire.faults` errors of error texts,
`wire.repository` results of the model repository's replies, and `wire.prometheus` parses metrics.
"""

from halimede.wire.faults import server_error
from halimede.wire.prometheus import parse_metrics
from halimede.wire.request import GenerateRequest
from halimede.wire.rest import ReplyDecoder
from halimede.wire.sse import SseParser

__all__ = ["GenerateRequest", "ReplyDecoder", "SseParser", "parse_metrics", "server_error"]
