"""What the tests see of a server: replies and errors, the same over HTTP and gRPC.

The two wires speak Triton's public protocols and use nothing of the project, so that the contract tests can
run against any server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

WAIT_SECONDS = 300.0  # for a server that hangs; nothing here is timed
_FORM = re.compile(
    r"(?:in ensemble '[^']+', )?(?P<code>[A-Z_]+): (?P<field>[^:]+): (?P<problem>.+)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Address:
    """Of one server: `http` and `grpc` are host:port, `metrics` is a URL or None when it is not known."""

    http: str
    grpc: str
    metrics: str | None = None
    model: str = "smollm2"


@dataclass(frozen=True, slots=True)
class Reply:
    """One response; what the server left out is None."""

    outputs: Mapping[str, Any]

    @property
    def text(self) -> str:
        return str(self.outputs["text_output"])

    @property
    def finish(self) -> str:
        return str(self.outputs["finish_reason"])

    @property
    def input_tokens(self) -> int | None:
        return self.outputs.get("num_input_tokens")

    @property
    def output_tokens(self) -> int | None:
        return self.outputs.get("num_output_tokens")

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        return list(json.loads(self.outputs.get("logprobs", "[]")))


@dataclass(frozen=True, slots=True)
class Answer:
    """All responses to one request, in order."""

    replies: Sequence[Reply]

    @property
    def text(self) -> str:
        return "".join(reply.text for reply in self.replies)

    @property
    def finish(self) -> str:
        return self.replies[-1].finish

    @property
    def tokens(self) -> int:
        return sum(reply.output_tokens or 0 for reply in self.replies)

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        return [entry for reply in self.replies for entry in reply.logprobs]

    @property
    def ids(self) -> list[int]:
        return [entry["id"] for entry in self.logprobs]


class WireError(Exception):
    """The server answered with an error; `status` is HTTP's number or gRPC's name, if there is one."""

    def __init__(self, status: int | str | None, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status
        self.text = text

    @property
    def refusal(self) -> Refusal:
        found = _FORM.fullmatch(self.text)
        assert found, f"not of the form CODE: field: value, limit: {self.text}"
        return Refusal(**found.groupdict())


@dataclass(frozen=True, slots=True)
class Refusal:
    code: str
    field: str
    problem: str


class Wire(Protocol):
    """Inputs are named as the model names them; `timeout` is in microseconds and no tensor."""

    name: str

    def open(self, **inputs: Any) -> Generator[Reply, None, None]:
        """The replies to one request; closing the generator early drops the connection."""

    def abandon(self, seconds: float, **inputs: Any) -> None:
        """Sends the request and drops the connection later, without reading the answer."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def ask(wire: Wire, text: str | None = None, **inputs: Any) -> Answer:
    """The whole answer; asks for the counts, greedy unless the inputs say otherwise."""
    given = {"temperature": 0.0, "max_tokens": 16, "return_num_output_tokens": True, **inputs}
    if text is not None:
        given["text_input"] = text
    answer = Answer(list(wire.open(**given)))
    assert answer.replies, "the server answered with nothing"
    return answer


def chat(wire: Wire, *contents: str, **inputs: Any) -> Answer:
    """The answer to a conversation whose turns are, in order, the user's and the assistant's."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return ask(wire, messages=json.dumps(turns), **inputs)


def refused(wire: Wire, **inputs: Any) -> WireError:
    """The error that the request meets; it is a failure of the test when there is none."""
    try:
        replies = list(wire.open(**inputs))
    except WireError as error:
        return error
    raise AssertionError(f"not refused: {inputs} gave {replies}")
