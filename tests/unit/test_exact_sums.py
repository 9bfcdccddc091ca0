"""Products of bytes are summed exactly, wherever ONNX Runtime runs them: in the engine and in the build."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from build.dialects import inference as build_inference
from engine.runners import onnx_runner as engine_inference
from tests.paths import ROOT

INPUTS, OUTPUTS = 64, 48
# What a whole folder opens: peers run as their users get them.
OPENERS = {
    "build/dialects/inference.py": 1,
    "server/engine/runners/onnx_runner.py": 2,
    "loadtest/bench/side_onnxruntime.py": 1,
}


def write_product(path: Path) -> Path:
    """x UINT8 [rows, 64] by a weight of 127 everywhere, as the int8 graphs have it."""
    nodes = [
        helper.make_node("MatMulIntegerToFloat", ["x", "w", "one", "one"], ["y"], domain="com.microsoft")
    ]
    x = helper.make_tensor_value_info("x", TensorProto.UINT8, ["rows", INPUTS])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", OUTPUTS])
    weights = numpy_helper.from_array(np.full((INPUTS, OUTPUTS), 127, np.int8), "w")
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    graph = helper.make_graph(nodes, "product", [x], [y], [weights, one])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


@pytest.mark.exact
@pytest.mark.parametrize("open_session", [build_inference.open_session, engine_inference.open_session])
@pytest.mark.parametrize("rows", [1, 2, 3, 33])
def test_the_largest_bytes_do_not_saturate(
    open_session: Callable[..., ort.InferenceSession], rows: int, tmp_path: Path
) -> None:
    session = open_session(write_product(tmp_path / "product.onnx"), threads=1)
    (found,) = session.run(None, {"x": np.full((rows, INPUTS), 255, np.uint8)})
    np.testing.assert_array_equal(found, np.full((rows, OUTPUTS), INPUTS * 255 * 127, np.float32))


def test_the_engine_asks_for_exact_sums_only_where_they_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the processor has them already, asking would cost time."""
    asked: list[str] = []
    options = ort.SessionOptions
    monkeypatch.setattr(options, "add_session_config_entry", lambda self, name, value: asked.append(name))
    for exact in (True, False):
        monkeypatch.setattr(engine_inference, "sums_are_exact", lambda exact=exact: exact)
        engine_inference.open_session(write_product(tmp_path / "product.onnx"))
        assert bool(asked) is not exact


def test_the_model_that_tests_the_processor_is_one_product_of_bytes() -> None:
    model = onnx.load_model_from_string(engine_inference._PRODUCT)
    onnx.checker.check_model(model)
    (node,) = model.graph.node
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    assert (node.op_type, list(node.input)) == ("MatMulInteger", ["x", "w"])
    assert types == {"x": TensorProto.UINT8, "w": TensorProto.INT8}


def test_sessions_are_opened_nowhere_else() -> None:
    found: dict[str, int] = {}
    for folder in ("build", "client", "k8s", "loadtest", "server", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            names = [node for node in ast.walk(ast.parse(path.read_text())) if _opens(node)]
            if names:
                found[str(path.relative_to(ROOT))] = len(names)
    assert found == OPENERS


def _opens(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and getattr(node.func, "attr", getattr(node.func, "id", "")) == "InferenceSession"
    )
