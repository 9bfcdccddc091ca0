"""Which recipes fit, in which order, and what is said of those that do not."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from build.quantise import Precision
from build.recipe import Recipe, Task, known_recipes, load_recipe
from build.recommend.cli import Need, Verdict, rank
from build.recommend.speed import device

GIB = 2**30
RECIPES = [load_recipe(name) for name in known_recipes()]
SERVER = Need(device("cpu-server"), memory=64 * GIB)


def names(found: list[Verdict]) -> list[str]:
    return [verdict.name for verdict in found if not verdict.reasons]


def one(name: str, need: Need) -> Verdict:
    (verdict,) = rank([load_recipe(name)], need)
    return verdict


def test_the_largest_model_that_fits_is_first() -> None:
    found = rank(RECIPES, replace(SERVER, task=Task.TRANSLATE))
    assert names(found) == ["opus-mt-en-fr", "opus-mt-en-de"]
    sizes = [verdict.parameters for verdict in rank(RECIPES, replace(SERVER, task=Task.CHAT))]
    assert len(sizes) > 2
    assert sizes == sorted(sizes, reverse=True)


def test_a_model_that_must_be_tuned_comes_last() -> None:
    found = names(rank(RECIPES, replace(SERVER, task=Task.SUMMARIZE)))
    assert found == ["bart-large-cnn", "flan-t5-base", "t5-small", "bart-base"]


def test_without_a_task_every_recipe_is_ranked() -> None:
    known = {recipe.name for recipe in RECIPES if recipe.shape}
    assert {verdict.name for verdict in rank(RECIPES, SERVER)} == known


def test_a_recipe_without_a_shape_is_not_ranked() -> None:
    assert rank([Recipe(name="mine", source="./mine")], SERVER) == []


def test_what_does_not_fit_comes_after_what_does() -> None:
    found = rank(RECIPES, replace(SERVER, task=Task.CHAT, memory=3 * GIB))
    fits = [not verdict.reasons for verdict in found]
    assert fits == sorted(fits, reverse=True)
    assert names(found) == ["qwen2.5-0.5b-instruct", "smollm2"]


@pytest.mark.parametrize(
    ("need", "precision"),
    [
        (SERVER, "int8"),
        (replace(SERVER, precision=Precision.FP32), "fp32"),
        (replace(SERVER, precision=Precision.INT4), "int4"),
        (replace(SERVER, device=device("h100")), "fp16"),
        (replace(SERVER, device=device("h100"), memory=1_300 * 2**20), "int8"),
        (replace(SERVER, device=device("h100"), precision=Precision.FP8), "fp8"),
    ],
)
def test_the_precision_is_the_first_that_fits(need: Need, precision: str) -> None:
    verdict = one("smollm2", replace(need, context=1024))
    assert (verdict.precision, verdict.reasons) == (precision, ())


def test_int4_takes_less_memory_where_it_is_asked_for() -> None:
    tight = replace(SERVER, memory=int(2.7 * GIB), context=128)
    assert one("llama-3.2-1b-instruct", tight).reasons
    assert not one("llama-3.2-1b-instruct", replace(tight, precision=Precision.INT4)).reasons


def test_t5_needs_bfloat16_on_a_gpu() -> None:
    assert one("t5-small", replace(SERVER, device=device("h100"))).precision == "bf16"
    (reason,) = one("t5-small", replace(SERVER, device=device("t4"))).reasons
    assert reason == "needs bfloat16, which NVIDIA T4 does not have"


def test_more_positions_than_a_model_has_are_refused() -> None:
    (reason,) = one("gpt2", replace(SERVER, context=4096)).reasons
    assert reason == "has 1024 positions, 4096 asked for: --context 1024"


def test_a_model_too_large_says_by_how_much() -> None:
    (reason,) = one("qwen3-0.6b", replace(SERVER, memory=8 * GIB)).reasons
    assert re.fullmatch(r"needs 8\.\d GiB, 8 GiB given: fits with --slots \d+ or --context 1024", reason)
    (reason,) = one("llama-3.2-1b-instruct", replace(SERVER, memory=GIB)).reasons
    assert reason.endswith("1 GiB given: one slot is too much, too")


@given(
    name=st.sampled_from([recipe.name for recipe in RECIPES if recipe.shape]),
    memory=st.integers(GIB // 4, 12 * GIB),
    on=st.sampled_from(["cpu-laptop", "cpu-server", "l4"]),
)
@example(name="qwen3-0.6b", memory=8 * GIB, on="cpu-server")
def test_what_is_advised_fits(name: str, memory: int, on: str) -> None:
    need = replace(SERVER, memory=memory, device=device(on), precision=Precision.INT8)
    for reason in one(name, need).reasons:
        for option, value in re.findall(r"--(slots|context) (\d+)", reason):
            count = int(value)
            other = replace(need, slots=count) if option == "slots" else replace(need, context=count)
            assert not one(name, other).reasons


@given(memory=st.integers(GIB // 2, 16 * GIB), more=st.integers(0, 16 * GIB))
def test_more_memory_never_fits_less(memory: int, more: int) -> None:
    few, many = (rank(RECIPES, replace(SERVER, memory=size)) for size in (memory, memory + more))
    assert set(names(few)) <= set(names(many))
