"""A planned request as what is sent: a GenerateRequest, and for bad ones what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from halimede.sampling import Sampling
from halimede.wire.request import GenerateRequest
from halimede.wire.rest import encode_body
from loadtest.traffic.mix import Bad, MixEntry, Protocol, Task
from loadtest.traffic.schedule import Planned

# The server takes 0 and above.
_BAD_TEMPERATURE = -1.0
_NOT_JSON = "{not json"


@dataclass(frozen=True, slots=True)
class Ask:
    """`is_json` is false for a request whose JSON is to be broken on its way out."""

    request: GenerateRequest
    is_json: bool = True


def ask_of(planned: Planned, text: str, model: str) -> Ask:
    """`text` is the prompt of the plan, `model` the one to ask."""
    kind = planned.kind
    is_chat = kind.task is Task.CHAT and kind.bad is not Bad.EMPTY
    request = GenerateRequest(
        model=model,
        prompt=None if is_chat else text,
        messages=[{"role": "user", "content": text}] if is_chat else None,
        sampling=_sampling(planned, kind),
        stream=kind.protocol is not Protocol.UNARY,
        timeout_s=kind.timeout_s,
    )
    return Ask(request, is_json=kind.bad is not Bad.NOT_JSON)


def body_of(ask: Ask) -> bytes:
    """What is posted to generate and generate_stream."""
    return encode_body(ask.request) if ask.is_json else _NOT_JSON.encode()


def message_of(ask: Ask) -> Any:
    """A service_pb2.ModelInferRequest. Over gRPC the only JSON is that of the messages."""
    from halimede.wire import proto  # noqa: PLC0415  protobuf is not needed for HTTP

    message = proto.encode(ask.request)
    if not ask.is_json:
        name = "text_input" if ask.request.messages is None else "messages"
        (tensor,) = (tensor for tensor in message.inputs if tensor.name == name)
        tensor.name = "messages"
        tensor.contents.bytes_contents[0] = _NOT_JSON.encode()
    return message


def _sampling(planned: Planned, kind: MixEntry) -> Sampling:
    return Sampling(
        max_tokens=planned.tokens_out,
        temperature=_BAD_TEMPERATURE if kind.bad is Bad.BAD_TEMPERATURE else kind.temperature,
        seed=planned.seed if kind.temperature > 0 else None,
        ignore_eos=kind.ignore_eos,
    )
