"""Checks the network that TensorRT's parser made of a graph: it may leave out what it does not understand.

`tensorrt` is the module, of TensorRT or of TensorRT-RTX.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir as ir

from build.dialects.tensorrt.check import count

_CACHE, _MASK = 0, 3  # inputs of KV_CACHE_UPDATE and of attention


def network_faults(tensorrt: Any, network: Any, graph: ir.Graph) -> list[str]:
    """What has been lost between the graph and the network: nothing in a sound one."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return [
        *_inputs(network, layers, graph),
        *_attentions(tensorrt, layers, count(graph, "Attention")),
        *_caches(tensorrt, network, layers, count(graph, "TensorScatter")),
    ]


def attentions(tensorrt: Any, layers: list[Any]) -> Iterator[Any]:
    """The attentions of the network. TensorRT shows each as two layers; the first refers to its object."""
    for layer in layers:
        if layer.type == tensorrt.LayerType.ATTENTION_INPUT:
            layer.__class__ = tensorrt.IAttentionInputLayer
            yield layer.attention


def _inputs(network: Any, layers: list[Any], graph: ir.Graph) -> Iterator[str]:
    declared = {network.get_input(index).name for index in range(network.num_inputs)}
    read = {tensor.name for layer in layers for tensor in _read_by(layer)}
    for value in graph.inputs:
        if value.name not in declared & read:
            yield f"input {value.name} is lost: nothing in the network reads it"


def _attentions(tensorrt: Any, layers: list[Any], expected: int) -> Iterator[str]:
    found = list(attentions(tensorrt, layers))
    if len(found) != expected:
        yield f"{len(found)} attentions of {expected} are in the network"
    for attention in found:
        if attention.mask is None:
            yield f"attention {attention.name} has lost its mask"
        if attention.causal:
            yield f"attention {attention.name} is causal, which is ignored"


def _caches(tensorrt: Any, network: Any, layers: list[Any], expected: int) -> Iterator[str]:
    inputs = {network.get_input(index).name for index in range(network.num_inputs)}
    outputs = {network.get_output(index).name for index in range(network.num_outputs)}
    updates = [layer for layer in layers if layer.type == tensorrt.LayerType.KV_CACHE_UPDATE]
    if len(updates) != expected:
        yield f"{len(updates)} cache updates of {expected} are in the network"
    for update in updates:
        past, present = update.get_input(_CACHE), update.get_output(0)
        if past.name not in inputs or present.name not in outputs:
            yield f"{update.name}: its cache is not an input and an output of the network"
        if len(past.shape) != 4 or any(size < 0 for size in list(past.shape)[1:]):
            yield f"{update.name}: its cache {past.shape} must have 4 dimensions, static but the first"


def _read_by(layer: Any) -> Iterator[Any]:
    tensors = (layer.get_input(index) for index in range(layer.num_inputs))
    return (tensor for tensor in tensors if tensor is not None)
