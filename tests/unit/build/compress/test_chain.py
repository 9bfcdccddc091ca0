"""Steps run once, in order, are judged before the next, and go on after a break."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.checkpoint import Checkpoint, Weight
from build.compress.catalogue import PASSES
from build.compress.chain import Chain, Machine
from build.compress.plan import Budget, Step
from build.compress.step import Cost, Kind, Tools
from build.compress.store import Store
from build.errors import BadInput, BuildError
from tests.models import tiny

NAME = "model.norm.weight"


@dataclass(frozen=True)
class By:
    by: float = 1.0


@dataclass
class Adds:
    """A pass that adds to one weight, and counts its runs."""

    KIND: Kind = Kind.PRUNE
    Options: type[Any] = By
    runs: list[float] = field(default_factory=list)
    memory: int = 0
    fails: BaseException | None = None
    seeds: list[int] = field(default_factory=list)

    def require(self, checkpoint: Checkpoint, options: By) -> None:
        if options.by < 0:
            raise BadInput(f"by: {options.by}, must be at least 0")

    def cost(self, checkpoint: Checkpoint, options: By) -> Cost:
        return Cost(1e9, self.memory)

    def run(self, checkpoint: Checkpoint, options: By, tools: Tools) -> Checkpoint:
        if self.fails:
            raise self.fails
        self.runs.append(options.by)
        self.seeds.append(tools.seed)
        tools.note({"added": options.by})
        values = checkpoint.weights[NAME].read() + np.float32(options.by)
        return replace(checkpoint, weights={**checkpoint.weights, NAME: Weight(values.shape, lambda: values)})


@pytest.fixture
def adds(monkeypatch: pytest.MonkeyPatch) -> Adds:
    found = Adds()
    monkeypatch.setitem(PASSES, "adds", found)
    return found


@pytest.fixture
def source(tmp_path: Path) -> Checkpoint:
    return tiny.opened(tiny.write_folder(tmp_path / "model", "llama"))


def measure(made: Checkpoint, parent: Checkpoint, root: Checkpoint) -> Mapping[str, Any]:
    """A ratio that is the mean of the weight."""
    values = [float(each.weights[NAME].read().mean()) for each in (made, parent, root)]
    return {
        "against_parent": {"perplexity": values[0] / values[1], "kl": 0.1, "flips": 0.0},
        "against_root": values,
    }


def chain(
    source: Checkpoint,
    folder: Path,
    *steps: Step,
    said: list[str] | None = None,
    free: int = 1 << 40,
    **changes: Any,
) -> Chain:
    def stage(name: str, count: int) -> Callable[[], None]:
        return lambda: None

    made = Chain(
        steps=steps,
        source=source,
        store=Store(folder, source),
        tools=Tools(("text",), 0, stage),
        measure=lambda made, parent, root: dict(measure(made, parent, root)),
        machine=Machine(free, 1e9),
        say=(said if said is not None else []).append,
    )
    return replace(made, **changes)


def mean(checkpoint: Checkpoint) -> float:
    return float(checkpoint.weights[NAME].read().mean())


def test_each_step_gets_what_the_one_before_made(adds: Adds, source: Checkpoint, tmp_path: Path) -> None:
    steps = (Step("adds", By(1)), Step("adds", By(2), seed=7))
    said: list[str] = []
    made, lineage = chain(source, tmp_path / "kept", *steps, said=said).run()
    assert mean(made) == pytest.approx(mean(source) + 3)
    assert [step["by"] for step in lineage] == [1, 2]
    assert [step["notes"] for step in lineage] == [{"added": 1}, {"added": 2}]
    assert lineage[1]["parent"] == lineage[0]["key"]
    assert adds.seeds == [0, 7]
    assert said[0] == "step 1 of 2, adds: about 1 s, 0.0 GiB"
    json.dumps(lineage)


def test_a_second_run_makes_nothing_again(adds: Adds, source: Checkpoint, tmp_path: Path) -> None:
    steps = (Step("adds", By(1)), Step("adds", By(2)))
    first, lineage = chain(source, tmp_path / "kept", *steps).run()
    again, found = chain(source, tmp_path / "kept", *steps).run()
    assert adds.runs == [1, 2]
    assert (mean(again), found) == (mean(first), lineage)
    # Another option, seed or text is another step; the one before it is the same.
    chain(source, tmp_path / "kept", steps[0], Step("adds", By(3))).run()
    chain(source, tmp_path / "kept", Step("adds", By(1), seed=1)).run()
    chain(source, tmp_path / "kept", steps[0], tools=Tools(("other",), 0, lambda *_: lambda: None)).run()
    assert adds.runs == [1, 2, 3, 1, 1]


def test_a_break_loses_the_running_step_alone(adds: Adds, source: Checkpoint, tmp_path: Path) -> None:
    steps = (Step("adds", By(1)), Step("adds", By(2)))
    broken = chain(source, tmp_path / "kept", *steps)
    original = adds.run

    def run(checkpoint: Checkpoint, options: By, tools: Tools) -> Checkpoint:
        if options.by == 2:
            raise KeyboardInterrupt
        return original(checkpoint, options, tools)

    adds.run = run  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    adds.run = original  # type: ignore[method-assign]
    made, _ = chain(source, tmp_path / "kept", *steps).run()
    assert adds.runs == [1, 2]
    assert mean(made) == pytest.approx(mean(source) + 3)


def test_a_break_while_measuring_keeps_what_was_made(adds: Adds, source: Checkpoint, tmp_path: Path) -> None:
    def fails(*_: Checkpoint) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        chain(source, tmp_path / "kept", Step("adds", By(1)), measure=fails).run()
    _, lineage = chain(source, tmp_path / "kept", Step("adds", By(1))).run()
    assert adds.runs == [1]
    assert lineage[0]["notes"] == {"added": 1}


def test_a_step_beyond_its_budget_stops_the_chain(adds: Adds, source: Checkpoint, tmp_path: Path) -> None:
    tight = Step("adds", By(1), budget=Budget(perplexity=1.01, kl=0.05))
    with pytest.raises(
        BuildError, match=r"step 1, adds: perplexity [\d.]+, budget 1.01; kl 0.1, budget 0.05"
    ):
        chain(source, tmp_path / "kept", tight, Step("adds", By(2))).run()
    assert adds.runs == [1]


def test_what_cannot_be_is_refused_before_the_long_work(
    adds: Adds, source: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BadInput, match=r"step 2, adds: by: -1, must be at least 0"):
        chain(source, tmp_path / "kept", Step("adds", By(1)), Step("adds", By(-1))).require()
    adds.memory = 3 << 30
    with pytest.raises(BadInput, match=r"step 1, adds: takes 3\.0 GiB of memory, and 1\.0 GiB are free"):
        chain(source, tmp_path / "kept", Step("adds", By(1)), free=1 << 30).require()
    adds.memory = 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(BadInput, match=r"kept: 1 steps take up to 0\.0 GiB, and 0\.0 GiB are free"):
        chain(source, tmp_path / "kept", Step("adds", By(1))).require()
    assert adds.runs == []
