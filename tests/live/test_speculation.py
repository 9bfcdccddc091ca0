"""Prompt lookup through the whole ensemble: answers as without it, in fewer steps."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.runners.kernels import levels_here
from tests.live.artifacts import built, variant
from tests.live.conftest import SMALL
from tests.live.crowd import at_once
from tests.live.serving import Server, started
from tests.live.wire import ask
from tests.live.wire_grpc import GrpcWire

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not levels_here(), reason="no kernels have been compiled"),
]
LIST = "Repeat this list word for word.\n" + "apple, banana, cherry, damson, elder, fig\n" * 3
REQUESTS: list[dict[str, Any]] = [
    {"text_input": LIST, "temperature": 0.0},
    {"text_input": LIST, "temperature": 0.8, "seed": 7},
    {"text_input": LIST, "temperature": 0.0, "repetition_penalty": 1.1},
    {"text_input": "Once upon a time", "temperature": 0.0, "stop_words": ["the"]},
]


@pytest.fixture(scope="module")
def speculating(workshop: Path) -> Iterator[Server]:
    settings = SMALL | {"slots": "4", "max_queue": "8", "speculative_tokens": "8"}
    repository = variant(built("int8"), workshop / "speculating", settings)
    with started(repository, workshop / "speculating.log") as server:
        yield server.wait_ready()
    shutil.rmtree(repository)


def answers(server: Server, stream: bool) -> list[tuple[str, int, str]]:
    def answer(inputs: dict[str, Any]) -> tuple[str, int, str]:
        with GrpcWire(server.address) as wire:
            given = ask(wire, max_tokens=60, ignore_eos=True, stream=stream, **inputs)
            return given.text, given.tokens, given.finish

    return at_once([partial(answer, inputs) for inputs in REQUESTS])


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_answers_are_as_without_it(speculating: Server, int8: Server, stream: bool) -> None:
    assert answers(speculating, stream) == answers(int8, stream)


def test_what_was_proposed_and_kept_is_in_the_metrics(speculating: Server) -> None:
    before = speculating.wait_idle()
    with GrpcWire(speculating.address) as wire:
        ask(wire, LIST, max_tokens=60, ignore_eos=True, temperature=0.0)
    after = speculating.wait_idle()
    proposed, kept = (
        after.total(name) - before.total(name)
        for name in ("spec_decode_num_draft_tokens_total", "spec_decode_num_accepted_tokens_total")
    )
    assert 0 < kept <= proposed
