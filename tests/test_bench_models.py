"""The comparison of models: what it plans, makes and judges."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.errors import BenchError
from loadtest.models import report
from loadtest.models.__main__ import main
from loadtest.models.checkpoint import tokenizer
from loadtest.models.engine import Build, Engines, run_measured
from loadtest.models.plan import BUILDS, CASES, Load, Plan, Shape, quick
from loadtest.models.targets import Measured, verdicts
from loadtest.models.versus import Sample, Versus
from loadtest.prompts import Prompt, Prompts
from loadtest.sample import Stream
from tests.bench_machine import MACHINE

MANIFEST = {
    "name": "gpt2",
    "precision": "int8",
    "model": {"parameters": 124_439_808},
    "size_bytes": 1,
    "quality": {},
}
GREEDY = Load(1, 1)
TOKENIZER = tokenizer(600)


def _sample(side: str, rate: float, repeat: int = 0, load: Load = GREEDY, model: str = "gpt2") -> Sample:
    return Sample(model, side, load, repeat, 64, 64 / rate, 0.1 if load.beams == 1 else None)


def _found(*samples: Sample, builds: Sequence[Build] = ()) -> Measured:
    return Measured(samples, builds, {case.shape.name: MANIFEST for case in CASES})


def test_the_plan_holds_the_sizes_of_the_models() -> None:
    gpt2, bart = (case.shape for case in CASES)
    assert (gpt2.layers, gpt2.hidden, gpt2.vocab) == (12, 768, 50257)
    assert (bart.layers, bart.hidden, bart.inner, bart.vocab) == (6, 768, 3072, 50265)
    assert [limit.shape.name for limit in BUILDS] == ["gpt2", "bart-large"]
    assert Plan().measurements == 2 * (2 + 4) * 6


def test_a_quick_plan_compares_the_same_with_less() -> None:
    plan = quick(Plan(builds=BUILDS))
    assert [case.loads for case in plan.cases] == [case.loads for case in CASES]
    assert plan.cases[0].shape == plan.builds[0].shape
    assert {limit.shape.hidden for limit in plan.builds} == {64}


def test_rates_are_judged_as_ratios_with_their_spread() -> None:
    ours = [_sample("triton", rate, i) for i, rate in enumerate((80, 90, 100))]
    theirs = [_sample("transformers", rate, i) for i, rate in enumerate((20, 20, 25))]
    verdict = verdicts(Plan(), _found(*ours, *theirs))[0]
    assert verdict.name == "tokens/s, gpt2, greedy, 1 at once: Triton / transformers"
    assert (verdict.value, verdict.low, verdict.high) == pytest.approx((4.5, 4.0, 4.5))
    assert verdict.met is True


@pytest.mark.parametrize(("rate", "met"), [(59.9, False), (60, True)])
def test_beams_are_judged_apart(rate: float, met: bool) -> None:
    load = Load(4, 1)
    samples = [_sample(side, r, 0, load, "bart-base") for side, r in (("triton", rate), ("transformers", 20))]
    by_name = {verdict.name: verdict.met for verdict in verdicts(Plan(), _found(*samples))}
    assert by_name["tokens/s, bart-base, 4 beams, 1 at once: Triton / transformers"] is met
    assert by_name["tokens/s, bart-base, greedy, 1 at once: Triton / transformers"] is None


def test_builds_are_judged_by_time_and_memory() -> None:
    builds = [Build("gpt2", 61.0, 2 * 10**9), Build("bart-large", 200.0, 9 * 10**9)]
    found = verdicts(Plan(cases=(), builds=BUILDS), _found(builds=builds))
    assert [verdict.met for verdict in found] == [False, True, False]
    assert found[0].note == "memory 2.00 GB"
    unmeasured = verdicts(Plan(cases=(), builds=BUILDS), _found())
    assert {verdict.met for verdict in unmeasured} == {None}


@given(st.text(st.characters(codec="ascii"), max_size=300))
def test_a_byte_is_a_token(text: str) -> None:
    ids = TOKENIZER.encode(text).ids
    assert len(ids) == len(text)
    assert TOKENIZER.decode(ids) == text


def test_every_id_of_the_model_has_a_text() -> None:
    assert TOKENIZER.get_vocab_size() == 600
    assert TOKENIZER.decode([599]).isalpha()


class Recorded:
    """A side that answers at once, and remembers what it was asked."""

    def __init__(self, name: str, calls: list[tuple[str, int, int]]) -> None:
        self._name = name
        self._calls = calls

    def run(self, prompts: Sequence[Prompt], max_tokens: int, beams: int) -> Sequence[Stream]:
        assert len({prompt.text for prompt in prompts}) == len(prompts)
        self._calls.append((self._name, len(prompts), beams))
        return [[(1.0, 1), (2.0, max_tokens - 1)] for _ in prompts]


def test_the_sides_take_turns_under_every_load() -> None:
    plan, calls, told = Plan(cases=CASES[1:], repeats=2), list[tuple[str, int, int]](), list[str]()
    both = {name: Recorded(name, calls) for name in ("transformers", "triton")}
    samples = Versus(plan, CASES[1], both, Prompts(TOKENIZER), told.append).run()
    once = [(name, n, beams) for beams, n in ((1, 1), (1, 8), (4, 1), (4, 4)) for name in both]
    assert calls == once * 3
    assert len(told) == len(calls) == plan.measurements
    assert {sample.tokens_per_s for sample in samples if sample.load.requests == 8} == {8 * 64 / 2}
    assert {sample.first_token_s for sample in samples} == {1.0, None}


def test_a_measured_process_tells_its_memory_and_its_end() -> None:
    held = 200 * 10**6
    code, peak = run_measured([sys.executable, "-c", f"bytes({held}).count(1); raise SystemExit(3)"])
    assert code == 3
    assert held < peak < 10 * held


def test_a_checkpoint_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    indivisible = Shape("odd", "gpt2", layers=1, hidden=64, heads=7, inner=64, vocab=300)
    with pytest.raises(BenchError, match=r"odd could not be written: .*checkpoint.log says why"):
        Engines(tmp_path).build(indivisible)
    assert not list(tmp_path.glob("odd-*"))


def test_the_report_as_json_and_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    loads = [(case.shape.name, load) for case in CASES for load in case.loads]
    sides = (("transformers", 20), ("triton", 70))
    found = _found(
        *(_sample(side, rate, 0, load, model) for model, load in loads for side, rate in sides),
        builds=[Build("gpt2", 30.0, 10**9)],
    )
    content = json.loads(json.dumps(report.to_json(Plan(), MACHINE, found), allow_nan=False))
    assert len(content["samples"]) == 12
    assert {verdict["met"] for verdict in content["verdicts"]} == {True, False}
    report.show(Plan(), MACHINE, found)
    shown = capsys.readouterr().out
    for text in ("gpt2 124M, 128 in", "4 beams, 4 at once", "Triton gRPC int8", "3.500", "missed"):
        assert text in shown


@pytest.mark.parametrize("arguments", [["--models", "t5"], ["--build", "gpt3"], ["--repeats", "0"]])
def test_an_argument_at_fault_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
