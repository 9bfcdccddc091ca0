"""The four config.pbtxt: what is committed is what a build writes, and Triton can parse it."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from build.triton_config import configs
from tests.contract import INPUTS
from tests.paths import ROOT

REPOSITORY = ROOT / "model_repository"
MODELS = configs("smollm2")


def parsed(model: str) -> model_config_pb2.ModelConfig:
    config = model_config_pb2.ModelConfig()
    text_format.Parse(MODELS[model], config)
    return config


@pytest.mark.parametrize("model", MODELS)
def test_what_is_committed_is_what_is_rendered(model: str) -> None:
    assert (REPOSITORY / model / "config.pbtxt").read_text(encoding="utf-8") == MODELS[model]


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_named_as_its_folder_and_takes_one_request(model: str) -> None:
    config = parsed(model)
    assert config.name == model
    assert config.max_batch_size == 1
    assert not config.HasField("dynamic_batching")


@pytest.mark.parametrize("model", ["smollm2", "smollm2_tokenizer"])
def test_every_request_input_is_optional_and_has_its_type(model: str) -> None:
    config = parsed(model)
    assert all(tensor.optional for tensor in config.input)
    assert {t.name: tuple(t.dims) for t in config.input} == {
        name: (-1 if row.get("many") else 1,) for name, row in INPUTS.items()
    }
    types = {t.name: model_config_pb2.DataType.Name(t.data_type) for t in config.input}
    assert types == {name: f"TYPE_{row['type']}" for name, row in INPUTS.items()}


def test_the_tokenizer_gets_every_input_of_the_ensemble() -> None:
    ensemble, tokenizer = parsed("smollm2"), parsed("smollm2_tokenizer")
    names = [tensor.name for tensor in ensemble.input]
    assert names == [tensor.name for tensor in tokenizer.input]
    assert dict(ensemble.ensemble_scheduling.step[0].input_map) == {name: name for name in names}


def test_the_steps_hand_on_what_the_next_one_takes() -> None:
    ensemble = parsed("smollm2")
    assert [step.model_name for step in ensemble.ensemble_scheduling.step] == [
        "smollm2_tokenizer",
        "smollm2_engine",
        "smollm2_detokenizer",
    ]
    for step in ensemble.ensemble_scheduling.step:
        config = parsed(step.model_name)
        assert set(step.input_map) == {tensor.name for tensor in config.input}
        assert set(step.output_map) == {tensor.name for tensor in config.output}
    last = ensemble.ensemble_scheduling.step[-1]
    assert set(last.output_map.values()) == {tensor.name for tensor in ensemble.output}


def test_only_the_engine_is_decoupled_and_every_step_has_one_instance() -> None:
    for model in MODELS:
        config = parsed(model)
        assert config.model_transaction_policy.decoupled == (model == "smollm2_engine")
        if model != "smollm2":
            (group,) = config.instance_group
            assert (group.count, group.kind) == (1, model_config_pb2.ModelInstanceGroup.KIND_CPU)


def test_parameters_have_the_defaults_that_readers_expect() -> None:
    engine = {key: value.string_value for key, value in parsed("smollm2_engine").parameters.items()}
    assert engine == {
        "slots": "16",
        "max_context": "2048",
        "max_source": "0",
        "threads": "0",
        "max_queue": "64",
        "kv_budget_bytes": "0",
        "prefill_chunk": "128",
        "prefill_stall_percent": "250",
        "heartbeat_ms": "500",
        "stream_interval": "0",
        "speculative_tokens": "0",
        "kernels": "auto",
        "device": "auto",
    }
    tokenizer = {k: v.string_value for k, v in parsed("smollm2_tokenizer").parameters.items()}
    assert tokenizer == {
        "default_max_tokens": "256",
        "max_stop_words": "16",
        "max_stop_bytes": "256",
        "max_input_bytes": "1048576",
    }


def test_the_context_is_at_most_the_models() -> None:
    for positions, context in ((1024, "1024"), (131072, "2048")):
        config = model_config_pb2.ModelConfig()
        text_format.Parse(configs("other", positions)["other_engine"], config)
        assert config.parameters["max_context"].string_value == context


def test_another_name_changes_nothing_but_the_name() -> None:
    assert configs("other") == {
        model.replace("smollm2", "other"): text.replace("smollm2", "other") for model, text in MODELS.items()
    }
