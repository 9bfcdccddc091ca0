"""Every rule catches the fault it is there for, in a graph and in what TensorRT-RTX makes of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from build.architecture import describe
from build.dialects.tensorrt.builder import check_and_serialise, decode_profile, prefill_profile
from build.dialects.tensorrt.check import faults, require_sound
from build.dialects.tensorrt.toolkit import RtxToolkit
from build.errors import BuildError
from build.quantise import Precision
from tests.models import tiny
from tests.models.tensorrt_graphs import write_graphs

PROFILES = [decode_profile(4), prefill_profile(16)]


class Silent:
    def stage(self, name: str, steps: int) -> Callable[[], None]:
        return lambda: None


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    checkpoint = tiny.opened(tiny.write_folder(folder / "checkpoint", "gemma3_text"))
    architecture = describe(checkpoint.config)
    return write_graphs(folder / "engine", checkpoint, architecture, Precision.FP16).model


@pytest.fixture
def model(graph: Path) -> ir.Model:
    return ir.load(graph)


def saved(model: ir.Model, near: Path) -> Path:
    path = near.with_name("broken.onnx")
    ir.save(model, path)
    return path


def first(model: ir.Model, kind: str) -> ir.Node:
    return next(node for node in model.graph if node.op_type == kind)


def add_input(model: ir.Model, name: str, dtype: ir.DataType, shape: list[str | int]) -> ir.Value:
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
    model.graph.inputs.append(value)
    return value


def an_unused_input(model: ir.Model) -> None:
    add_input(model, "lengths", ir.DataType.INT64, ["batch"])


def no_mask(model: ir.Model) -> None:
    first(model, "Attention").resize_inputs(3)


def a_constant_mask(model: ir.Model) -> None:
    constant = ir.tensor(np.ones((1, 1, 1, 64), np.bool_), name="everything")
    value = ir.Value(name="everything", type=ir.TensorType(constant.dtype), const_value=constant)
    model.graph.register_initializer(value)
    first(model, "Attention").replace_input_with(3, value)


def causal(model: ir.Model) -> None:
    first(model, "Attention").attributes["is_causal"] = ir.AttrInt64("is_causal", 1)


def capped(model: ir.Model) -> None:
    first(model, "Attention").attributes["softcap"] = ir.AttrFloat32("softcap", 30.0)


def lengths_of_keys(model: ir.Model) -> None:
    node = first(model, "Attention")
    node.resize_inputs(7)
    node.replace_input_with(6, add_input(model, "lengths", ir.DataType.INT64, ["batch"]))


def past_of_attention(model: ir.Model) -> None:
    node = first(model, "Attention")
    node.resize_inputs(6)
    for index in (4, 5):
        node.replace_input_with(index, node.inputs[index - 3])


def a_dynamic_capacity(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if (value.name or "").startswith(("past_", "present_")):
            assert value.shape
            value.shape = ir.Shape([*value.shape[:2], "capacity", value.shape[3]])


def a_circular_cache(model: ir.Model) -> None:
    first(model, "TensorScatter").attributes["mode"] = ir.AttrString("mode", "circular")


def a_cache_of_three_dimensions(model: ir.Model) -> None:
    past = first(model, "TensorScatter").inputs[0]
    assert past
    assert past.shape
    past.shape = ir.Shape(past.shape[1:])


def a_present_that_is_no_output(model: ir.Model) -> None:
    present = first(model, "TensorScatter").outputs[0]
    model.graph.outputs.remove(present)


def pairs_that_are_crossed(model: ir.Model) -> None:
    keys, values = [node for node in model.graph if node.op_type == "TensorScatter"][:2]
    for node, past in ((keys, values.inputs[0]), (values, keys.inputs[0])):
        node.replace_input_with(0, past)


def a_row_that_is_not_aligned(model: ir.Model) -> None:
    for value in (*model.graph.inputs, *model.graph.outputs):
        if (value.name or "").startswith(("past_", "present_")):
            assert value.shape
            value.shape = ir.Shape([*value.shape[:2], 63, value.shape[3]])


def an_operator_of_another_domain(model: ir.Model) -> None:
    first(model, "Gather").domain = "com.microsoft"


def narrow_logits(model: ir.Model) -> None:
    model.graph.outputs[0].type = ir.TensorType(ir.DataType.FLOAT16)


def an_older_opset(model: ir.Model) -> None:
    model.graph.opset_imports[""] = 23


FAULTS: list[tuple[Callable[[ir.Model], None], str]] = [
    (an_unused_input, "no node reads input lengths"),
    (no_mask, "has no mask"),
    (a_constant_mask, "its mask everything comes from no input"),
    (causal, "ignores is_causal"),
    (capped, "ignores softcap"),
    (lengths_of_keys, "ignores nonpad_kv_seqlen"),
    (past_of_attention, "use TensorScatter"),
    (a_dynamic_capacity, "all but the batch must be static"),
    (a_circular_cache, "circular cannot be built"),
    (a_cache_of_three_dimensions, "must have 4 dimensions"),
    (a_present_that_is_no_output, "there is no output present_key_0"),
    (pairs_that_are_crossed, "present_key_0 is not past_key_0"),
    (a_row_that_is_not_aligned, "no multiple of 256"),
    (an_operator_of_another_domain, "not a standard operator"),
    (narrow_logits, "logits are FLOAT16"),
    (an_older_opset, "opset 23, must be 24"),
]


def name(value: Any) -> str | None:
    return value.__name__ if callable(value) else None


def test_a_graph_of_ours_has_no_fault(model: ir.Model) -> None:
    assert faults(model) == []


@pytest.mark.parametrize(("break_", "fault"), FAULTS, ids=name)
def test_a_fault_in_the_graph_is_named(
    model: ir.Model, break_: Callable[[ir.Model], None], fault: str
) -> None:
    break_(model)
    with pytest.raises(BuildError, match=f"model.onnx: .*{fault}.*: nothing was published"):
        require_sound(model, "model.onnx")


def test_our_graph_becomes_a_plan_of_two_profiles(graph: Path, toolkit: RtxToolkit) -> None:
    assert len(check_and_serialise(toolkit, graph, PROFILES, Silent())) > 100_000


# What the parser says, or what the walk through the network finds.
IN_NETWORK: list[tuple[Callable[[ir.Model], None], str]] = [
    (an_unused_input, "input lengths is lost"),
    (no_mask, "has lost its mask"),
    (causal, "cannot parse it: .*causal"),
    (capped, "cannot parse it: .*softcap"),
    (lengths_of_keys, "input lengths is lost"),
    (past_of_attention, "cannot parse it"),
    (a_dynamic_capacity, "cannot parse it|must have 4 dimensions, static"),
    (a_circular_cache, "cannot parse it"),
    (a_present_that_is_no_output, "its cache is not an input and an output"),
]


@pytest.mark.parametrize(("break_", "fault"), IN_NETWORK, ids=name)
def test_a_fault_is_found_in_the_network(
    graph: Path,
    model: ir.Model,
    toolkit: RtxToolkit,
    break_: Callable[[ir.Model], None],
    fault: str,
) -> None:
    break_(model)
    with pytest.raises(BuildError, match=fault):
        check_and_serialise(toolkit, saved(model, graph), PROFILES, Silent())
