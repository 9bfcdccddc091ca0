"""Makes a serialised plan of an ONNX graph, with the same code for TensorRT and TensorRT-RTX.

TensorRT-RTX builds without a GPU, for a kind of GPU that is named; that checks a graph, but Triton loads none
of its plans. TensorRT builds on and for the GPU of this host.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import onnx_ir as ir

from build.assembly import Progress
from build.dialects.tensorrt.network import attentions, network_faults
from build.errors import BuildError

_NO_GPU = "catchCudaError"
Range = tuple[int, int, int]


@dataclass(frozen=True)
class Profile:
    """The minimum, optimum and maximum of each dynamic dimension, by its name in the graph."""

    sizes: Mapping[str, Range]


def decode_profile(rows: int) -> Profile:
    return Profile({"batch": (1, rows, rows), "seq": (1, 1, 1)})


def prefill_profile(tokens: int) -> Profile:
    """One row at a time; two are allowed, since TensorRT-RTX 1.7 fails on shared masks if only one is."""
    return Profile({"batch": (1, 1, 2), "seq": (1, tokens, tokens)})


def encoder_profile(tokens: int) -> Profile:
    return Profile({"source": (1, max(1, tokens // 2), tokens)})


class Toolkit(Protocol):
    """What differs between TensorRT and TensorRT-RTX."""

    @property
    def module(self) -> Any: ...

    def begin(self, config: Any) -> None:
        """Says for which GPU to build, and what earlier builds have timed."""

    def end(self, config: Any) -> None:
        """Keeps what this build has timed."""


def check_and_serialise(
    toolkit: Toolkit, graph: Path, profiles: Sequence[Profile], progress: Progress
) -> bytes:
    """The plan of a graph whose network is sound; BuildError says what TensorRT said."""
    tensorrt = toolkit.module
    log = _log(tensorrt)
    builder = tensorrt.Builder(log)
    network = builder.create_network(_strongly_typed(tensorrt))
    parser = tensorrt.OnnxParser(network, log)
    if not parser.parse_from_file(str(graph)):
        said = _said(parser.get_error(index).desc() for index in range(parser.num_errors))
        raise BuildError(f"{graph.name}: {named(tensorrt)} cannot parse it: {said}")
    lost = network_faults(tensorrt, network, ir.load(graph).graph)
    if lost:
        raise BuildError(f"{graph.name}: in {named(tensorrt)} {'; '.join(lost)}")
    _allow_decomposition(tensorrt, network)
    config = builder.create_builder_config()
    for profile in profiles:
        config.add_optimization_profile(_profile(builder, network, profile))
    config.progress_monitor = _monitor(tensorrt, graph.stem, progress)
    toolkit.begin(config)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"{graph.name}: {named(tensorrt)} cannot build it: {_said(log.errors)}")
    toolkit.end(config)
    return bytes(plan)


def _said(messages: Iterable[str]) -> str:
    """The messages on one line, without TensorRT-RTX's message on every machine without a GPU."""
    lines = (line.strip() for message in messages for line in message.splitlines())
    return "; ".join(line for line in lines if line and _NO_GPU not in line)


def named(tensorrt: Any) -> str:
    """The module and its version, as a person reads them."""
    return f"{tensorrt.__name__} {tensorrt.__version__}"


def _strongly_typed(tensorrt: Any) -> int:
    """The flag by which the graph's types are what is computed in; versions that always do so have none."""
    flag = getattr(tensorrt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _allow_decomposition(tensorrt: Any, network: Any) -> None:
    """Lets TensorRT split an attention whose shape no fused kernel fits; else the build would fail."""
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    for attention in attentions(tensorrt, layers):
        attention.decomposable = True


def _profile(builder: Any, network: Any, profile: Profile) -> Any:
    made = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if any(size < 0 for size in tensor.shape):
            made.set_shape(tensor.name, *(_shape(tensor, profile, bound) for bound in range(3)))
    return made


def _shape(tensor: Any, profile: Profile, bound: int) -> tuple[int, ...]:
    return tuple(
        profile.sizes[tensor.get_dimension_name(axis)][bound] if size < 0 else size
        for axis, size in enumerate(tensor.shape)
    )


def _log(tensorrt: Any) -> Any:
    """A logger that keeps what went wrong."""

    class Log(tensorrt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity <= tensorrt.ILogger.Severity.ERROR:
                self.errors.append(message)

    return Log()


def _monitor(tensorrt: Any, stem: str, progress: Progress) -> Any:
    """Shows the phases that have no parent; TensorRT calls it from its own threads."""

    class Monitor(tensorrt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, Any] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if not parent:
                self._steps[phase] = progress.stage(f"{stem} {phase.lower()}", steps)

        def step_complete(self, phase: str, _step: int) -> bool:
            if phase in self._steps:
                self._steps[phase]()
            return True

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

    return Monitor()
