"""What a recipe may say of a chain, and how a mistake in it is named."""

from __future__ import annotations

import re
from typing import Any

import pytest

from build.cli import main
from build.compress.plan import Budget, parse_budget, parse_steps
from build.errors import BadInput
from build.quantise import Precision
from build.recipe import load_recipe, parse_recipe

MINIMAL = {"name": "mine", "source": "./mine"}


def test_options_budgets_and_seeds_are_read() -> None:
    first, second = parse_steps(
        [
            {"pass": "prune-vocabulary", "keep": 400, "seed": 3, "budget": {"kl": 1}},
            {"pass": "gptq", "bits": 4, "eight": ["head", "down"]},
        ]
    )
    assert (first.name, first.options.keep, first.seed, first.budget) == (
        "prune-vocabulary",
        400,
        3,
        Budget(kl=1),
    )
    assert second.options.eight == ("head", "down")
    assert second.described()["pass"] == "gptq"


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        ("gptq", "step: 'gptq', must be tables: [[step]]"),
        ([3], "step 1: 3, must be a table"),
        ([{"pass": "shrink"}], "step 1: pass: 'shrink', must be one of carry, compensate, gptq"),
        ([{"pass": "gptq", "bit": 4}], "step 1, gptq: bit: unknown key; known are pass, seed, budget, bits"),
        ([{"pass": "gptq", "bits": "4"}], "step 1, gptq: bits: '4', must be a whole number"),
        ([{"pass": "gptq", "bits": True}], "step 1, gptq: bits: True, must be a whole number"),
        ([{"pass": "gptq", "bits": 3}], "step 1, gptq: "),
        ([{"pass": "prune-vocabulary"}], "step 1, prune-vocabulary: keep: missing"),
        ([{"pass": "gptq", "seed": -1}], "step 1, gptq: seed: -1, must be a whole number of at least 0"),
        ([{"pass": "gptq", "budget": {"ppl": 2}}], "step 1, gptq: budget: ppl: unknown key"),
        ([{"pass": "gptq", "budget": {"bytes": 1}}], "step 1, gptq: budget.bytes: an engine has bytes"),
        (
            [{"pass": "gptq"}, {"pass": "prune-depth", "layers": 1}],
            "step 2, prune-depth: comes after gptq, whose weights it would change: put prune-depth",
        ),
        ([{"pass": "carry"}, {"pass": "gptq"}], "step 2, gptq: carry has rounded the weights: keep one"),
    ],
)
def test_a_mistake_is_named_with_its_step(steps: Any, fault: str) -> None:
    with pytest.raises(BadInput, match=re.escape(fault)):
        parse_steps(steps)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"perplexity": 0.9}, "budget.perplexity: 0.9, is a ratio of at least 1"),
        ({"kl": 0}, "budget.kl: 0, must be more than 0"),
        ({"flips": "few"}, "budget.flips: 'few', must be a number"),
        ({"speed": 1}, "budget: speed: unknown key; known are perplexity, kl, flips, bytes"),
    ],
)
def test_an_impossible_budget_is_named(table: Any, fault: str) -> None:
    with pytest.raises(BadInput, match=re.escape(fault)):
        parse_budget("budget", table)


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ({"budget": {"kl": 1}}, "budget: is for a chain: add a [[step]]"),
        ({"step": [{"pass": "carry"}], "precision": "int8"}, "precision: 'int8': the step carry decides it"),
        (
            {"step": [{"pass": "carry"}], "engine": "tensorrt"},
            "step: chains are built for engine onnxruntime",
        ),
    ],
)
def test_a_recipe_says_what_does_not_go_with_a_chain(table: dict[str, Any], fault: str) -> None:
    with pytest.raises(BadInput, match=re.escape(fault)):
        parse_recipe({**MINIMAL, **table})


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--precision", "int8"], "precision: 'int8': the step carry decides it"),
        (["--engine", "tensorrt"], "step: chains are built for engine onnxruntime only"),
    ],
)
def test_an_option_that_does_not_go_with_a_chain_is_refused(
    options: list[str], fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["smollm2-int4", *options]) == 2
    assert fault in capsys.readouterr().err


def test_a_chain_that_rounds_nothing_keeps_its_precision() -> None:
    recipe = parse_recipe({**MINIMAL, "precision": "fp32", "step": [{"pass": "prune-depth", "layers": 1}]})
    assert recipe.precision is Precision.FP32


@pytest.mark.parametrize("name", ["smollm2-int4", "smollm2-gptq4"])
def test_our_chains_say_their_budgets(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.steps
    assert None not in (recipe.budget.perplexity, recipe.budget.kl, recipe.budget.flips, recipe.budget.bytes)
    described = recipe.resolved()
    assert [step["pass"] for step in described["steps"]] == [step.name for step in recipe.steps]
