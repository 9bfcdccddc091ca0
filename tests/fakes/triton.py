"""The part of Triton's Python backend API that the backends use."""

from __future__ import annotations

import json
import types
from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import numpy as np

from tests.contract import TYPES


class FakeMetric:
    def __init__(self, labels: dict[str, str], buckets: list[float] | None) -> None:
        self.labels = labels
        self.buckets = buckets
        self.calls: list[tuple[str, float]] = []

    def set(self, value: float) -> None:
        self.calls.append(("set", value))

    def increment(self, value: float) -> None:
        assert value >= 0
        self.calls.append(("increment", value))

    def observe(self, value: float) -> None:
        assert self.buckets
        self.calls.append(("observe", value))

    @property
    def total(self) -> float:
        return sum(value for _, value in self.calls)


class FakeFamily:
    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"
    made: dict[str, FakeFamily]
    kind: str

    def __init__(self, name: str, description: str, kind: str) -> None:
        assert description
        earlier = self.made.setdefault(name, self)
        assert earlier is self or earlier.kind == kind, "Triton refuses a second family of another kind"
        self.kind = kind
        # Two families of one name are one to Triton, as those of two models are.
        self.metrics: list[FakeMetric] = [] if earlier is self else earlier.metrics

    def Metric(self, labels: dict[str, str], buckets: list[float] | None = None) -> FakeMetric:
        assert (buckets is not None) == (self.kind == self.HISTOGRAM)
        assert labels not in [metric.labels for metric in self.metrics]
        self.metrics.append(FakeMetric(labels, buckets))
        return self.metrics[-1]


class Tensor:
    def __init__(self, name: str, array: np.ndarray[Any, Any]) -> None:
        assert array.dtype in (np.object_, np.int32), "Triton's names for STRING and INT32"
        self._name, self._array = name, array

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray[Any, Any]:
        return self._array


class TritonError(Exception):
    INVALID_ARG, UNAVAILABLE, CANCELLED, INTERNAL = range(4)

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Response:
    """InferenceResponse."""

    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None

    def __getitem__(self, name: str) -> Any:
        return next(tensor.as_numpy().item() for tensor in self.output_tensors if tensor.name() == name)

    @property
    def names(self) -> set[str]:
        return {tensor.name() for tensor in self.output_tensors}


class Sender:
    """A response sender; the final flag must come once, with the last response."""

    def __init__(self) -> None:
        self.sent: Queue[tuple[Response, bool]] = Queue()
        self.cancelled = False

    def send(self, response: Response, flags: int = 0) -> None:
        self.sent.put((response, flags == 1))

    def is_cancelled(self) -> bool:
        return self.cancelled


class InferenceRequest:
    def __init__(
        self,
        inputs: list[Tensor],
        parameters: dict[str, Any] | None = None,
        timeout: int = 0,
        carrier: str | None = None,
    ) -> None:
        self._inputs = inputs
        self._parameters = parameters
        self._timeout = timeout
        self._carrier = carrier
        self.sender = Sender()
        self.cancelled = False

    def inputs(self) -> list[Tensor]:
        return self._inputs

    def parameters(self) -> str:
        return json.dumps(self._parameters) if self._parameters is not None else ""

    def timeout(self) -> int:
        return self._timeout

    def trace(self) -> Any:
        return types.SimpleNamespace(get_context=lambda: self._carrier)

    def get_response_sender(self) -> Sender:
        return self.sender

    def is_cancelled(self) -> bool:
        return self.cancelled


_ARRAYS: dict[str, Any] = {"INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32, "BOOL": np.bool_}


class InputTensor(Tensor):
    """What a client sent: the ensemble has max_batch_size 1, so [1, 1], and [1, n] for several values."""

    def __init__(self, name: str, value: Any) -> None:
        values = value if isinstance(value, list) else [value]
        values = [v.encode() if isinstance(v, str) else v for v in values]
        self._name, self._array = name, np.array([values], _ARRAYS.get(TYPES.get(name, "BYTES"), np.object_))


def fake_triton() -> types.ModuleType:
    module = types.ModuleType("triton_python_backend_utils")
    logged: list[str] = []
    logger = types.SimpleNamespace(log_error=logged.append, log_warn=logged.append)
    by_name = lambda request, name: next(t for t in request.inputs() if t.name() == name)  # noqa: E731
    vars(module).update(
        Tensor=Tensor,
        TritonError=TritonError,
        InferenceResponse=lambda output_tensors=None, error=None: Response(output_tensors or [], error),
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        MetricFamily=type("MetricFamily", (FakeFamily,), {"made": {}}),
        Logger=logger,
        get_input_tensor_by_name=by_name,
        logged=logged,
    )
    return module
