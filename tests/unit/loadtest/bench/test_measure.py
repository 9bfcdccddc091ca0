"""Every row under every load in turn; a peer that fails is missing, a row of ours that fails ends the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from loadtest.bench.measure import Found, Measurement
from loadtest.bench.plan import COMPARED, MODELS, REFERENCE, Load, Model, Plan, Row, greedy
from loadtest.bench.quality import Losses
from loadtest.bench.rows import Measurable
from loadtest.bench.sample import Stream
from loadtest.errors import BenchError
from loadtest.machine import read_bandwidth
from loadtest.prompts import Prompt, Prompts
from tests.unit.loadtest.bench.machine import characters

Call = tuple[str, int, int]


class Recorded:
    """A row that answers at once, and remembers what it was asked."""

    def __init__(self, name: str, calls: list[Call], fails_at: int | None = None) -> None:
        self._name = name
        self._calls = calls
        self._fails_at = fails_at

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        assert len({prompt.text for prompt in prompts}) == len(prompts)
        if len(self._calls) == self._fails_at:
            raise BenchError(f"{self._name} fell over")
        self._calls.append((self._name, len(prompts), beams))
        return [[(1.0, 1), (2.0, max_tokens - 1)] for _ in prompts]

    def score(self, windows: Sequence[Prompt]) -> Losses:
        self._calls.append((f"{self._name} scored", len(windows), 0))
        return [[1.0, 2.0]] * len(windows)


def _measured(
    plan: Plan, model: Model, open_row: Callable[[Row], Measurable], windows: Sequence[Prompt] = ()
) -> tuple[Found, list[str]]:
    found, said = Found(), list[str]()
    idle = iter([0.0, 0.3, *[0.0] * 100])
    Measurement(plan, model, Prompts(characters()), found, said.append, lambda: next(idle)).run(
        open_row, windows, None
    )
    return found, said


def test_the_rows_take_turns_under_every_load() -> None:
    model, calls = MODELS["bart-base"], list[Call]()
    plan = Plan(models=(model,), repeats=2)
    found, said = _measured(plan, model, lambda row: Recorded(row.name, calls))
    loads = [(1, 1), (8, 1), (1, 4), (4, 4)]
    warm_up = [(name, *load) for name in (REFERENCE, "grpc") for load in loads]
    first = [(name, *load) for load in loads for name in (REFERENCE, "grpc")]
    second = [(name, *load) for load in loads for name in ("grpc", REFERENCE)]
    assert calls == warm_up + first + second
    assert len(said) == len(calls) + 2  # both rows were started
    assert len(found.samples) == len(first + second)
    assert {s.tokens_per_s for s in found.samples if s.streams == 8} == {8 * 64 / 2}
    assert {s.ttft_p50_s for s in found.samples} == {1.0, None}
    assert found.idle_cores == 0.3


def test_rows_of_the_same_weights_are_scored_once_before_all_else() -> None:
    plan, calls = Plan(models=(COMPARED,), score=True, repeats=1), list[Call]()
    model = replace(COMPARED, loads=greedy((1,)))
    found, _ = _measured(plan, model, lambda row: Recorded(row.name, calls), [Prompt("a", (1, 2))] * 3)
    assert calls[:2] == [("engine scored", 3, 0), (f"{REFERENCE} scored", 3, 0)]
    assert found.losses == {"halimede": [[1.0, 2.0]] * 3, REFERENCE: [[1.0, 2.0]] * 3}
    assert [name for name, *_ in calls[2:6]] == ["engine", "engine-drafts", REFERENCE, "grpc"]


@pytest.mark.parametrize("fails_at", [None, 2, 5])
def test_a_peer_that_fails_is_missing_and_the_rest_goes_on(fails_at: int | None) -> None:
    plan = Plan(models=(COMPARED,), rows=("grpc",), peers=("vllm",), repeats=2)
    model, calls = replace(COMPARED, loads=(Load(1), Load(8))), list[Call]()

    def opened(row: Row) -> Measurable:
        if row.name == "vllm" and fails_at is None:
            raise BenchError("vllm fell over")
        return Recorded(row.name, calls, fails_at if row.name == "vllm" else None)

    found, _ = _measured(plan, model, opened)
    ours = [(s.streams, s.repeat) for s in found.samples if s.row == "grpc"]
    assert ours == [(1, 0), (8, 0), (1, 1), (8, 1)]
    assert found.missing == {"vllm": "vllm fell over"}


def test_a_row_of_ours_that_fails_ends_the_run() -> None:
    plan = Plan(models=(COMPARED,), rows=("grpc",), peers=("vllm",))
    with pytest.raises(BenchError, match="grpc fell over"):
        _measured(plan, COMPARED, lambda row: Recorded(row.name, [], 0 if row.name == "grpc" else None))


def test_memory_is_read_at_some_rate() -> None:
    assert read_bandwidth(2, 1 << 20, 2) > 1e6
