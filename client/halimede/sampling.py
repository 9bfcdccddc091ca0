"""What a call takes: messages, how the answer is sampled, and whose it is."""

from __future__ import annotations

from typing import TypedDict

from halimede.inputs import Sampling, SamplingFields

__all__ = ["CallOptions", "Message", "Sampling", "SamplingFields"]


class Message(TypedDict):
    """One turn of a conversation; `role` is system, user or assistant."""

    role: str
    content: str


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
