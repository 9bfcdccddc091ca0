"""What a run measures: which rows of which models, under which loads, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bench.__main__ import _parser, plan_of
from loadtest.bench.peers import ENVIRONMENTS
from loadtest.bench.plan import (
    COMPARED,
    MODELS,
    OURS,
    PEERS,
    REFERENCE,
    ROWS,
    SMOLLM2,
    Load,
    Plan,
    order,
    quick,
)


def _plan(*arguments: str) -> Plan:
    return plan_of(_parser().parse_args(arguments))


def _rows(plan: Plan) -> list[str]:
    return [row.name for model in plan.models for row in plan.loaded(model)]


def test_a_plain_run_is_of_one_model_and_of_our_rows() -> None:
    plan = _plan()
    assert plan.models == (SMOLLM2,)
    assert _rows(plan) == ["engine", REFERENCE, "grpc", "http"]
    assert all(plan.has(SMOLLM2, name) for name in ("footprint", "bare"))
    assert [load.streams for load in SMOLLM2.loads] == [1, 4, 8, 16, 32]


def test_transformers_runs_at_few_streams_unless_it_is_compared_with_peers() -> None:
    rows = {row.name: row for row in ROWS}
    reference, engine = rows[REFERENCE], rows["engine"]
    assert [n for n in (1, 4, 8, 32) if Plan().runs(SMOLLM2, reference, Load(n))] == [1, 8]
    assert Plan().runs(SMOLLM2, engine, Load(32))
    assert _plan("--peers", "vllm").runs(COMPARED, reference, Load(32))
    assert Plan().runs(MODELS["bart-base"], reference, Load(4, beams=4))


def test_with_all_peers_every_row_but_http_and_url_is_measured_and_scored() -> None:
    plan = _plan("--peers", "all")
    assert _rows(plan) == [row.name for row in ROWS if row.name not in ("http", "url")]
    assert plan.scores(plan.models[0])
    assert [load.streams for load in plan.models[0].loads] == [1, 8, 32]
    assert set(PEERS) == set(ENVIRONMENTS) - {"export"}


def test_a_peer_brings_its_rows_and_ours() -> None:
    plan = _plan("--peers", "vllm", "--rows", "grpc")
    assert _rows(plan) == ["grpc", "vllm"]
    assert {row.peer for row in _plan("--score").loaded(COMPARED)} == {OURS, REFERENCE}


def test_a_running_server_is_one_more_row_or_the_only_one() -> None:
    assert _rows(_plan("--url", "127.0.0.1:8001")) == ["engine", REFERENCE, "grpc", "http", "url"]
    assert _rows(_plan("--url", "127.0.0.1:8001", "--rows", "url")) == ["url"]


def test_the_models_have_their_real_sizes() -> None:
    gpt2, bart = MODELS["gpt2"].random, MODELS["bart-base"].random
    assert gpt2 is not None
    assert bart is not None
    assert [gpt2.config[size] for size in ("n_layer", "n_embd", "vocab_size")] == [12, 768, 50257]
    sizes = ("encoder_layers", "d_model", "decoder_ffn_dim", "vocab_size")
    assert [bart.config[size] for size in sizes] == [6, 768, 3072, 50265]


def test_several_models_have_rows_of_their_own() -> None:
    plan = _plan("--models", "gpt2 bart-base,bart-large")
    assert [model.name for model in plan.models] == ["gpt2", "bart-base", "bart-large"]
    assert _rows(plan) == [REFERENCE, "grpc"] * 2
    assert [plan.has(model, "build") for model in plan.models] == [True, False, True]
    assert len(plan.models[0].loads) == 2
    assert len(plan.models[1].loads) == 4


def test_a_quick_plan_compares_the_same_with_less() -> None:
    plan = Plan(models=tuple(MODELS.values()))
    short = quick(plan)
    assert [model.loads for model in short.models[1:]] == [model.loads for model in plan.models[1:]]
    assert {len(model.random.config) for model in short.models if model.random} == {5, 9}
    assert {model.random.config["vocab_size"] for model in short.models if model.random} == {600}
    assert [model.name for model in short.models] == [
        "smollm2",
        "tiny-gpt2",
        "tiny-bart-base",
        "tiny-bart-large",
    ]
    assert _rows(_plan("--quick")) == ["engine", "grpc", "http"]
    assert _rows(_plan("--quick", "--rows", f"{REFERENCE},grpc")) == [REFERENCE, "grpc"]


@given(st.integers(0, 20), st.lists(st.text(), unique=True, max_size=6))
def test_every_repeat_has_every_row_once(repeat: int, rows: list[str]) -> None:
    assert sorted(order(tuple(rows), repeat)) == sorted(rows)


def test_every_row_leads_a_repeat() -> None:
    assert [order(("a", "b", "c"), repeat)[0] for repeat in range(4)] == ["a", "b", "c", "a"]


@pytest.mark.parametrize("names", ["", "smollm2,t5"])
def test_an_unknown_model_is_a_usage_error(names: str) -> None:
    with pytest.raises(SystemExit) as ended:
        _plan("--models", names)
    assert ended.value.code == 2
