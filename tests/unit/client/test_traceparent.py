"""The traceparent of a request: who sets it, and that it is sent."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from halimede import AsyncClient, Client
from halimede.errors import InvalidArgument
from halimede.testing import FakeGrpcServer, FakeHttpServer, answer
from halimede.traceparent import checked_traceparent, current_traceparent, new_traceparent, trace_id_of

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"
OTHER = f"00-{'12' * 16}-{'34' * 8}-01"
Server = FakeGrpcServer | FakeHttpServer


def sent(server: Server) -> list[str | None]:
    headers = server.metadata if isinstance(server, FakeGrpcServer) else server.headers
    return [{name.lower(): value for name, value in one.items()}.get("traceparent") for one in headers]


def api_with(monkeypatch: pytest.MonkeyPatch, trace_id: int, span_id: int, *, sampled: bool = True) -> None:
    """Installs a fake of the part of OpenTelemetry's API that the client uses."""
    flags = SimpleNamespace(sampled=sampled)
    context = SimpleNamespace(
        is_valid=bool(trace_id and span_id), trace_id=trace_id, span_id=span_id, trace_flags=flags
    )
    span = SimpleNamespace(get_span_context=lambda: context)
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", SimpleNamespace(get_current_span=lambda: span))


def test_a_traceparent_is_sent_with_its_own_request_only(serve: Callable[..., Server]) -> None:
    with serve(answer("a"), answer("b"), answer("c")) as server, Client(server.url) as client:
        client.generate("?", traceparent=PARENT)
        client.generate("?")
        list(client.stream("?", traceparent=OTHER))
    assert sent(server) == [PARENT, None, OTHER]


def test_a_traceparent_overrides_a_header_of_the_client(serve: Callable[..., Server]) -> None:
    headers = {"traceparent": OTHER}
    with serve(answer("a"), answer("b")) as server, Client(server.url, headers=headers) as client:
        client.generate("?", traceparent=PARENT)
        client.generate("?")
    assert sent(server) == [PARENT, OTHER]


@pytest.mark.anyio
async def test_the_asynchronous_client_sends_it_too(serve: Callable[..., Server]) -> None:
    with serve(answer("a")) as server:
        async with AsyncClient(server.url) as client:
            await client.generate("?", traceparent=PARENT)
    assert sent(server) == [PARENT]


def test_the_current_span_is_sent(serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> None:
    api_with(monkeypatch, 0xAB, 0xCD)
    with serve(answer("a")) as server, Client(server.url) as client:
        client.generate("?")
    assert sent(server) == [f"00-{0xAB:032x}-{0xCD:016x}-01"]


def test_an_invalid_or_unsampled_span_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    api_with(monkeypatch, 0, 0)
    assert current_traceparent() is None
    api_with(monkeypatch, 1, 1, sampled=False)
    assert current_traceparent() is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "junk",
        PARENT.upper(),
        PARENT + "-x",
        "01" + PARENT[2:],
        f"00-{'0' * 32}-{'cd' * 8}-01",
        PARENT + "\n",
    ],
)
def test_a_malformed_traceparent_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="traceparent"):
        Client().stream("?", traceparent=text)


@given(st.text() | st.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True))
def test_a_text_is_valid_or_refused(text: str) -> None:
    _, *ids, _ = text.split("-") if re.fullmatch(r"00(-[0-9a-f]+){3}", text) else [""] * 4
    if [len(one) for one in ids] == [32, 16] and len(text) == 55 and all(int(one, 16) for one in ids):
        assert checked_traceparent(text) == text
    else:
        with pytest.raises(InvalidArgument, match="traceparent"):
            checked_traceparent(text)


def test_a_new_traceparent_is_valid_and_unique() -> None:
    made = {checked_traceparent(new_traceparent()) for _ in range(100)}
    assert len({trace_id_of(one) for one in made}) == 100
