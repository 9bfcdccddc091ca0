"""A Llama or Mistral of the `tensorrt` dialect in a few lines, written from docs/tensorrt-graph.md alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def write_toy(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], capacity: int
) -> Path:
    """`config` as of transformers; its sliding window, if it has one, is that of every layer."""
    toy = _Toy(config, tensors, capacity)
    onnx.save(toy.model(), path)
    return path


class _Toy:
    def __init__(
        self, config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]], capacity: int
    ) -> None:
        self.config = config
        self.tensors = tensors
        self.capacity = capacity
        self.window = config["sliding_window"]
        self.mask = f"attention_mask_{self.window}" if self.window else "attention_mask"
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def model(self) -> onnx.ModelProto:
        hidden = self.op("Gather", self.weight("model.embed_tokens.weight"), "input_ids")
        for layer in range(self.config["num_hidden_layers"]):
            hidden = self.layer(f"model.layers.{layer}", layer, hidden)
        hidden = self.op("Slice", hidden, self.ints("last", -1), self.ints("end", 2**62), self.ints("one", 1))
        hidden = self.norm(hidden, "model.norm.weight")
        self.op("MatMul", hidden, self.weight("lm_head.weight", transpose=True), out="logits")
        graph = helper.make_graph(self.nodes, "toy", self.inputs(), self.outputs(), self.initializers())
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)

    def layer(self, name: str, index: int, hidden: str) -> str:
        attended = self.attention(name, index, self.norm(hidden, f"{name}.input_layernorm.weight"))
        hidden = self.op("Add", hidden, attended)
        normed = self.norm(hidden, f"{name}.post_attention_layernorm.weight")
        gate = self.op("Swish", self.dense(normed, f"{name}.mlp.gate_proj"))
        gated = self.op("Mul", gate, self.dense(normed, f"{name}.mlp.up_proj"))
        return self.op("Add", hidden, self.dense(gated, f"{name}.mlp.down_proj"))

    def attention(self, name: str, index: int, normed: str) -> str:
        heads, kv_heads = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        query = self.rotated(self.heads(self.dense(normed, f"{name}.self_attn.q_proj"), heads))
        key = self.rotated(self.heads(self.dense(normed, f"{name}.self_attn.k_proj"), kv_heads))
        value = self.heads(self.dense(normed, f"{name}.self_attn.v_proj"), kv_heads)
        keys = self.scatter(f"key_{index}", key)
        values = self.scatter(f"value_{index}", value)
        attended = self.op("Attention", query, keys, values, self.mask)
        swapped = self.op("Transpose", attended, perm=[0, 2, 1, 3])
        flat = self.op("Reshape", swapped, self.ints("flat", 0, 0, -1))
        return self.dense(flat, f"{name}.self_attn.o_proj")

    def heads(self, packed: str, count: int) -> str:
        shape = self.ints(f"heads_{count}", 0, 0, count, self.config["head_dim"])
        return self.op("Transpose", self.op("Reshape", packed, shape), perm=[0, 2, 1, 3])

    def rotated(self, heads: str) -> str:
        size = self.config["head_dim"]
        steps = self.config["rope_theta"] ** -(np.arange(0, size, 2) / size)
        angles = np.outer(np.arange(self.capacity), steps)
        self.constants["cosines"] = np.cos(angles).astype(np.float32)
        self.constants["sines"] = np.sin(angles).astype(np.float32)
        return self.op("RotaryEmbedding", heads, "cosines", "sines", "position_ids")

    def scatter(self, cache: str, update: str) -> str:
        return self.op(
            "TensorScatter", f"past_{cache}", update, "write_indices", out=f"present_{cache}", axis=2
        )

    def norm(self, hidden: str, weight: str) -> str:
        return self.op(
            "RMSNormalization", hidden, self.weight(weight), epsilon=self.config["rms_norm_eps"], axis=-1
        )

    def dense(self, hidden: str, name: str) -> str:
        return self.op("MatMul", hidden, self.weight(f"{name}.weight", transpose=True))

    def weight(self, name: str, *, transpose: bool = False) -> str:
        found = self.tensors[name]
        self.constants[name] = np.ascontiguousarray(found.T) if transpose else found
        return name

    def ints(self, name: str, *values: int) -> str:
        self.constants[name] = np.array(values, np.int64)
        return name

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        name = out or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def cache(self, prefix: str) -> list[Any]:
        shape = ["batch", self.config["num_key_value_heads"], self.capacity, self.config["head_dim"]]
        return [
            helper.make_tensor_value_info(f"{prefix}_{kind}_{layer}", TensorProto.FLOAT, shape)
            for layer in range(self.config["num_hidden_layers"])
            for kind in ("key", "value")
        ]

    def inputs(self) -> list[Any]:
        info, whole = helper.make_tensor_value_info, ["batch", "seq"]
        return [
            info("input_ids", TensorProto.INT64, whole),
            info("position_ids", TensorProto.INT64, whole),
            info("write_indices", TensorProto.INT64, ["batch"]),
            info(self.mask, TensorProto.BOOL, ["batch", 1, "seq", self.capacity]),
            *self.cache("past"),
        ]

    def outputs(self) -> list[Any]:
        shape = ["batch", 1, self.config["vocab_size"]]
        return [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape), *self.cache("present")]

    def initializers(self) -> list[Any]:
        return [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
